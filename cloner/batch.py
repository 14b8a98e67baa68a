"""What a user submits: speakers, each with a reference and segments. Values only; `input/batch_file.py` reads them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from cloner.errors import Problem

CODEBOOK_SIZES = (4096, *[1024] * 9)
"""Codes in each codebook of fish-speech's codec: one semantic, nine residual (modded_dac_vq.yaml of 0.1.0)."""

MAX_SEGMENTS = 1_000_000
"""Most segments of a batch."""

MAX_NEW_TOKENS = 8192
"""Most frames that may be asked for, a piece."""

PIECES = {"piece_s", "pause_s", "paragraph_pause_s"}
"""The fields of `Generation` that only the audio of a long text depends on, which is generated in pieces."""

STANDARD_INPUT = Path("standard-input")
"""The source of a batch that was read from standard input."""

NOT_IN_CONTENT_KEY = {"seed", "max_new_tokens", "checks", "attempts", *PIECES}
"""The fields of `Generation` that are in no content key: a segment has a seed of its own, and fails if it would need
more frames; and what is there is not generated again because it would be checked otherwise."""


class Generation(BaseModel):
    """How segments are sampled. The bounds are those of fish-speech's `generate_long`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    temperature: Annotated[float, Field(gt=0, lt=2)] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.7
    repetition_penalty: Annotated[float, Field(gt=0, lt=2)] = 1.2
    max_new_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] = 1024
    min_new_tokens: Annotated[int, Field(ge=0, le=MAX_NEW_TOKENS)] = 0
    """Frames before which a segment may not end. Trained weights do not need it."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    piece_s: Annotated[float, Field(ge=5, le=60)] = 20.0
    """Seconds of speech, estimated, above which a text is split into pieces, and of a piece."""
    pause_s: Annotated[float, Field(ge=0, le=10)] = 0.3
    """Seconds of silence between two pieces at the end of a sentence; half of it at the end of a clause."""
    paragraph_pause_s: Annotated[float, Field(ge=0, le=10)] = 0.8
    """The same at the end of a paragraph, which is a blank line."""
    checks: bool | None = None
    """Whether what the model makes is checked; None unless its weights are random."""
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Most attempts at a piece of which each fails a check; the best is kept."""

    @field_validator("min_new_tokens")
    @classmethod
    def _within_max(cls, value: int, info: ValidationInfo) -> int:
        most = info.data.get("max_new_tokens", value)
        if value > most:
            raise PydanticCustomError(
                "above_max", "Input should be at most max_new_tokens, which is {most}", {"most": most}
            )
        return value

    @property
    def fixed_length(self) -> bool:
        """Whether every segment gets the same number of frames, so that none is cut: for random weights, and tests."""
        return self.min_new_tokens == self.max_new_tokens


class Redo(BaseModel):
    """That the segments of a batch are generated again, each as another take."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """What the takes' seeds follow from; if None, they follow from the takes' numbers."""


class ReviewSample(BaseModel):
    """That a random sample of a batch's takes is reviewed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    sample: Annotated[float, Field(gt=0, le=1)]
    """Its part of the batch."""


Review = Literal["none", "suspects", "all"] | ReviewSample
"""Which takes of a batch are reviewed: with "suspects", those that fail a check, and a random sample of the others."""


class AudioFormat(StrEnum):
    """Formats of audio files, by their endings."""

    WAV = "wav"
    FLAC = "flac"
    OGG = "ogg"
    """Vorbis."""
    OPUS = "opus"
    MP3 = "mp3"


RATES = {
    AudioFormat.OPUS: (8_000, 12_000, 16_000, 24_000, 48_000),
    AudioFormat.MP3: (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
}
"""The sample rates of formats that have a few, Hz."""

MOST_ODD_FLAC_RATE = 65_535
"""The highest sample rate, Hz, that a FLAC file may have without being a multiple of 10: its header has 16 bits for the
rate, in Hz or in tens of Hz."""


def rate_flaw(rate: int, audio_format: AudioFormat) -> str | None:
    """The sample rates that a format has, if `rate` is none of them; else None."""
    if audio_format is AudioFormat.FLAC and rate > MOST_ODD_FLAC_RATE and rate % 10:
        return f"at most {MOST_ODD_FLAC_RATE}, or a multiple of 10"
    known = RATES.get(audio_format, ())
    return None if not known or rate in known else f"{', '.join(map(str, known[:-1]))} or {known[-1]}"


class AudioOptions(BaseModel):
    """What is made of a segment's audio before it is written. The defaults leave the sound as the model makes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    format: Annotated[AudioFormat, Field(strict=False)] = AudioFormat.WAV
    """Of the outputs that the batch does not name; the others have that of their endings."""
    rate: Annotated[int, Field(ge=8_000, le=192_000)] | None = None
    """Samples a second; None is the codec's rate, or the nearest that the format has."""
    loudness: Annotated[float, Field(ge=-40, le=-5)] | None = None
    """Integrated loudness, LUFS (ITU-R BS.1770); None leaves it."""
    trim: bool = False
    """Whether silence is removed at both ends."""

    @field_validator("rate")
    @classmethod
    def _of_format(cls, rate: int | None, info: ValidationInfo) -> int | None:
        audio_format = info.data.get("format")
        if rate and audio_format and (rates := rate_flaw(rate, audio_format)):
            context = {"rates": rates, "format": audio_format}
            raise PydanticCustomError("rate", "Input should be {rates} for {format}", context)
        return rate


def _check_count(options: object) -> object:
    """Raise `ValueError` if there are more fields than a `Generation` has: all options forbid unknown ones."""
    if isinstance(options, dict) and len(options) > len(Generation.model_fields):
        raise ValueError("it has too many fields")
    return options


FEW_FIELDS = BeforeValidator(_check_count)
"""Refuses options that other programs have made: pydantic would collect an error for each of a million fields."""


class SpeechOptions(BaseModel):
    """What the audio of all of a batch's segments depends on."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    generation: Annotated[Generation, FEW_FIELDS]
    audio: Annotated[AudioOptions, FEW_FIELDS]
    engine: str
    """Its name in settings and registry."""
    fingerprint: str
    """That of the engine's checkpoint."""


class ReferenceKind(StrEnum):
    """What a reference consists of."""

    CODES = "codes"
    AUDIO = "audio"


@dataclass(frozen=True, slots=True)
class Reference:
    """A speaker's reference: codes (one ``.npy``) or recordings (joined, in order), and the transcript."""

    kind: ReferenceKind
    paths: tuple[Path, ...]
    text: str
    doubts: tuple[Problem, ...] = field(default=(), compare=False)
    """What may be wrong with it: it can be used, but the voice may be cloned badly."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One text and the audio file it becomes."""

    index: int
    """A label, unique in the batch: the number of log lines, and of the result's map."""
    text: str
    output: str
    """Relative to the output root, with ``/``."""
    id: str | None = None
    """Its name in the batch, if it has one; the seed then follows from it, and not from the text."""
    seed: int | None = None
    """Its own seed; None if it follows from its identity and the batch's seed (see `segment_seeds`)."""
    language: str = ""
    """The text's, as `canonical_language` writes it; empty if it is not known."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """One voice and its texts. Ids compare as strings."""

    id: str
    reference: Reference
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Speakers in the order of the file; `source` is that file."""

    source: Path
    speakers: tuple[Speaker, ...]
    generation: Generation = field(default_factory=Generation)
    audio: AudioOptions = field(default_factory=AudioOptions)
    checkpoint_dir: str | None = None
    prefix: str = ""
    """The folder under the output root that all outputs begin with; empty if there is none."""
    overwrite: bool = False
    """Whether files at the outputs' names that no version of the batch has written are replaced."""
    prune: bool = False
    """Whether files of earlier versions of the batch that this one does not name are removed once all is generated."""
    partial: bool = False
    """Whether it is a part of a batch: then files of the batch that it does not name are left alone."""
    redo: Redo | None = None
    """Not None if its segments are generated again although they are there."""
    review: Review | None = None
    """Which takes are reviewed; None leaves it to whether a reviewer is there."""

    def under(self, prefix: str) -> Batch:
        """The batch with its outputs in a folder of that name."""
        speakers = tuple(
            replace(
                speaker,
                segments=tuple(replace(segment, output=f"{prefix}/{segment.output}") for segment in speaker.segments),
            )
            for speaker in self.speakers
        )
        return replace(self, speakers=speakers, prefix=f"{prefix}/{self.prefix}" if self.prefix else prefix)

    def part(self, speaker_ids: Collection[str], limit: int | None) -> Batch:
        """The speakers with these ids, or all if there are none, with at most the first `limit` segments of each.

        Seeds stay as they are in the whole batch, as a segment's depends on none after it.
        """
        chosen = (speaker for speaker in self.speakers if not speaker_ids or speaker.id in speaker_ids)
        speakers = tuple(replace(speaker, segments=speaker.segments[:limit]) for speaker in chosen)
        return replace(self, speakers=speakers, partial=True)

    @property
    def total(self) -> int:
        """Number of segments."""
        return sum(len(speaker.segments) for speaker in self.speakers)


def segment_seeds(speaker: Speaker, seed: int) -> Iterator[int]:
    """The seed of each of a speaker's segments, 63 bits, in a batch with the seed `seed`.

    It follows from the segment's identity: its id, else its speaker, its text and how many times that pair came before.
    So it does not depend on the place in the file, on worker or slot, or on other segments.
    """
    times: Counter[str] = Counter()
    for segment in speaker.segments:
        if segment.seed is not None:
            yield segment.seed
        elif segment.id is not None:
            yield _digest([seed, segment.id])
        else:
            yield _digest([seed, speaker.id, segment.text, times[segment.text]])
        times[segment.text] += 1


def piece_seed(seed: int, number: int) -> int:
    """The seed of a long text's piece, counted from 0: the first has its segment's seed."""
    return _digest([seed, number]) if number else seed


def attempt_seed(seed: int, number: int) -> int:
    """The seed of an attempt of that number, from 1, at a piece, whose own seed is that of the first."""
    return _digest([seed, "attempt", number]) if number > 1 else seed


def take_seed(seed: int, number: int, redo: Redo) -> int:
    """The seed of a segment's take of that number, from 1; `seed` is the segment's own, which is that of take 1."""
    return _digest([seed, "take", number] if redo.seed is None else [seed, "redo", redo.seed])


def _digest(identity: list[int | str]) -> int:
    digest = hashlib.sha256(json.dumps(identity).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
