"""Workers inside a test's own process: the real worker and the fake engine, on the test's Redis."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from cloner.batch import Batch
from cloner.client.assignment import Strategy, assign
from cloner.client.submit import pack_speaker
from cloner.engine.base import Engine
from cloner.engine.fake import FakeEngine
from cloner.input.batch_file import read_batch
from cloner.protocol.messages import ChunkMessage, Manifest, SpeakerRow
from cloner.settings import EngineName, Settings, WorkerSettings
from cloner.state.connection import connect
from cloner.state.keys import RedisKeys
from cloner.state.registry import WorkerInfo, expected_worker
from cloner.worker import disk_wait
from cloner.worker.worker_process import WorkerProcess
from tests.support.batches import write_batch

BATCH_ID = "b"


class Workers:
    """Some workers of a fleet; their chunks are run when the test says so."""

    def __init__(self, redis: Redis, url: str, folder: Path, count: int = 1, slots: int = 1) -> None:
        self.settings = Settings(redis_url=url, fleet="test", out_dir=folder, engine=EngineName.FAKE, fake_slots=slots)
        self.redis = redis
        self.blobs = connect(url, decode=False)
        self.infos = [expected_worker(self.settings, WorkerSettings(index=n, number=n)) for n in range(count)]

    def start(self, number: int = 0, engine: Engine | None = None) -> WorkerProcess:
        """A worker's process, as it is when it has just started."""
        info: WorkerInfo = self.infos[number]
        engine = engine or FakeEngine(self.settings.fake_slots)
        return WorkerProcess(self.settings, info, engine, self.redis, self.blobs)

    def submit(self, path: Path, strategy: Strategy = Strategy.ROUND_ROBIN) -> list[ChunkMessage]:
        """The chunks of a batch file, its references in Redis."""
        batch = read_batch(path, out_root=None, references=None)
        chunks, _ = assign(batch, self.infos, strategy, self.settings.queues)
        manifest = Manifest(
            batch_id=BATCH_ID,
            source=path.name,
            submitted_at=0.0,
            generation=batch.generation,
            audio=batch.audio,
            speakers=self._speakers(batch),
            chunks=chunks,
        )
        return [manifest.message(chunk) for chunk in chunks]

    def _speakers(self, batch: Batch) -> list[SpeakerRow]:
        rows = []
        for speaker in batch.speakers:
            row, data = pack_speaker(speaker, batch.generation.seed)
            self.blobs.set(RedisKeys(self.settings.fleet).reference(row.reference.digest), data)
            rows.append(row)
        return rows


@pytest.fixture
def workers(redis: Redis, valkey_url: str, tmp_path: Path) -> Workers:
    """One worker, which generates one segment at a time."""
    return Workers(redis, valkey_url, tmp_path / "out")


@pytest.fixture
def worker(workers: Workers) -> WorkerProcess:
    """The process of the first of the workers."""
    return workers.start()


@pytest.fixture
def chunk(workers: Workers, tmp_path: Path) -> ChunkMessage:
    """A chunk of one speaker with four texts."""
    (chunk,) = workers.submit(write_batch(tmp_path, [4]))
    return chunk


@pytest.fixture
def disk_tried_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker tries a hundred times a second to use a disk that fails."""
    monkeypatch.setattr(disk_wait, "DISK_INTERVAL_S", 0.01)


def worker_info(index: int, box: str = "a") -> WorkerInfo:
    """A worker as a launcher registers it."""
    return WorkerInfo(
        name=f"cpu.{index}@{box}",
        box=box,
        index=index,
        queue=f"queue-{box}-{index}",
        device="cpu",
        gpu="",
        engine="fake",
        checkpoint="tiny",
        slots=4,
    )
