"""What a user submits: speakers, each with a reference and segments. Values only; `input/batch_file.py` reads them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

CODEBOOK_SIZES = (4096, *[1024] * 9)
"""Codes in each codebook of fish-speech's codec: one semantic, nine residual (modded_dac_vq.yaml of 0.1.0)."""

MAX_SEGMENTS = 1_000_000
"""Most segments of a batch."""


class Generation(BaseModel):
    """How segments are sampled. The bounds are those of fish-speech's `generate_long`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    temperature: Annotated[float, Field(gt=0, lt=2)] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.7
    repetition_penalty: Annotated[float, Field(gt=0, lt=2)] = 1.2
    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] = 1024
    min_new_tokens: Annotated[int, Field(ge=0, le=8192)] = 0
    """Frames before which a segment may not end. Trained weights do not need it."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @field_validator("min_new_tokens")
    @classmethod
    def _within_max(cls, value: int, info: ValidationInfo) -> int:
        most = info.data.get("max_new_tokens", value)
        if value > most:
            raise PydanticCustomError(
                "above_max", "Input should be at most max_new_tokens, which is {most}", {"most": most}
            )
        return value


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


@dataclass(frozen=True, slots=True)
class Segment:
    """One text and the audio file it becomes; `output` is relative to the output root, with ``/``."""

    index: int
    text: str
    output: str


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
    checkpoint_dir: str | None = None

    @property
    def total(self) -> int:
        """Number of segments."""
        return sum(len(speaker.segments) for speaker in self.speakers)


def segment_seed(seed: int, segment_index: int) -> int:
    """The segment's own seed, 63 bits: it does not depend on worker, slot, or the other segments."""
    digest = hashlib.sha256(f"{seed}:{segment_index}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
