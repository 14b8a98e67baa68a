"""A worker is killed while it writes an audio file or its line in the record."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import soundfile

from cloner import Client
from cloner.events import Event
from cloner.settings import Settings
from tests.support.batches import write_batch
from tests.support.crashes import loads, unfinished_files
from tests.support.module_patches import ModulePatcher
from tests.support.polling import eventually
from tests.support.processes import Launch, LaunchLoaded

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("module", "change"),
    [
        (
            "cloner.output.record",
            """
            append = module.append_line
            def dying(file, line):
                if b'"output"' in line and once("died"):
                    die()
                append(file, line)
            module.append_line = dying
            """,
        ),
        (
            "cloner.output.record",
            """
            append = module.append_line
            def dying(file, line):
                if b'"output"' in line and once("died"):
                    os.write(file, line[:40])
                    die()
                append(file, line)
            module.append_line = dying
            """,
        ),
        (
            "cloner.output.atomic_file",
            """
            write = module._write_all
            def dying(file, data):
                if len(data) > 10_000 and once("died"):
                    write(file, data[:100])
                    die()
                write(file, data)
            module._write_all = dying
            """,
        ),
        (
            "cloner.output.atomic_file",
            """
            rename = module.rename_to_new
            def dying(part, final):
                if once("died"):
                    os.link(part.path, final.path, src_dir_fd=part.dir_fd, dst_dir_fd=final.dir_fd)
                    die()
                rename(part, final)
            module.rename_to_new = dying
            """,
        ),
    ],
    ids=["before the line", "in the middle of the line", "in the middle of the file", "while it gets its name"],
)
def test_a_death_in_the_middle_of_writing_loses_nothing(
    module: str,
    change: str,
    launch_loaded: LaunchLoaded,
    client: Client,
    settings: Settings,
    patch_module: ModulePatcher,
    tmp_path: Path,
) -> None:
    patch_module(module, change)
    launch_loaded(fake_slots=2)
    result = client.submit(write_batch(tmp_path, [5])).wait(timeout=200)
    assert set(result.results) == set(range(5))
    for output in result.results.values():
        assert soundfile.info(settings.out_dir / output).frames > 0
    assert unfinished_files(settings) == []
    assert loads(client) == 2


def test_a_file_that_has_no_line_is_not_taken_for_the_one_of_an_earlier_line(
    launch: Launch,
    launch_loaded: LaunchLoaded,
    client: Client,
    settings: Settings,
    patch_module: ModulePatcher,
    tmp_path: Path,
) -> None:
    """A text is changed, all is killed between the new file and its line, and the text is changed back: both files are
    of one size."""
    patch_module(
        "cloner.output.record",
        """
        import time
        append = module.append_line
        def waiting(file, line):
            while b'"output"' in line and os.path.exists("hold"):
                time.sleep(0.01)
            append(file, line)
        module.append_line = waiting
        """,
    )
    path = settings.out_dir / "batch/audio/0.wav"
    fleet = launch_loaded()
    assert client.submit(write_batch(tmp_path, [1], texts={0: "Text A."})).wait(timeout=100).generated == 1
    first = path.read_bytes()
    (tmp_path / "hold").touch()
    batch = client.submit(write_batch(tmp_path, [1], texts={0: "Text B."}))
    eventually(lambda: path.exists() and path.read_bytes() != first)
    assert len(path.read_bytes()) == len(first)
    batch.cancel()
    fleet.stop(signal.SIGKILL)
    (tmp_path / "hold").unlink()
    launch("--workers", "1").wait_for(Event.MODELS_LOADED)
    batch.wait(timeout=100)
    result = client.submit(write_batch(tmp_path, [1], texts={0: "Text A."})).wait(timeout=100)
    # The first file was kept among the takes when the text changed.
    assert (result.generated, result.reused) == (1, 1)
    assert path.read_bytes() == first
