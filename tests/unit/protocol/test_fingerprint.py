"""The fingerprint of a checkpoint: what changes it, and what does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloner.engine.checkpoint.files import CODEC_SIZES, FILES
from cloner.protocol.content_key import BLOCK_BYTES, FINGERPRINTED_FILES, NO_CHECKPOINT, SAMPLED_BLOCKS, fingerprint

BIG = 3 * BLOCK_BYTES * SAMPLED_BLOCKS


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Weights too big to be read whole."""
    (tmp_path / "config.json").write_text("{}")
    with (tmp_path / "model.pth").open("wb") as file:
        for number in range(BIG // BLOCK_BYTES):
            file.write(bytes([number % 256]) * BLOCK_BYTES)
    return tmp_path


def overwrite(path: Path, place: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)


def test_all_that_a_checkpoint_is_made_of_counts() -> None:
    assert set(FINGERPRINTED_FILES) == {*FILES, CODEC_SIZES}


def test_a_copy_is_the_same_checkpoint_whatever_its_times_and_its_neighbours(checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in ("config.json", "model.pth"):
        (copy / file).write_bytes((checkpoint / file).read_bytes())
        os.utime(copy / file, (1, 1))
    (copy / "README.md").write_text("notes")
    assert fingerprint(copy) == fingerprint(checkpoint)


def test_a_folder_that_is_none_has_none(tmp_path: Path) -> None:
    assert fingerprint(tmp_path / "absent") == NO_CHECKPOINT
    assert fingerprint(tmp_path) == NO_CHECKPOINT


def test_another_configuration_is_another_checkpoint(checkpoint: Path) -> None:
    before = fingerprint(checkpoint)
    (checkpoint / "config.json").write_text('{"n_layer": 2}')
    assert fingerprint(checkpoint) != before


@pytest.mark.parametrize("place", [0, BIG // 2, BIG - 1])
def test_weights_that_differ_at_one_end_or_all_over_are_others(checkpoint: Path, place: int) -> None:
    before = fingerprint(checkpoint)
    if place == BIG // 2:
        for step in range(0, BIG, BLOCK_BYTES):
            overwrite(checkpoint / "model.pth", step, b"trained")
    else:
        overwrite(checkpoint / "model.pth", place, b"\xff")
    assert fingerprint(checkpoint) != before


def test_longer_weights_are_others(checkpoint: Path) -> None:
    before = fingerprint(checkpoint)
    with (checkpoint / "model.pth").open("ab") as file:
        file.write(b"\0")
    assert fingerprint(checkpoint) != before


def test_a_file_moved_under_another_name_is_another_checkpoint(checkpoint: Path) -> None:
    before = fingerprint(checkpoint)
    (checkpoint / "model.pth").rename(checkpoint / "codec.pth")
    assert fingerprint(checkpoint) != before


@pytest.mark.parametrize("name", FINGERPRINTED_FILES)
def test_what_is_no_file_is_not_read(checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink(missing_ok=True)
    without = fingerprint(checkpoint)
    os.mkfifo(checkpoint / name)
    assert fingerprint(checkpoint) == without
    (checkpoint / name).unlink()
    (checkpoint / name).symlink_to("/dev/zero")
    assert fingerprint(checkpoint) == without
