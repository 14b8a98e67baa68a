"""The collector's tasks for clients, which do not see the output folder: find finished outputs, and parts of batches.

A request that expires, at a time of Redis's clock, before it is run or meanwhile, leaves no result: its client is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from celery import shared_task
from celery.exceptions import Ignore
from redis import Redis

from cloner.collector.files import renew_references
from cloner.errors import UsageError, reason_of
from cloner.names import FIND_FINISHED, FIND_PART
from cloner.output.audio_files import OutputRoot
from cloner.output.kept_batch import read_part
from cloner.output.search import find_outputs
from cloner.output.speech_options import earlier_options
from cloner.protocol.messages import Manifest
from cloner.protocol.queries import FinishedRequest, FinishedResponse, PartRequest, PartResponse
from cloner.queueing.retry import retry_on_outage
from cloner.settings import Settings, load_settings
from cloner.state.connection import connect, server_time


@shared_task(name=FIND_FINISHED)
def find_finished(request: bytes, expires_at: float) -> bytes:
    """Return the packed `FinishedResponse` to a packed `FinishedRequest`."""
    return _respond(_find_finished, request, FinishedResponse, expires_at)


@shared_task(name=FIND_PART)
def find_kept_part(request: bytes, expires_at: float) -> bytes:
    """Return the packed `PartResponse` to a packed `PartRequest`; the part's references are in Redis then."""
    return _respond(_find_part, request, PartResponse, expires_at)


R = TypeVar("R", FinishedResponse, PartResponse)


def _respond(find: Callable[[Redis, Settings, bytes], R], request: bytes, kind: type[R], expires_at: float) -> bytes:
    """The response to a request, packed; if `find` raises an error, it says so."""
    settings = load_settings()
    redis = connect(settings.require_redis_url(), decode=False)
    _ignore_expired(redis, expires_at)
    try:
        response = find(redis, settings, request).pack()
    except Exception as error:  # noqa: BLE001 - whatever it is, the client reports it
        response = kind(error=reason_of(error)).pack()
    _ignore_expired(redis, expires_at)
    return response


def _find_finished(_: Redis, settings: Settings, request: bytes) -> FinishedResponse:
    outputs = OutputRoot(settings.out_dir)
    found = find_outputs(outputs, FinishedRequest.unpack(request).wanted, None)
    return FinishedResponse(
        finished=list(found.done()), changed=list(found.changed), earlier=earlier_options(outputs.root)
    )


def _find_part(redis: Redis, settings: Settings, request: bytes) -> PartResponse:
    try:
        return PartResponse(part=retry_on_outage(_read_part, redis, settings, PartRequest.unpack(request)))
    except UsageError as error:
        return PartResponse(refused=error.message)


def _read_part(redis: Redis, settings: Settings, request: PartRequest) -> Manifest:
    """A part of a batch; its references are in Redis then."""
    part = read_part(settings.out_dir.resolve(), request)
    renew_references(redis, settings, part.speakers)
    return part


def _ignore_expired(redis: Redis, expires_at: float) -> None:
    if retry_on_outage(server_time, redis) > expires_at:
        raise Ignore
