from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from cloner.engine.checkpoint import fish
from cloner.engine.codec import precision
from cloner.engine.codec.padded import CodecDecoder
from cloner.engine.codec.precision import (
    exact_audio,
    has_published_size,
    least_snr_db,
    load_codec_decoder,
    trial_codes,
)
from cloner.engine.codec.ragged import GpuCodec
from cloner.engine.kernel_trial.codec_cases import CodecCases
from cloner.engine.kernels.codec.kernel_set import TWINS, CodecKernels, CodecPlan
from cloner.engine.kernels.codec.tiles import codec_tiles
from tests.support.engine_requests import CPU


def load(checkpoint: Path, kernels: CodecKernels) -> GpuCodec | CodecDecoder:
    """As on a GPU, for a codec of any size."""
    with (
        patch.object(precision, "has_published_size", lambda _upstream: True),
        patch.object(precision, "card_tiles", lambda _device: CodecPlan.plain(torch.float32, 4).tiles),
    ):
        return load_codec_decoder(checkpoint, CPU, 64, lambda: kernels)


def test_what_sounds_like_upstream_is_taken(tiny: Path) -> None:
    codec = load(tiny, TWINS)
    assert isinstance(codec, GpuCodec)
    assert codec.dtype is torch.float16
    exact = [exact_audio(fish.load_codec(tiny, CPU, fish.CodecPart.DECODER), codes) for codes in trial_codes(CPU)]
    assert least_snr_db(codec, exact) > 40


def silent(x: Tensor) -> Tensor:
    return torch.zeros_like(x[:, : x.shape[1] // 2])


def broken(x: Tensor) -> Tensor:
    return torch.full_like(x[:, : x.shape[1] // 2], torch.nan)


def loud(x: Tensor) -> Tensor:
    return 1000 * TWINS.gate(x)


@pytest.mark.slow
@pytest.mark.parametrize("gate", [loud, broken])
def test_what_does_not_is_replaced_and_said(
    gate: Callable[[Tensor], Tensor], tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codec = load(tiny, replace(TWINS, gate=gate))
    assert isinstance(codec, CodecDecoder)
    stderr = capsys.readouterr().err
    assert "The codec in torch.float16 is" in stderr
    assert "The codec in torch.bfloat16 is" in stderr


def test_a_codec_of_another_size_gets_no_kernels(tiny: Path) -> None:
    assert not has_published_size(fish.load_codec(tiny, CPU, fish.CodecPart.DECODER))
    assert isinstance(load_codec_decoder(tiny, CPU, 64), CodecDecoder)


def test_a_wrong_kernel_is_found() -> None:
    plan = CodecPlan(torch.float32, codec_tiles((8, 9), 99 * 1024), TWINS)
    cases = CodecCases(CPU, 5, plan).all()
    assert {case.kernel for case in cases} == {each.name for each in fields(CodecKernels)}
    small = [case for case in cases if not case.products]
    for gate in (silent, broken):
        wrong = {case.kernel for case in small if not case.error(replace(TWINS, gate=gate)) < 0.01}
        assert wrong == {"gate"}
