"""Comparing a take that was generated again with its file."""

from __future__ import annotations

import numpy as np
import soundfile

from cloner.audio import Audio, format_of
from cloner.audio_bytes import decode_audio
from cloner.batch import AudioFormat
from cloner.errors import NotReproduced, first_line
from cloner.output.audio_files import OutputRoot, content_digest
from cloner.output.kept_take import KeptTake, bytes_of

LOSSLESS = {AudioFormat.WAV, AudioFormat.FLAC}

MOST_STEPS = 1.0
"""Steps of 16 bits by which samples may differ."""

LEAST_SNR_DB = 20.0
"""Level of a lossy file above its difference from another, from which on both are of one take. Files of the same speech
with one step of noise were 30 dB apart or more (Vorbis, Opus, MP3), those of other speech -2.7 dB."""


def compare(take: KeptTake, frames: int, data: bytes, outputs: OutputRoot) -> tuple[bool, str]:
    """Whether a take is that which was kept, and what was compared. Raises `NotReproduced` if a file cannot be read."""
    line = take.line
    kept = bytes_of(take, outputs)
    nowhere = f"no file under {outputs.root} is {line.output} as it was written"
    if content_digest(data) == line.digest:
        same = f"its {frames} frames of codes make the {len(data)} bytes that were written as {line.output}"
        return True, same if kept else f"{same}; {nowhere}, any more"
    if kept is None:
        return False, (
            f"{nowhere}, and what was spoken now has other bytes: {frames} frames of codes, then {line.frames}"
        )
    path, kept_data = kept
    if frames != line.frames:
        return False, f"it has {frames} frames of codes, and {path} has {line.frames}"
    now, then = _decoded(take, data, "what was spoken now"), _decoded(take, kept_data, path)
    if now.shape != then.shape:
        return False, f"it has {now.size} samples, and {path} has {then.size}"
    steps = float(np.abs(now - then).max(initial=0.0)) * 2**15
    samples = f"its {frames} frames and {len(now)} samples are those of {path}, but for {steps:.3g} steps of 16 bits"
    if format_of(line.output) in LOSSLESS or steps <= MOST_STEPS:
        return steps <= MOST_STEPS, f"{samples}, of which {MOST_STEPS:.0f} is allowed"
    snr_db = _snr_db(then, now)
    return snr_db >= LEAST_SNR_DB, (
        f"{samples}: the format is lossy, and the difference is {snr_db:.0f} dB below {path}, where at least"
        f" {LEAST_SNR_DB:.0f} dB mean the same take"
    )


def _decoded(take: KeptTake, data: bytes, name: str) -> Audio:
    """The samples of an audio file. Raises `NotReproduced` if it is damaged."""
    try:
        return decode_audio(data, lambda _: None)
    except (OSError, soundfile.SoundFileError) as error:
        raise NotReproduced(
            f"{take} cannot be compared: {name} cannot be read as audio ({first_line(error)}): it is damaged"
        ) from error


def _snr_db(then: Audio, now: Audio) -> float:
    signal, noise = np.mean(np.square(then, dtype=np.float64)), np.mean(np.square(then - now, dtype=np.float64))
    return float(10 * np.log10(max(signal, 1e-12) / noise))
