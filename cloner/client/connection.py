"""A client's connection to a fleet: its Redis, what is stored there, and messages to the collector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kombu.exceptions import OperationalError
from redis import Redis

from cloner.errors import BrokerUnreachable
from cloner.queueing.app import make_client_app, send_to_collector
from cloner.settings import Settings, redacted
from cloner.state.batches import BatchStore
from cloner.state.connection import connect, translate_redis_errors
from cloner.state.counters import Counters
from cloner.state.key_types import translate_wrong_types
from cloner.state.keys import RedisKeys
from cloner.state.references import ReferenceStore
from cloner.state.registry import Registry, ReviewerInfo, WorkerInfo


class FleetConnection:
    """`redis` decodes responses to text, `blobs` does not. Raises `BadSetting` if the settings name no Redis."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.queues = settings.queues
        self.url = settings.require_redis_url()
        self.redis: Redis = connect(self.url)
        self.blobs: Redis = connect(self.url, decode=False)
        self.keys = keys = RedisKeys(settings.fleet)
        self.registry = Registry(self.redis, keys, settings.alive_s)
        self.batches = BatchStore.of(settings, self.blobs)
        self.references = ReferenceStore(self.blobs, keys, settings.batch_ttl_s)
        self.app = make_client_app(settings)

    @contextmanager
    def translate_redis_errors(self) -> Iterator[None]:
        """Inside it, a Redis that cannot be used is `BrokerUnreachable`, and a key of a wrong type `Damaged`."""
        with translate_redis_errors(self.url), translate_wrong_types(self.redis, self.settings):
            yield

    def workers(self) -> list[WorkerInfo]:
        """The workers that are alive, in the order of assignment. Raises `BrokerUnreachable`."""
        with self.translate_redis_errors():
            return self.registry.workers()

    def counts(self) -> dict[str, dict[str, float]]:
        """What each worker has counted. Raises `BrokerUnreachable`."""
        with self.translate_redis_errors():
            return Counters(self.redis, self.keys).read()

    def reviewers(self) -> list[ReviewerInfo]:
        """The reviewers that are alive, by name. Raises `BrokerUnreachable`."""
        with self.translate_redis_errors():
            return self.registry.reviewers()

    def tell_collector(self, task: str, batch_id: str) -> None:
        """Have the collector run a task for a batch. Raises `BrokerUnreachable`."""
        try:
            send_to_collector(self.app, self.queues, task, batch_id)
        except OperationalError as error:
            raise BrokerUnreachable(f"nothing could be sent to {redacted(self.url)}: {error}") from error
