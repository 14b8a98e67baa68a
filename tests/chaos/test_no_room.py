"""A full disk, and an output folder that cannot be written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from cloner import Client
from cloner.events import Event
from cloner.settings import EngineName, Settings
from tests.support.batches import write_batch
from tests.support.processes import Launch
from tests.support.records import recorded_segments

pytestmark = pytest.mark.slow

MIB = 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB, filled by a ballast file."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], capture_output=True, text=True)
    if mounted.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no disk can be mounted: {mounted.stderr}")
        pytest.skip(f"only root may mount a disk: {mounted.stderr}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Fill a disk up, except for so many bytes."""
    room = os.statvfs(disk)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(max(room.f_bavail * room.f_frsize - leave, 0)))
    return ballast


def parts(disk: Path) -> list[Path]:
    return [path for path in disk.rglob("*") if path.name.startswith("part-")]


@pytest.mark.parametrize("engine", ["fake", "batched"])
def test_a_full_disk_fails_what_has_no_room_and_the_rest_waits_for_it(
    disk: Path, engine: str, launch: Launch, client: Client, settings: Settings, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"out_dir": disk})
    changes: dict[str, object] = {}
    if engine == "batched":
        changes = {"engine": EngineName.BATCHED, "slots": 2, "checkpoint_dir": tiny_checkpoint}
    ballast = fill(disk, leave=MIB // 2)
    fleet = launch("--workers", "1", out_dir=disk, **changes)
    fleet.wait_for(Event.MODELS_LOADED)
    # Of 38 frames, 152 KiB each.
    batch = client.submit(write_batch(tmp_path, [8], {"min_new_tokens": 38, "max_new_tokens": 38}))
    fleet.wait_for(Event.DISK_FULL, folder=disk)
    assert parts(disk) == []
    there = recorded_segments(settings, batch.id)
    assert len(there) == len(set(there)) < 8
    ballast.unlink()
    fleet.wait_for(Event.DISK_HAS_ROOM, folder=disk)
    result = batch.wait(timeout=200)
    ((failed, error),) = result.errors.items()
    assert error.code == "output"
    assert error.message.startswith(f"batch/audio/{failed}.wav cannot be written under {disk}: ")
    assert "No space left on device" in error.message
    assert recorded_segments(settings, batch.id) == list(range(8))
    for output in result.results.values():
        assert soundfile.info(disk / output).frames == 38 * 2048
    assert sorted(path.name for path in disk.glob("batch/audio/*")) == sorted(
        Path(o).name for o in result.results.values()
    )
    assert parts(disk) == []
    assert [worker.loads for worker in client.fleet()] == [1]


def test_where_not_even_a_line_has_room_nothing_is_failed(
    disk: Path, launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"out_dir": disk})
    fleet = launch("--workers", "1", out_dir=disk)
    fleet.wait_for(Event.MODELS_LOADED)
    ballast = fill(disk, leave=0)
    batch = client.submit(write_batch(tmp_path, [3]))
    fleet.wait_for(Event.DISK_FULL, folder=disk)
    assert recorded_segments(settings, batch.id) == []
    ballast.unlink()
    assert batch.wait(timeout=200).generated == 3
    assert recorded_segments(settings, batch.id) == [0, 1, 2]
    assert list(disk.rglob("*.journal")) == parts(disk) == []


def test_a_batch_that_waits_for_room_can_be_cancelled_and_its_worker_stopped(
    disk: Path, launch: Launch, client: Client, tmp_path: Path
) -> None:
    fill(disk, leave=MIB // 4)
    fleet = launch("--workers", "1", out_dir=disk)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [8]))
    fleet.wait_for(Event.DISK_FULL)
    batch.cancel()
    result = batch.wait(timeout=100)
    assert result.cancelled
    # The disk is still full for the next batch.
    again = client.submit(write_batch(tmp_path, [8], outputs="again"))
    fleet.wait_for(Event.DISK_FULL, 2)
    assert fleet.stop() == 0
    assert not client.batch(again.id).progress().closed
    assert parts(disk) == []


def test_a_folder_that_cannot_be_written_fails_its_segments_and_no_others(
    launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    settings.out_dir.mkdir()
    (settings.out_dir / "batch").mkdir(parents=True)
    (settings.out_dir / "batch/taken").write_text("a file where a folder should be")
    fleet = launch("--workers", "1")
    fleet.wait_for(Event.MODELS_LOADED)
    path = write_batch(tmp_path, [4])
    path.write_text(path.read_text().replace("audio/2.wav", "taken/2.wav"))
    result = client.submit(path).wait(timeout=100)
    assert sorted(result.results) == [0, 1, 3]
    assert result.errors[2].code == "output"
    assert result.errors[2].message.startswith(f"batch/taken/2.wav cannot be written under {settings.out_dir}: ")
    assert parts(settings.out_dir) == []
    assert fleet.find(Event.DISK_FULL) == []
