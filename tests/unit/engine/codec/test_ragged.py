"""The GPU's decoder on a CPU: whole with plain torch functions, its waveform also with the kernels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from cloner.audio import FRAME_SAMPLES
from cloner.batch import CODEBOOK_SIZES
from cloner.engine.checkpoint import fish
from cloner.engine.checkpoint.folder import init_checkpoint
from cloner.engine.checkpoint.presets import Preset
from cloner.engine.codec import ragged
from cloner.engine.codec.padded import CodecDecoder, snr_db
from cloner.engine.codec.ragged import GpuCodec
from cloner.engine.codec.ragged_batch import Batch, pack
from cloner.engine.codec.ragged_waveform import RaggedWaveform
from cloner.engine.codec.waveform import Waveform
from cloner.engine.kernels.codec.kernel_set import TRITON, TWINS, CodecPlan
from cloner.engine.kernels.codec.residual_unit import SUM_ROWS
from cloner.engine.kernels.codec.rows import GAP_FRAMES
from cloner.engine.kernels.codec.tiles import CodecTiles, ConvTile, UnitTile
from cloner.events import Event
from tests.support.engine_requests import CPU
from tests.unit.engine.kernels.codec.parts import COLUMNS, Ragged, Random

LENGTHS = (9, 40, 1, 33, 2, 20)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoints") / "small"
    init_checkpoint(directory, Preset.SMALL)
    return directory


@pytest.fixture(scope="module")
def upstream(small: Path) -> fish.Codec:
    """With biases and alphas that show when they are left out."""
    codec = fish.load_codec(small, CPU, fish.CodecPart.DECODER)
    random = Random()
    with torch.inference_mode():
        for name, weight in codec.named_parameters():
            if name.endswith("bias"):
                weight.copy_(random.normal(*weight.shape) * 0.05)
            elif name.endswith("alpha"):
                weight.copy_(torch.exp(0.3 * random.normal(*weight.shape)))
            elif name.endswith("gamma"):
                weight.copy_(1 + 0.1 * random.normal(*weight.shape))
    for module in codec.modules():
        module.__dict__.pop("forward", None)  # which has remembered alphas
    return codec


def made(upstream: fish.Codec, batch_frames: int) -> GpuCodec:
    return GpuCodec(upstream, CPU, batch_frames, CodecPlan.plain(torch.float32, 4))


def some_codes(frames: int) -> Tensor:
    random = torch.Generator().manual_seed(frames)
    return torch.stack([torch.randint(size, (frames,), generator=random) for size in CODEBOOK_SIZES]).int()


@torch.inference_mode()
def exact(upstream: fish.Codec, codes: Tensor) -> Tensor:
    audio: Tensor = upstream.decoder(upstream.quantizer.decode(codes[None].long()))[0, 0]
    return audio


@pytest.mark.parametrize("batch_frames", [120, 45, 12], ids=["together", "some", "in pieces"])
def test_segments_sound_as_upstreams_and_as_alone(batch_frames: int, upstream: fish.Codec) -> None:
    codec = made(upstream, batch_frames)
    codes = [some_codes(frames) for frames in LENGTHS]
    together = dict(codec.decode(codes))
    assert together.keys() == set(range(len(LENGTHS)))
    for place, item in enumerate(codes):
        audio = together[place]
        assert audio.dtype == np.float32
        assert audio.shape == (LENGTHS[place] * FRAME_SAMPLES,)
        assert snr_db(torch.from_numpy(audio), exact(upstream, item)) > 90
        ((_, alone),) = made(upstream, 64).decode([item])
        assert np.abs(audio - alone).max() < 1e-5


def test_it_sounds_like_the_decoder_of_a_cpu(small: Path) -> None:
    plain = CodecDecoder(small, CPU, 512)
    codec = made(fish.load_codec(small, CPU, fish.CodecPart.DECODER), 64)
    assert codec.max_frames == plain.max_frames
    codes = [some_codes(frames) for frames in (30, 7)]
    expected, got = dict(plain.decode(codes)), dict(codec.decode(codes))
    for place in range(2):
        assert snr_db(torch.from_numpy(got[place]), torch.from_numpy(expected[place])) > 90


def test_a_segment_of_nan_is_tried_again_alone_and_leaves_the_others(upstream: fish.Codec) -> None:
    codec = made(upstream, 64)
    codes = [some_codes(frames) for frames in (5, 8, 3)]
    table = codec._quantizer._table
    rows = codec._quantizer._begin[1].item() + codes[1][1, 4].long()
    healthy = dict(codec.decode(codes))
    others = [int((item[1] == codes[1][1, 4]).sum()) for item in (codes[0], codes[2])]
    assert others == [0, 0], "the broken entry is the second segment's alone"
    with torch.inference_mode():
        table[rows] = torch.nan
    with patch.object(codec, "_launch", wraps=codec._launch) as launch:
        got = dict(codec.decode(codes))
    assert np.isnan(got[1]).all()
    assert not np.isnan(healthy[1]).any()
    for place in (0, 2):
        assert np.abs(got[place] - healthy[place]).max() < 1e-5
    assert launch.call_args_list[0].args[0] == [1, 0, 2]
    assert [1] in [call.args[0] for call in launch.call_args_list]


def test_where_memory_runs_out_batches_are_halved(upstream: fish.Codec, capsys: pytest.CaptureFixture[str]) -> None:
    codec = made(upstream, 256)
    codes = [some_codes(frames) for frames in (9, 30, 60, 3, 20)]
    expected = dict(codec.decode(codes))
    compute = codec._compute

    def scarce(frames: int) -> None:
        if frames > 64:
            torch.empty(2**50)
        compute(frames)

    with patch.object(codec, "_compute", scarce):
        got = dict(codec.decode(codes))
    assert got.keys() == expected.keys()
    assert all(np.abs(got[place] - expected[place]).max() < 1e-5 for place in expected)
    assert "Out of memory in the codec: going on with 64 frames at once" in capsys.readouterr().err


def test_batches_grow_again_and_more_seldom_each_time_that_memory_runs_out(
    upstream: fish.Codec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ragged, "GROW_BATCHES", 1)
    codec = made(upstream, 128)
    compute, most = codec._compute, 64

    def scarce(frames: int) -> None:
        if frames > most:
            torch.empty(2**50)
        compute(frames)

    codes = [some_codes(frames) for frames in (50, 49)]
    with patch.object(codec, "_compute", scarce):
        for _ in range(4):  # 2 batches each, and more are tried after 2, then after 4
            assert dict(codec.decode(codes)).keys() == {0, 1}
        most = 128
        for _ in range(4):
            assert dict(codec.decode(codes)).keys() == {0, 1}
    fewer, more = Event.CODEC_OUT_OF_MEMORY.line(frames=64), Event.CODEC_MEMORY_AGAIN.line(frames=128)
    assert capsys.readouterr().err.splitlines() == [fewer, more, fewer, more, fewer, more]
    assert codec._batch_frames == 128


def test_without_any_memory_it_says_so_in_the_end(upstream: fish.Codec) -> None:
    codec = made(upstream, 64)
    with (
        patch.object(codec, "_compute", lambda _frames: torch.empty(2**50)),
        pytest.raises(RuntimeError, match="can't allocate memory"),
    ):
        list(codec.decode([some_codes(5), some_codes(6)]))


def test_when_it_is_stopped_it_ends_before_the_next_batch(upstream: fish.Codec) -> None:
    codec = made(upstream, 12)
    asked: list[bool] = []

    def after_two() -> bool:
        asked.append(True)
        return len(asked) > 2

    codes = [some_codes(frames) for frames in (10, 9, 8, 7)]
    assert [place for place, _ in codec.decode(codes, after_two)] == [0]
    assert len(dict(codec.decode(codes))) == 4


@pytest.mark.parametrize("most", [1, 7, 100])
@pytest.mark.parametrize("lengths", [(), (5,), (1, 1, 1), (3, 50, 7, 7, 2, 101, 1), tuple(range(1, 40))])
def test_batches_hold_every_place_once_and_no_more_than_they_may(lengths: tuple[int, ...], most: int) -> None:
    batches = pack(lengths, range(len(lengths)), most)
    assert sorted(place for places in batches for place in places) == list(range(len(lengths)))
    for places in batches:
        batch = Batch(places, [lengths[place] for place in places])
        assert len(places) == 1 or batch.frames <= most
        first = batch.first(batch.frames + 3)
        assert (first >= 0).sum() == sum(batch.lengths)
        assert (first[-3:] == -1).all()


SMALL = ConvTile(rows=128, columns=32, depth=32)
TILES = {
    "units": CodecTiles(
        first=SMALL,
        up=(SMALL, ConvTile(rows=128, columns=64, depth=32, halves=True)),
        wide=(UnitTile(rows=128, left=32, right=32, depth=32), UnitTile(rows=128, left=32, right=16, depth=16)),
        narrow=(SMALL, SMALL),
    ),
    "convolutions": CodecTiles(
        first=ConvTile(rows=128, columns=64, depth=32, tma=True),
        up=(SMALL, SMALL),
        wide=(SMALL, UnitTile(rows=128, left=32, right=16, depth=16, tma=True)),
        narrow=(SMALL, SMALL),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tiles", "dtype", "decibels"),
    [("units", torch.float32, 95), ("units", torch.float16, 40), ("convolutions", torch.float32, 95)],
)
def test_the_kernels_together_make_the_samples_of_every_segment(
    tiles: str, dtype: torch.dtype, decibels: float
) -> None:
    decoder = Random().decoder(32, (64, 64, 48), (8, 2))
    ragged = Ragged((2, 1))
    waveform = RaggedWaveform(decoder, CodecPlan(dtype, TILES[tiles], TRITON))
    latents = ragged.rows(Random(1), 32, COLUMNS)
    hop = waveform.layers.hop
    samples = torch.full((len(latents) * hop,), torch.nan)
    finite = torch.zeros(-(-len(samples) // SUM_ROWS), dtype=torch.int8)
    waveform(latents.to(dtype), ragged.valid, samples=samples, finite=finite)
    assert finite.all()
    for begin, length in zip(ragged.begins, ragged.lengths, strict=True):
        own = latents[begin * COLUMNS : (begin + length) * COLUMNS]
        with torch.inference_mode():
            expected = Waveform(decoder)(own.T[None], 1000)[0]
        got = samples[begin * COLUMNS * hop : (begin + length) * COLUMNS * hop]
        assert snr_db(got, expected) > decibels


def test_gaps_are_as_long_as_every_convolution_looks_back(upstream: fish.Codec) -> None:
    layers = RaggedWaveform(upstream.decoder, CodecPlan.plain(torch.float32, 4)).layers
    rows = GAP_FRAMES * COLUMNS
    assert rows >= layers.first.taps - 1
    for block in layers.blocks:
        assert rows >= 1
        rows *= block.stride
        assert all(rows >= (unit.wide.taps - 1) * unit.wide.dilation for unit in block.units)
    assert rows >= layers.last_taps - 1


@pytest.mark.parametrize("name", ["convolve", "gate"])
def test_a_kernel_can_be_replaced_by_its_plain_function(name: str) -> None:
    mixed: Any = TRITON.without([name])
    replaced: Callable[..., object] = getattr(mixed, name)
    assert replaced is getattr(TWINS, name)
    assert mixed.apply_unit is TRITON.apply_unit
