"""What may be wrong with a reference that can be used: its voice may be cloned badly. All of it comes with advice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloner.audio import FRAME_SAMPLES, SAMPLE_RATE, Codes
from cloner.checks.levels import levels_of
from cloner.errors import Problem
from cloner.input.reference_files import Recording
from cloner.protocol.references import MAX_SECONDS
from cloner.text.length import estimated_frames

SHORT_S = 3.0
"""Seconds below which a reference is too short: what zero-shot models are tested with at least."""

CLIPPED = 2e-4
"""Part of the samples that may be at the peak, in runs of three or more: a loud recording that is not clipped touches
its peak once or twice."""

FULL_SCALE = 0.98
"""Peak below which nothing counts as clipped."""

NOISY_DB = 18.0
"""Least difference between speech and pauses, decibels. Of 1,200 clips of five clean voices it is 19.8 at least, and 16
at most with white noise 10 dB below the speech."""

QUIET_DB = -45.0
"""Level of the speech below which a recording is too quiet, decibels of full scale."""

SOUND_DB = 40.0
"""Decibels below the speech at which silence begins."""

SILENT = 0.6
"""Part of a recording that may be silent."""

CUT_DB = 20.0
"""A recording that ends with a sound less than so many decibels below its speech is cut. The same clips end with less,
and with more if they are cut anywhere, three times in four: the fourth time it is a pause."""

CUT_S = 0.03
"""Seconds of the end that are looked at for it."""

FAST, SLOW = 2.0, 0.4
"""A transcript may take so many times as long as its recording, or so small a part of it, at the usual rate: readers
differ by less than a factor of two, and the rate of a script is an average."""

SLACK_S = 1.0
"""Seconds by which a transcript may be too long or too short in any case: pauses weigh more in a short recording."""

_FRAME_S = 0.02
_NOTHING_DB = -90.0
"""Below this a frame is digital silence, such as an editor adds, and tells nothing of the noise."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Measurements of what is used of one recording, or of codes, of which only the length is known."""

    seconds: float
    """Its length."""
    sound_s: float
    """Seconds from the first sound to the last one."""
    too_long: bool = False
    """Whether there is more of it than is used."""
    speech_db: float = 0.0
    """Level of the loudest twentieth of it, decibels of full scale."""
    pauses_db: float = -np.inf
    """Level of its quietest twentieth."""
    silent: float = 0.0
    """The part of it that is silence."""
    clipped: float = 0.0
    """The part of its samples that is clipped."""
    cut: bool = False
    """Whether it ends within a sound."""


def codes_quality(codes: Codes) -> Quality:
    """Measure codes ``[codebooks, frames]``."""
    seconds = codes.shape[1] * FRAME_SAMPLES / SAMPLE_RATE
    return Quality(seconds, seconds)


def recording_quality(recording: Recording) -> Quality:
    """Measure what is used of a recording, of 0.5 s at least and not silent: a few milliseconds for 30 s."""
    samples = recording.samples - recording.samples.mean()  # an offset is no noise
    levels = levels_of(samples, max(1, round(recording.rate * _FRAME_S)))
    seconds = samples.size / recording.rate
    too_long = recording.whole_s > MAX_SECONDS
    audible = levels[levels > _NOTHING_DB]
    if not audible.size:  # an offset alone
        return Quality(seconds, 0.0, too_long, speech_db=_NOTHING_DB, silent=1.0)
    speech_db, pauses_db = np.percentile(audible, [95, 5])
    sounds = np.flatnonzero(levels > speech_db - SOUND_DB)
    end = samples[-max(1, round(recording.rate * CUT_S)) :]
    return Quality(
        seconds=seconds,
        sound_s=float(sounds[-1] + 1 - sounds[0]) * _FRAME_S,
        too_long=too_long,
        speech_db=float(speech_db),
        pauses_db=float(pauses_db),
        silent=1 - sounds.size / levels.size,
        clipped=_clipped(recording.samples),
        cut=not too_long and float(levels_of(end, end.size)[0]) > speech_db - CUT_DB,
    )


def recording_doubts(name: str, quality: Quality) -> Iterator[Problem]:
    """What may be wrong with the recording called `name`, whatever is said in it."""
    if quality.too_long:
        what = f"it is longer than {MAX_SECONDS} s, and only its first {MAX_SECONDS} s are used"
        yield Problem(name, what, "cut the recording and its transcript")
    if quality.silent > SILENT:
        yield Problem(name, f"{quality.silent:.0%} of it is silence", "cut the silence")
    if quality.clipped > CLIPPED:
        what = f"{quality.clipped:.1%} of it is clipped"
        yield Problem(name, what, "record it again at a lower level, or take another part")
    if quality.speech_db < QUIET_DB:
        what = f"it is nearly silent, its speech has {quality.speech_db:.0f} dB"
        yield Problem(name, what, "record it again at a higher level, or amplify it")
    apart = quality.speech_db - quality.pauses_db
    if apart < NOISY_DB:
        what = f"it is noisy, or has no pauses: its quietest parts are only {apart:.0f} dB below its speech"
        yield Problem(name, what, "record it in a quiet room, or remove noise and music")
    elif quality.cut:
        what = "it ends within a sound, perhaps in the middle of a word"
        yield Problem(name, what, "let it end after a word, with half a second of silence")


def reference_doubts(name: str, qualities: Sequence[Quality], transcript: str) -> Iterator[Problem]:
    """What may be wrong with the length of the reference called `name`, and with its transcript."""
    seconds = sum(quality.seconds for quality in qualities)
    if seconds < SHORT_S:
        right = "give 10 to 30 s of speech"
        yield Problem(name, f"it lasts {seconds:.1f} s, and {SHORT_S:.0f} s is the least for a voice", right)
    if not transcript or any(quality.too_long for quality in qualities):
        return
    sound_s = sum(quality.sound_s for quality in qualities)
    said_s = estimated_frames(transcript) * FRAME_SAMPLES / SAMPLE_RATE
    if said_s > FAST * sound_s + SLACK_S or said_s < SLOW * sound_s - SLACK_S:
        what = (
            f"its transcript has {len(transcript)} characters, which take about {said_s:.0f} s to say, "
            f"and {sound_s:.1f} s of it are sound"
        )
        yield Problem(name, what, "write exactly what is said in it")


def _clipped(samples: NDArray[np.float32]) -> float:
    """The part of the samples that is at the peak, in runs of three or more."""
    sizes = np.abs(samples)
    peak = sizes.max()
    if peak < FULL_SCALE:
        return 0.0
    at_peak = sizes > 0.995 * peak
    return float(np.count_nonzero(at_peak[:-2] & at_peak[1:-1] & at_peak[2:]) / samples.size)
