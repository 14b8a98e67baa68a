"""Audio and codec tokens: their types, rates, and the checks before an engine uses them."""

from __future__ import annotations

from posixpath import splitext

import numpy as np
from numpy.typing import NDArray

from cloner.batch import CODEBOOK_SIZES, AudioFormat, AudioOptions
from cloner.errors import BadReference

SAMPLE_RATE = 44_100
"""Sample rate of fish-speech's codec, Hz."""

OPUS_RATE = 48_000
"""Sample rate of Opus files, Hz, where the batch asks for none: Opus has no 44,100."""

FRAMES_PER_CHARACTER = 1.4
"""About 15 characters a second, the rate of speech."""

FRAME_SAMPLES = 2048
"""Samples in a frame: 44100 / 2048 = 21.53 frames a second."""

Codes = NDArray[np.int32]
"""Codec tokens, ``[codebooks, frames]``."""

Audio = NDArray[np.float32]
"""Mono samples in -1..1, ``[samples]``, at `SAMPLE_RATE`."""

Samples16 = NDArray[np.int16]
"""Mono samples of 16 bits, ``[samples]``, at `SAMPLE_RATE`."""

NOT_NUMBERS = "output is not a number (NaN or infinity); is the checkpoint damaged?"
"""Follows the name of what computed it: the model or the codec."""


def format_of(output: str) -> AudioFormat:
    """The format of an output, by its ending. Raises `ValueError`."""
    return AudioFormat(splitext(output)[1][1:].lower())


def sample_rate(options: AudioOptions, audio_format: AudioFormat) -> int:
    """The sample rate of a batch's files of that format, Hz."""
    return options.rate or (OPUS_RATE if audio_format is AudioFormat.OPUS else SAMPLE_RATE)


def effects(options: AudioOptions, audio_format: AudioFormat) -> dict[str, object]:
    """The options by which the sound of such a file differs from what the model makes; empty if it does not."""
    changed = options.model_dump(mode="json", include={"loudness", "trim"}, exclude_defaults=True)
    if sample_rate(options, audio_format) != sample_rate(AudioOptions(), audio_format):
        changed["rate"] = options.rate
    return changed


def check_codes(codes: Codes) -> None:
    """Raise `BadReference` unless `codes` are ``[codebooks, frames]`` with at least one frame, each code within its
    codebook."""
    if codes.ndim != 2 or codes.shape[0] != len(CODEBOOK_SIZES) or codes.shape[1] == 0:
        raise BadReference(
            f"the reference's codes have shape {list(codes.shape)}, and [{len(CODEBOOK_SIZES)}, frames] is needed"
        )
    outside = (codes.min(axis=1) < 0) | (codes.max(axis=1) >= np.array(CODEBOOK_SIZES))
    if outside.any():
        book = int(outside.argmax())
        raise BadReference(
            f"the reference's codes in codebook {book} go from {codes[book].min()} to {codes[book].max()};"
            f" the codec has 0 to {CODEBOOK_SIZES[book] - 1} there"
        )


def check_recording(recording: Audio) -> None:
    """Raise `BadReference` unless `recording` is mono ``[samples]``, not empty, and all samples are finite."""
    if recording.ndim != 1 or recording.size == 0:
        raise BadReference(
            f"the reference's recording has shape {list(recording.shape)}, and mono samples are needed, one at least"
        )
    if not np.isfinite(recording).all():
        raise BadReference("the reference's recording has samples that are not numbers (NaN or infinity)")


def check_length(recording: Audio, frames: int) -> None:
    """Raise `BadReference` if `recording` is longer than `frames`, the maximum of a codec."""
    longest = frames * FRAME_SAMPLES
    if recording.size > longest:
        raise BadReference(
            f"the reference's recording lasts {recording.size / SAMPLE_RATE:.0f} s, and the codec takes"
            f" {longest / SAMPLE_RATE:.0f} s at most"
        )
