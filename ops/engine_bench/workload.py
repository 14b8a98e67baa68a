"""Inputs of the benchmarks: voices, requests of a fixed number of frames, codes for the codec; and the
wait for a device's results."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from cloner.audio import FRAME_SAMPLES, SAMPLE_RATE, Audio, Samples16
from cloner.batch import CODEBOOK_SIZES, Generation
from cloner.engine.base import SegmentAudio, SegmentFailure, SpeechRequest, Voice
from cloner.engine.segment_codes import SegmentCodes

FRAMES_PER_SECOND = SAMPLE_RATE / FRAME_SAMPLES

REFERENCE_FRAMES = 215
"""A reference of 10 s."""

TEXT = "This is one of the sentences that are spoken in this voice."


def make_voice(seed: int, frames: int = REFERENCE_FRAMES) -> Voice:
    """A reference of random codes."""
    codes = np.random.default_rng(seed).integers(0, CODEBOOK_SIZES[1], (len(CODEBOOK_SIZES), frames), dtype=np.int32)
    return Voice(codes, "This is what the reference says, in about ten seconds, and no less.")


def make_requests(
    frames: Iterable[int], voices: list[Voice], texts: Iterable[str] | None = None
) -> list[SpeechRequest]:
    """A request for each of `frames`, with exactly that number: its minimum and its maximum are the same."""
    lengths = list(frames)
    return [
        SpeechRequest(
            segment=number,
            text=text,
            voice=voices[number % len(voices)],
            generation=Generation(min_new_tokens=length, max_new_tokens=length),
            seed=number,
        )
        for number, (length, text) in enumerate(zip(lengths, texts or [TEXT] * len(lengths), strict=True))
    ]


def codes_of(result: SegmentCodes | SegmentFailure) -> Tensor:
    """The codes of a result. Raises `RuntimeError` if the segment failed: its time would not count."""
    if isinstance(result, SegmentCodes):
        return result.codes
    raise RuntimeError(f"segment {result.segment} was not generated: {result.message}")


def audio_of(result: SegmentAudio | SegmentFailure) -> Audio | Samples16:
    """The audio of a result. Raises `RuntimeError` if the segment failed."""
    if isinstance(result, SegmentAudio):
        return result.audio
    raise RuntimeError(f"segment {result.segment} was not generated: {result.message}")


def make_codes(segments: int, frames: int) -> list[Tensor]:
    """Codes ``[codebooks, frames]`` of segments that are about `frames` long, for the codec alone."""
    random = torch.Generator().manual_seed(0)
    lengths = np.linspace(0.75 * frames, 1.25 * frames, segments).round().astype(int)
    return [torch.randint(0, CODEBOOK_SIZES[1], (len(CODEBOOK_SIZES), int(n)), generator=random) for n in lengths]


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
