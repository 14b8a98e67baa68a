"""A disk under the outputs that fails: for a while, or for good."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cloner import Client
from cloner.events import Event
from cloner.settings import EngineName, Settings
from tests.support.batches import write_batch
from tests.support.module_patches import ModulePatcher
from tests.support.processes import Launch
from tests.support.records import recorded_segments

pytestmark = pytest.mark.slow

FAILING = """
real_{call} = os.{call}

def fail(what, *arguments, **options):
    path = os.readlink(f"/proc/self/fd/{{what}}") if isinstance(what, int) else os.fspath(what)
    is_output = path.startswith({root!r}) or "dir_fd" in options
    reads = {call!r} == "open" and not arguments[0] & (os.O_WRONLY | os.O_RDWR)
    if os.path.exists({flag!r}) and is_output and not reads and not path.endswith(".lock"):
        raise OSError({number}, os.strerror({number}))
    return real_{call}(what, *arguments, **options)

os.{call} = fail
"""


class FailingDisk:
    """Makes writes below the output root fail in all processes that are started from now on."""

    def __init__(self, settings: Settings, flag: Path, patch_module: ModulePatcher) -> None:
        self._root = str(settings.out_dir)
        self._flag = flag
        self._patch_module = patch_module

    def install(self, call: str, number: int) -> None:
        """Calls of `os.<call>` fail with the error `number`, between `fail` and `work`."""
        change = FAILING.format(call=call, number=number, root=self._root, flag=str(self._flag))
        self._patch_module("cloner.output.audio_files", change)

    def fail(self) -> None:
        self._flag.touch()

    def work(self) -> None:
        self._flag.unlink()


@pytest.fixture
def failing_disk(settings: Settings, tmp_path: Path, patch_module: ModulePatcher) -> FailingDisk:
    return FailingDisk(settings, tmp_path / "the-disk-fails", patch_module)


def left_over(settings: Settings) -> list[Path]:
    """Journals and temporary files."""
    found = (settings.out_dir / ".cloner").rglob("*")
    return [path for path in found if path.name.startswith("part-") or path.suffix in {".journal", ".part"}]


def loads(client: Client) -> list[int]:
    return [worker.loads for worker in client.fleet()]


@pytest.mark.parametrize(
    ("call", "number", "engine"),
    [
        ("write", errno.EIO, "batched"),
        ("write", errno.ESTALE, "fake"),
        ("open", errno.EROFS, "fake"),
    ],
)
def test_nothing_is_lost_where_a_disk_fails_for_a_while(
    failing_disk: FailingDisk,
    launch: Launch,
    client: Client,
    settings: Settings,
    tiny_checkpoint: Path,
    tmp_path: Path,
    call: str,
    number: int,
    engine: str,
) -> None:
    failing_disk.install(call, number)
    changes: dict[str, object] = {"fake_segment_s": 0.1}
    if engine == "batched":
        changes = {"engine": EngineName.BATCHED, "slots": 2, "checkpoint_dir": tiny_checkpoint}
    fleet = launch("--workers", "1", **changes)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [12], {"min_new_tokens": 38, "max_new_tokens": 38}))
    fleet.wait_for(Event.SPEAKER_PROGRESS, finished=1)
    failing_disk.fail()
    fleet.wait_for(Event.DISK_FAILS)
    failing_disk.work()
    fleet.wait_for(Event.DISK_WORKS)
    result = batch.wait(timeout=200)
    assert (result.generated, result.failed) == (12, 0)
    assert set(recorded_segments(settings, batch.id)) == set(range(12))
    assert fleet.find(Event.ROUND_BEGUN) == []
    assert left_over(settings) == []
    assert loads(client) == [1]


def test_after_the_time_for_it_the_rest_of_a_chunk_fails_and_the_same_batch_resumes_it(
    failing_disk: FailingDisk, launch: Launch, client: Client, settings: Settings, tmp_path: Path
) -> None:
    failing_disk.install("write", errno.EIO)
    fleet = launch("--workers", "1", fake_segment_s=0.1, disk_wait_s=3.0)
    fleet.wait_for(Event.MODELS_LOADED)
    path = write_batch(tmp_path, [12])
    batch = client.submit(path)
    fleet.wait_for(Event.SPEAKER_PROGRESS, finished=1)
    failing_disk.fail()
    result = batch.wait(timeout=200)
    assert result.generated + result.failed == 12
    assert {error.code for error in result.errors.values()} == {"output"}
    assert os.strerror(errno.EIO) in next(iter(result.errors.values())).message
    failing_disk.work()
    again = client.submit(path).wait(timeout=200)
    assert (again.generated, again.reused) == (12, result.generated)
    assert left_over(settings) == []
    assert loads(client) == [1]


def test_a_worker_that_waits_for_its_disk_can_be_stopped(
    failing_disk: FailingDisk, launch: Launch, client: Client, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    failing_disk.install("write", errno.EIO)
    fleet = launch("--workers", "1", engine=EngineName.BATCHED, slots=2, checkpoint_dir=tiny_checkpoint)
    fleet.wait_for(Event.MODELS_LOADED)
    batch = client.submit(write_batch(tmp_path, [12], {"min_new_tokens": 38, "max_new_tokens": 38}))
    fleet.wait_for(Event.SPEAKER_PROGRESS, finished=1)
    failing_disk.fail()
    fleet.wait_for(Event.DISK_FAILS)
    assert fleet.stop() == 0
    assert fleet.find(Event.KILLING) == []
    failing_disk.work()
    launch("--workers", "1", engine=EngineName.BATCHED, slots=2, checkpoint_dir=tiny_checkpoint)
    assert batch.wait(timeout=200).generated == 12
