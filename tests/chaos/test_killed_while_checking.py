"""A worker is killed while several threads of it check attempts."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner import Client
from cloner.output.record import Record
from cloner.settings import Settings
from tests.support.batches import write_batch
from tests.support.crashes import check_whole, loads
from tests.support.module_patches import ModulePatcher
from tests.support.processes import LaunchLoaded

pytestmark = pytest.mark.slow

SEGMENTS, ATTEMPTS = 16, 3
"""Tones fail the checks, so each segment has all attempts."""

CHANGE = """
import threading

module.usable_cores = lambda: 4  # four threads that check, on any machine
state = {"armed": None, "rounds": 0, "doomed": None}
lock, present = threading.Lock(), {}

def log(what, segment, seed):
    file = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{os.getpid()} {what} {segment} {seed}\\n".encode())
    os.close(file)

def meet():
    state["rounds"] += 1
    early = [thread for thread, attempts in present.items() if attempts < 2]
    if state["rounds"] >= 5 and early:  # some segments are finished
        state["doomed"] = early[0]
    present.clear()

barrier = threading.Barrier(4, meet)

def reached(point):
    if point == POINT and state["doomed"] == threading.get_ident():
        die()

def wrap(kind, name, before=lambda *_: None, after=lambda *_: None):
    call = getattr(kind, name)
    def wrapped(*arguments):
        before(*arguments)
        result = call(*arguments)
        after(*arguments)
        return result
    setattr(kind, name, wrapped)

def together(attempts, piece, result):
    with lock:
        if state["armed"] is None:
            state["armed"] = once("armed")
        present[threading.get_ident()] = len(piece.attempts)
    if state["armed"]:
        barrier.wait()
        if state["doomed"]:
            if state["doomed"] != threading.get_ident():
                threading.Event().wait()  # in the middle of its check
            reached("checked")

def journaled(journal, failed):
    log("journaled", failed.segment, failed.attempt.seed)
    reached("journaled")

wrap(module.Attempts, "check", before=together)
wrap(module.AttemptFiles, "write", after=lambda *_: reached("written"))
wrap(module.Journal, "attempt_failed", after=journaled)
wrap(module.RequestQueue, "add", after=lambda *_: reached("asked again"))
ask = module.Piece.next_request
def asking(piece):
    request = ask(piece)
    log("asked", piece.segment, request.seed)
    return request
module.Piece.next_request = asking
"""


@pytest.mark.parametrize("point", ["checked", "written", "journaled", "asked again"])
def test_nothing_is_lost_and_no_attempt_repeated_that_is_in_the_journal(
    point: str,
    launch_loaded: LaunchLoaded,
    client: Client,
    settings: Settings,
    patch_module: ModulePatcher,
    tmp_path: Path,
) -> None:
    log = tmp_path / "attempts.log"
    patch_module("cloner.worker.attempts", f"LOG, POINT = {str(log)!r}, {point!r}\n{CHANGE}")
    launch_loaded(fake_slots=4)
    generation = {"checks": True, "attempts": ATTEMPTS}
    result = client.submit(write_batch(tmp_path, [SEGMENTS], generation)).wait(timeout=200)

    check_whole(result, settings)
    assert set(result.suspects) == set(range(SEGMENTS))
    assert loads(client) == 2
    record = Record(settings.out_dir, result.batch_id)
    record.refresh()
    for line in record.results.values():
        assert [attempt.number for attempt in line.attempts] == list(range(1, ATTEMPTS + 1))
        assert sum(attempt.kept for attempt in line.attempts) == 1
    replaced = {attempt.file for line in record.results.values() for attempt in line.attempts if not attempt.kept}
    folder = settings.out_dir / ".cloner" / result.batch_id / "attempts"
    assert {path.name for path in folder.iterdir()} == replaced

    rows = [row.split() for row in log.read_text().splitlines()]
    first, second = dict.fromkeys(row[0] for row in rows)
    done = {(segment, seed) for pid, what, segment, seed in rows if (pid, what) == (first, "journaled")}
    asked = [(segment, seed) for pid, what, segment, seed in rows if (pid, what) == (second, "asked")]
    assert len(done) > 3 * ATTEMPTS
    assert len(set(asked)) == len(asked)
    assert done.isdisjoint(asked)
    everything = {(segment, seed) for _, what, segment, seed in rows if what == "journaled"}
    assert len(everything) == SEGMENTS * ATTEMPTS
