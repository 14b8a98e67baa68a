"""Clients that submit batches one after another, wait for them, and sometimes cancel one and submit it again."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from cloner import Client
from cloner.client.assignment import Strategy
from cloner.client.batch_handle import BatchHandle
from cloner.errors import BrokerUnreachable, ClonerError, NoWorkers, OutputsTaken
from cloner.protocol.results import BatchResult
from cloner.settings import Settings
from cloner.state.batches import BatchStore
from cloner.state.connection import connect
from tests.support.batches import write_batch
from tests.support.waiting_client import WaitingClient

CANCELLED = 0.15
"""The part of the batches that is cancelled and submitted again."""

SPEAKERS = 6
"""Most speakers of a batch."""

OUTAGE_S = 120.0
"""Seconds that a client tries again; Redis may be away, and no worker alive."""

FINISH_S = 600.0
"""Seconds until a batch must be finished."""


@dataclass
class FinishedBatch:
    """A batch that a client has waited for."""

    id: str
    file: Path
    total: int
    strategy: str
    was_cancelled: bool
    problems: list[str]


class Clients:
    """The clients of a fleet; each batch has a folder of its own under `folder`."""

    def __init__(self, settings: Settings, folder: Path, texts: tuple[int, int], generation: dict[str, int]) -> None:
        self._settings = settings
        self._folder = folder
        self._texts = texts
        self._generation = generation
        self._waiting: list[WaitingClient] = []

    def waiting(self) -> list[WaitingClient]:
        """The processes that wait for a batch now."""
        return list(self._waiting)

    def run(self, seed: int, deadline: float) -> list[FinishedBatch]:
        """Submit batches and wait for them, until the monotonic clock shows `deadline`."""
        rng = random.Random(seed)
        batches: list[FinishedBatch] = []
        while time.monotonic() < deadline:
            name = f"{seed}-{len(batches)}"
            folder = self._folder / "batches" / name
            sizes = [rng.randint(*self._texts) for _ in range(rng.randint(1, SPEAKERS))]
            file = write_batch(folder, sizes, self._generation, outputs=f"audio/{name}")
            file = file.rename(folder / f"{name}.json")
            strategy = rng.choice(list(Strategy))
            batches.append(self._go_through(file, sum(sizes), strategy, cancelled=rng.random() < CANCELLED))
        return batches

    def _go_through(self, file: Path, total: int, strategy: Strategy, *, cancelled: bool) -> FinishedBatch:
        batch = FinishedBatch("", file, total, strategy, cancelled, [])
        try:
            if cancelled:
                handle = self._submit(file, strategy)
                handle.cancel()
                handle.wait(timeout=FINISH_S)
            handle = self._submit(file, strategy)
            batch.id = handle.id
            result = self._wait(handle, file.parent)
            if (result.generated, result.failed) != (total, 0):
                batch.problems.append(f"batch {file.stem}: {result.failed} of {total} failed: {result.errors}")
        except (ClonerError, TimeoutError, AssertionError) as error:
            batch.problems.append(f"batch {file.stem}: {error}")
        return batch

    def _submit(self, file: Path, strategy: Strategy) -> BatchHandle:
        """Submit the file; in an outage, try again: a submission may have gone through although its client failed."""
        client = Client(settings=self._settings)
        deadline = time.monotonic() + OUTAGE_S
        while True:
            try:
                return client.submit(file, strategy=strategy, prefix="")
            except OutputsTaken:
                return self._find(client, file)
            except (BrokerUnreachable, NoWorkers):
                if time.monotonic() > deadline:
                    raise
            threading.Event().wait(1.0)

    def _find(self, client: Client, file: Path) -> BatchHandle:
        """The open batch of the file."""
        redis = connect(self._settings.require_redis_url(), decode=False)
        batches = BatchStore.of(self._settings, redis)
        ids = batches.open_ids(cancelled=False)
        (found,) = (batch_id for batch_id in ids if batches.submission(batch_id).source == file.name)
        return client.batch(found)

    def _wait(self, handle: BatchHandle, folder: Path) -> BatchResult:
        """Wait in a process that may be killed, then in this one."""
        waiting = WaitingClient(self._settings, handle.id, folder)
        self._waiting.append(waiting)
        try:
            return handle.wait(timeout=FINISH_S)
        finally:
            self._waiting.remove(waiting)
            deadline = time.monotonic() + OUTAGE_S
            while status := waiting.wait():  # one that starts during an outage ends at once
                if time.monotonic() > deadline:
                    raise ClonerError(f"`cloner wait {handle.id}` ends with {status}")
                waiting.kill_and_replace()
