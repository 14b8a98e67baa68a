"""What came of a segment and of a batch, and the JSON that a run prints."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from cloner.protocol.messages import Packed


class SegmentResult(BaseModel):
    """What came of one segment: a line of the record. `code` is empty for a generated one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    segment: int
    speaker: str
    output: str
    key: str
    """Content key: equal exactly where the same audio would be generated again."""
    assignment: int
    worker: str
    frames: int = 0
    audio_s: float = 0.0
    truncated: bool = False
    """Whether it was cut at its greatest number of frames."""
    size: int = 0
    """Bytes of the audio file."""
    mtime_ns: int = 0
    """When it was last changed, nanoseconds since the epoch, as its file system says."""
    digest: str = ""
    """BLAKE2b of its bytes, 32 hexadecimal digits. Lines of version 0.1 have none."""
    code: str = ""
    message: str = ""
    reused: bool = False
    """Whether an earlier batch generated it, and this one found it there."""

    @property
    def generated(self) -> bool:
        return not self.code


class SegmentError(BaseModel):
    """Why a segment has no audio: a short code for programs and a sentence for people."""

    model_config = ConfigDict(frozen=True)

    speaker: str
    output: str
    code: str
    message: str


class SpeakerResult(BaseModel):
    """What came of one speaker's texts."""

    model_config = ConfigDict(frozen=True)

    texts: int
    generated: int
    failed: int
    """Those that were never spoken, too."""
    audio_s: float


class BatchResult(Packed):
    """What came of a batch. `results` and `errors` together have every segment index once."""

    model_config = ConfigDict(frozen=True)

    batch_id: str
    source: str = ""
    """Name of the batch's file."""
    total: int
    generated: int
    failed: int
    cancelled: bool
    out_dir: str
    """The output root as the fleet sees it; outputs are relative to it."""
    results: dict[int, str]
    errors: dict[int, SegmentError]
    reused: int = 0
    """Segments in `results` that earlier batches had generated."""
    truncated: tuple[int, ...] = ()
    """Segments in `results` that were cut at their greatest number of frames: the end of a text may be missing."""
    submitted_at: float = 0.0
    """Seconds since the epoch, by Redis's clock."""
    elapsed_s: float
    """From submission to the collector's last stroke."""
    audio_s: float
    reused_audio_s: float = 0.0
    """How much of `audio_s` earlier batches had generated."""
    frames: int
    workers: dict[str, int]
    """Segments that each worker generated."""
    speakers: dict[str, SpeakerResult] = Field(default_factory=dict)
    """In the order of the batch."""
    engine: str = ""
    fingerprint: str = ""
    """Engine and checkpoint (`fingerprint.py`) that it was dealt to."""

    def to_json(self) -> str:
        """One line of JSON."""
        return self.model_dump_json()
