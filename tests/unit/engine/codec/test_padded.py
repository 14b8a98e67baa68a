from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from cloner.audio import FRAME_SAMPLES, Audio
from cloner.batch import CODEBOOK_SIZES
from cloner.engine.checkpoint import fish
from cloner.engine.codec.padded import CodecDecoder, CodecEncoder, _batches, snr_db
from cloner.engine.upstream import encode
from cloner.errors import BadReference
from cloner.events import Event
from tests.support.engine_requests import CPU
from tests.support.log_lines import find_lines

LENGTHS = (9, 100, 1, 33, 2, 64)


@pytest.fixture(scope="module")
def codec(tiny: Path) -> CodecDecoder:
    return CodecDecoder(tiny, CPU, 1024)


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> CodecEncoder:
    return CodecEncoder(tiny, CPU, 1024)


@pytest.fixture(scope="module")
def whole(tiny: Path) -> fish.Codec:
    return fish.load_codec(tiny, CPU)


def some_codes(frames: int) -> Tensor:
    random = torch.Generator().manual_seed(frames)
    return torch.stack([torch.randint(size, (frames,), generator=random) for size in CODEBOOK_SIZES]).int()


def noise(samples: int) -> Audio:
    """Noise of varying loudness, so that frames differ."""
    audio = np.random.default_rng(samples).normal(0, 0.1, samples) * np.sin(np.arange(samples) / 7000)
    return audio.astype(np.float32)


def test_segments_decoded_together_equal_those_decoded_alone_and_upstreams(
    codec: CodecDecoder, whole: fish.Codec
) -> None:
    codes = [some_codes(frames) for frames in LENGTHS]
    together = dict(codec.decode(codes))
    assert together.keys() == set(range(len(LENGTHS)))
    for place, item in enumerate(codes):
        audio = together[place]
        assert audio.shape == (LENGTHS[place] * FRAME_SAMPLES,)
        assert audio.dtype == np.float32
        ((_, alone),) = codec.decode([item])
        with torch.inference_mode():
            theirs = whole.decode(item[None].long(), torch.tensor([item.shape[1]]))[0][0, 0].numpy()
        assert np.abs(theirs).max() > 0.1, "the audio should not be silent"
        assert np.abs(audio - alone).max() < 1e-5
        assert np.abs(audio - theirs).max() < 1e-5


def test_no_batch_is_larger_than_its_limit(tiny: Path) -> None:
    codec = CodecDecoder(tiny, CPU, batch_frames=8)
    codes = [some_codes(frames) for frames in (1, 4, 9, 3, 4)]
    with patch.object(codec, "_decode", wraps=codec._decode) as decode:
        together = dict(codec.decode(codes))
    assert [call.args[0].shape for call in decode.call_args_list] == [(1, 10, 9), (2, 10, 4), (2, 10, 3)]
    assert [together[place].size // FRAME_SAMPLES for place in range(5)] == [1, 4, 9, 3, 4]


def test_when_memory_runs_out_batches_and_pieces_are_halved(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codec = CodecDecoder(tiny, CPU, batch_frames=64)
    whole = codec._decode
    codes = [some_codes(frames) for frames in (9, 30, 12, 3, 20)]
    expected = dict(codec.decode(codes))

    def scarce(together: Tensor, _stopped: object) -> Tensor:
        if together.shape[0] * together.shape[2] > 40:
            torch.empty(2**50)
        return whole(together)

    with patch.object(codec, "_decode", scarce):
        got = dict(codec.decode(codes))
    assert got.keys() == expected.keys()
    assert all(np.abs(got[place] - expected[place]).max() < 1e-5 for place in expected)
    assert find_lines(capsys.readouterr().err.splitlines(), Event.CODEC_OUT_OF_MEMORY, frames=32)


def test_a_codec_without_any_memory_raises_in_the_end(tiny: Path) -> None:
    codec = CodecDecoder(tiny, CPU, batch_frames=64)
    with (
        patch.object(codec, "_decode", lambda _codes, _stopped: torch.empty(2**50)),
        pytest.raises(RuntimeError, match="can't allocate memory"),
    ):
        list(codec.decode([some_codes(5)]))


@pytest.mark.parametrize("most", [1, 7, 100])
@pytest.mark.parametrize("sizes", [(), (5,), (1, 1, 1), (3, 50, 7, 7, 2, 101, 1), tuple(range(1, 40))])
def test_batches_hold_every_index_once_and_stay_within_their_limit(sizes: tuple[int, ...], most: int) -> None:
    batches = list(_batches(sizes, most))
    assert sorted(itertools.chain(*batches)) == list(range(len(sizes)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(sizes[place] for place in batch) <= most
    ordered = [sizes[place] for batch in batches for place in batch]
    assert ordered == sorted(sizes, reverse=True), "items of similar size are in one batch"


def test_recordings_encoded_together_have_upstreams_codes(encoder: CodecEncoder, whole: fish.Codec) -> None:
    recordings = [noise(samples) for samples in (5000, 1, 2048, 60_000, 2049, 100)]
    together = encoder.encode(recordings)
    for recording, codes in zip(recordings, together, strict=True):
        assert codes.dtype == np.int32
        assert np.array_equal(codes, encode(whole, CPU, recording))
    assert len(np.unique(together[3][0])) > 10, "the recording should have different frames"


@pytest.mark.parametrize("part", [fish.CodecPart.DECODER, fish.CodecPart.ENCODER])
def test_a_part_of_the_codec_lacks_the_other_and_has_plain_weights(part: fish.CodecPart, tiny: Path) -> None:
    codec = fish.load_codec(tiny, CPU, part)
    quantizer = codec.quantizer
    encoding = (codec.encoder, quantizer.downsample, quantizer.pre_module)
    decoding = (codec.decoder, quantizer.upsample, quantizer.post_module)
    there, away = (decoding, encoding) if part is fish.CodecPart.DECODER else (encoding, decoding)
    assert all(list(item.parameters()) for item in there)
    assert not any(list(item.parameters()) for item in away if item is not None)
    for module in codec.modules():
        assert not parametrize.is_parametrized(module)
        assert not hasattr(module, "weight_g")
        assert not module.training
    assert not any(weight.requires_grad for weight in codec.parameters())


def test_bits_that_half_precision_rounded_off_are_restored(tiny: Path, codec: CodecDecoder) -> None:
    changed = CodecDecoder(tiny, CPU, 1024)
    changed.to(torch.float16)
    assert {weight.dtype for weight in _weights(changed)} == {torch.float16}
    changed.to(torch.float32)
    for one, other in zip(_weights(changed), _weights(codec), strict=True):
        assert torch.equal(one, other)


def _weights(codec: CodecDecoder) -> list[Tensor]:
    return [*codec._codec.parameters(), *codec._waveform.state_dict().values()]


def signal() -> Tensor:
    return torch.randn(10_000, generator=torch.Generator().manual_seed(0))


def disturbed(audio: Tensor) -> Iterator[tuple[Tensor, float]]:
    other = torch.randn(10_000, generator=torch.Generator().manual_seed(1))
    yield audio + 0.1 * other, 20
    yield audio + 0.01 * other, 40
    yield audio + 0.01 * other + 3, 40
    yield audio * 1.1, 20
    yield -audio, -6


@pytest.mark.parametrize(("audio", "decibels"), list(disturbed(signal())))
def test_signal_to_noise_of_known_disturbances(audio: Tensor, decibels: float) -> None:
    assert snr_db(audio, signal()) == pytest.approx(decibels, abs=0.3)


def test_a_constant_is_no_noise() -> None:
    assert snr_db(signal(), signal()) == float("inf")
    assert snr_db(signal() + 0.5, signal()) > 100


@pytest.mark.parametrize(
    ("recording", "word"),
    [
        (np.zeros(0, dtype=np.float32), "one at least"),
        (np.zeros((2, 9), dtype=np.float32), "mono samples are needed"),
        (np.full(5000, np.nan, dtype=np.float32), "NaN"),
        (np.zeros(4097 * FRAME_SAMPLES, dtype=np.float32), "lasts 190 s, and the codec takes 190 s at most"),
    ],
    ids=["empty", "stereo", "no numbers", "too long"],
)
def test_unusable_recordings_are_refused(encoder: CodecEncoder, recording: Any, word: str) -> None:
    with pytest.raises(BadReference, match=word):
        encoder.encode([noise(100), recording])
