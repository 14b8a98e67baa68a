"""Batches for tests: real files in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cloner.batch import CODEBOOK_SIZES

SIX_SPEAKERS = (8, 8, 8, 7, 8, 7)
"""Texts of each of six speakers: 46 in all."""


def write_codes(path: Path, frames: int = 70, seed: int = 0) -> Path:
    """Random codes ``[10, frames]`` of a reference; 70 frames are 3.3 s, which are not too short for a voice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, size, frames) for size in CODEBOOK_SIZES]).astype(np.int32)
    np.save(path, codes)
    return path


def write_batch(
    folder: Path,
    sizes: Sequence[int] = SIX_SPEAKERS,
    generation: Mapping[str, Any] | None = None,
    outputs: str = "audio",
    texts: Mapping[int, str] | None = None,
    **fields: Any,
) -> Path:
    """Write a batch in the flat form, one row a segment, with one reference a speaker and outputs in one folder.

    Texts differ with `outputs`, or a batch would reuse what another has generated under the same output root. `texts`
    are those of some segments, by their index. Returns the batch file.
    """
    name = "the batch" if outputs == "audio" else outputs
    tasks: list[dict[str, Any]] = []
    for speaker, size in enumerate(sizes):
        write_codes(folder / f"refs/spk{speaker}.npy", seed=speaker)
        for _ in range(size):
            index = len(tasks)
            tasks.append(
                {
                    "speaker_id": speaker,
                    "segment_index": index,
                    "target_text": (texts or {}).get(index, f"Sentence {index} of {name}."),
                    "output_file": f"{outputs}/{index}.wav",
                    "npy_file": f"refs/spk{speaker}.npy",
                    "reference_text": f"This is speaker {speaker}.",
                }
            )
    path = folder / "batch.json"
    path.write_text(json.dumps({"tasks": tasks, "generation": dict(generation or {}), **fields}))
    return path


def change_text(batch: Path, index: int, text: str) -> None:
    """Give one segment another text."""
    whole = json.loads(batch.read_text())
    whole["tasks"][index]["target_text"] = text
    batch.write_text(json.dumps(whole))
