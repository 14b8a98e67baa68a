"""What the tests of crashes share: engine settings, checks of a result, the lines of journals."""

from __future__ import annotations

from pathlib import Path

import soundfile

from cloner import Client
from cloner.protocol.results import BatchResult
from cloner.settings import EngineName, Settings
from tests.support.records import recorded_segments

KILLER = "A killer of processes."

BATCHED = {"engine": EngineName.BATCHED, "slots": 2, "deterministic": True}
"""With one thread and fixed shapes, a segment's audio does not depend on the other slots."""


def unfinished_files(settings: Settings) -> list[Path]:
    """Temporary files and journals under the output root."""
    files = settings.out_dir.rglob("*")
    return [path for path in files if "part" in path.name or path.suffix == ".journal"]


def check_whole(result: BatchResult, settings: Settings, failed: set[int] = frozenset()) -> None:  # type: ignore[assignment]
    """Check that each segment was finished once, all except `failed` have a whole file, and nothing else is left."""
    assert set(result.errors) == failed
    assert set(result.results) == set(range(result.total)) - failed
    assert recorded_segments(settings, result.batch_id) == list(range(result.total))
    for output in result.results.values():
        assert soundfile.info(settings.out_dir / output).frames > 0
    strays = [
        path for path in settings.out_dir.rglob("*") if path.name.startswith("part-") or path.suffix == ".journal"
    ]
    assert strays == []


def loads(client: Client) -> int:
    return sum(worker.loads for worker in client.fleet())


def journal_lines(settings: Settings) -> list[str]:
    """The lines of all journals."""
    return [line for path in settings.out_dir.rglob("*.journal") for line in path.read_text().splitlines()]
