"""Batch files for tests, and the problems that the reader finds in them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from cloner.batch import Batch
from cloner.errors import BadBatch
from cloner.input.batch_file import read_batch
from tests.support.batches import write_codes

Row = Mapping[str, Any]


def write_references(folder: Path) -> Path:
    """Two references of codes and one recording."""
    write_codes(folder / "refs/0.npy", seed=0)
    write_codes(folder / "refs/1.npy", seed=1)
    save_recording(folder / "anna.wav")
    return folder


def save_recording(path: Path, transcript: str | None = None) -> Path:
    """One second of tone, with a ``.lab`` if there is a transcript."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, 0.3 * np.sin(np.arange(16_000) / 10), 16_000)
    if transcript is not None:
        path.with_suffix(".lab").write_text(transcript, encoding="utf-8")
    return path


def task(index: int = 0, **changes: Any) -> dict[str, Any]:
    """A row of the flat form; a key with the value `...` is left out."""
    row = {
        "speaker_id": 0,
        "segment_index": index,
        "target_text": f"Text {index}.",
        "output_file": f"out/{index}.wav",
        "npy_file": "refs/0.npy",
        "reference_text": "Said.",
        **changes,
    }
    return {key: value for key, value in row.items() if value is not ...}


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def as_csv(rows: Sequence[Row]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def write_rows(folder: Path, form: str, rows: Sequence[Row]) -> Path:
    """The same rows in one of the flat forms."""
    match form:
        case "json":
            return write(folder / "b.json", {"tasks": rows})
        case "jsonl" | "ndjson":
            return write(folder / f"b.{form}", "\n".join(map(json.dumps, rows)))
        case _:
            return write(folder / "b.csv", as_csv(rows))


def read(path: Path, out_root: Path | None = None, references: Path | None = None) -> Batch:
    return read_batch(path, out_root=out_root, references=references)


def problems(path: Path, out_root: Path | None = None, references: Path | None = None) -> list[str]:
    with pytest.raises(BadBatch) as caught:
        read(path, out_root, references)
    assert str(path) in caught.value.message
    return [str(problem) for problem in caught.value.problems]


def problems_of_tasks(folder: Path, *rows: object, out_root: Path | None = None) -> list[str]:
    return problems(write(folder / "b.json", {"tasks": rows}), out_root)
