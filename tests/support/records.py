"""What a batch's record on the disk shows."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from cloner.output.record import batch_directory, batch_folder, record_files
from cloner.protocol.results import SegmentResult
from cloner.settings import Settings


def record_paths(out_dir: Path, batch_id: str) -> list[Path]:
    """The files of a batch's record."""
    folder = batch_folder(out_dir, batch_id)
    return [folder.path / name for name in record_files(folder)]


def recorded_segments(settings: Settings, batch_id: str) -> list[int]:
    """The segments in the batch's record, sorted; a segment that was generated twice is there twice."""
    files = record_paths(settings.out_dir, batch_id)
    return sorted(json.loads(line)["segment"] for file in files for line in file.read_text().splitlines())


def generated_by_workers(settings: Settings, batch_id: str) -> list[int]:
    """The segments that the workers generated for this batch."""
    files = batch_directory(settings.out_dir, batch_id).glob("*@*.jsonl")
    return sorted(json.loads(line)["segment"] for file in files for line in file.read_text().splitlines())


class RecordFiles:
    """A batch's progress by its record, which is there although all processes may be dead."""

    def __init__(self, out_dir: Path, batch_id: str) -> None:
        self._out_dir = out_dir
        self._batch_id = batch_id

    def lines(self) -> int:
        """Lines of all workers' files."""
        return sum(path.read_bytes().count(b"\n") for path in record_paths(self._out_dir, self._batch_id))

    def wait_for(self, lines: int, seconds: float) -> int:
        """Wait for so many lines, at most `seconds`; returns how many there are."""
        deadline = time.monotonic() + seconds
        while (now := self.lines()) < lines and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        return now


def segment_result(segment: int, **changes: object) -> SegmentResult:
    """A line of the record about a segment that was generated, with changes."""
    values: dict[str, Any] = {
        "segment": segment,
        "speaker": "anna",
        "output": f"{segment}.wav",
        "key": "k",
        "assignment": 0,
        "worker": "cpu.0@box",
        "frames": 20,
        "audio_s": 0.9288,
    }
    return SegmentResult(**{**values, **changes})
