"""The options of earlier batches, as they are kept beside their records."""

from __future__ import annotations

from pathlib import Path

from cloner.batch import AudioOptions
from cloner.output.kept_batch import BATCH, KeptBatch
from cloner.output.record import batch_directory, batch_folder
from cloner.output.speech_options import MOST_EARLIER, earlier_options
from tests.support.manifests import manifest


def keep(root: Path, batch_id: str, loudness: float | None) -> None:
    batch = manifest().model_copy(update={"batch_id": batch_id, "audio": AudioOptions(loudness=loudness)})
    KeptBatch(batch_folder(root, batch_id)).write(batch)


def loudnesses(root: Path) -> list[float | None]:
    return [options.audio.loudness for options in earlier_options(root)]


def test_each_is_found_once_the_latest_first(tmp_path: Path) -> None:
    for day, loudness in enumerate((None, -20, -16, -20), start=1):
        keep(tmp_path, f"2026010{day}-120000-abcdef", loudness)
    assert loudnesses(tmp_path) == [-20, -16, None]


def test_only_the_last_ones_are_found(tmp_path: Path) -> None:
    for hour in range(MOST_EARLIER + 3):
        keep(tmp_path, f"20260101-{hour:02}0000-abcdef", -10.0 - hour)
    assert loudnesses(tmp_path) == [-10.0 - hour for hour in range(MOST_EARLIER + 2, 2, -1)]


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    assert loudnesses(tmp_path) == []
    for name in ("a", "b", "c"):
        keep(tmp_path, name, -16)
    (batch_directory(tmp_path, "a") / BATCH).write_bytes(b'{"generation": {}}\n')
    (batch_directory(tmp_path, "b") / BATCH).unlink()
    assert loudnesses(tmp_path) == [-16]
