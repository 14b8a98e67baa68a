from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cloner.audio import FRAME_SAMPLES
from cloner.engine.checkpoint import fish
from cloner.engine.codec.waveform import Waveform
from tests.support.engine_requests import CPU

COLUMNS = 23


@pytest.fixture
def codec(tiny: Path) -> fish.Codec:
    """The decoder with upstream's own activations. Made for each test, since some change its weights."""
    codec = fish.load_codec(tiny, CPU, fish.CodecPart.DECODER)
    for module in codec.modules():
        module.__dict__.pop("forward", None)
    return codec


def some_latents(codec: fish.Codec, rows: int, columns: int = COLUMNS) -> Tensor:
    channels = codec.decoder.model[0].conv.in_channels
    return torch.randn(rows, channels, columns, generator=torch.Generator().manual_seed(columns))


def alphas(codec: fish.Codec) -> list[Tensor]:
    return [module.alpha for module in codec.decoder.modules() if hasattr(module, "alpha")]


@torch.inference_mode()
def difference(codec: fish.Codec, columns: int, rows: int = 1) -> float:
    """The largest absolute difference between our samples and upstream's."""
    latents = some_latents(codec, rows)
    theirs = codec.decoder(latents)[:, 0]
    ours = Waveform(codec.decoder)(latents, columns)
    assert ours.shape == theirs.shape
    assert theirs.abs().max() > 0.1, "the audio should not be silent"
    return float((ours - theirs).abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("columns", [1, 2, 3, 7, 22, COLUMNS, 100])
@pytest.mark.parametrize("rows", [1, 3])
def test_pieces_of_any_size_equal_upstreams_whole(columns: int, rows: int, codec: fish.Codec) -> None:
    with torch.inference_mode():
        for number, alpha in enumerate(alphas(codec)):
            random = torch.Generator().manual_seed(number)
            alpha.copy_(torch.rand(alpha.shape, generator=random) * 2 + 0.1)
    assert difference(codec, columns, rows) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 1e-8, -0.5, 5.0])
def test_activations_of_any_period_equal_upstreams(alpha: float, codec: fish.Codec) -> None:
    with torch.inference_mode():
        for each in alphas(codec):
            each[:, ::2] = alpha
    assert difference(codec, 7) < 1e-5


def test_a_waveform_keeps_no_state_between_calls(codec: fish.Codec) -> None:
    waveform = Waveform(codec.decoder)
    first, other = some_latents(codec, 1, 9), some_latents(codec, 1, 14)
    with torch.inference_mode():
        before = waveform(first, 4)
        waveform(other, 4)
        assert torch.equal(before, waveform(first, 4))


def test_only_one_piece_is_in_memory_at_once(codec: fish.Codec) -> None:
    waveform = Waveform(codec.decoder)
    seen: list[int] = []

    def count(_module: Any, args: tuple[Tensor, Any]) -> None:
        seen.append(args[0].shape[-1])

    for block in waveform.blocks:
        block.register_forward_pre_hook(count)
    with torch.inference_mode():
        audio = waveform(some_latents(codec, 1, 40), 4)
    assert audio.shape == (1, 40 * FRAME_SAMPLES // 4)
    assert max(seen) == 4 * FRAME_SAMPLES // 4 // codec.decoder.model[-4].block[1].stride
