"""The files that the collector puts beside a batch's record: the batch itself when it is opened, and what people take
away when it is closed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from redis import Redis

from cloner.collector.manifest_files import manifest_csv, manifest_json
from cloner.errors import reason_of
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.kept_batch import KeptBatch
from cloner.output.kept_references import KeptReferences
from cloner.output.record import MANIFEST_JSONL, RESULT, Record, batch_folder
from cloner.protocol.messages import Manifest, SpeakerRow
from cloner.protocol.results import BatchResult
from cloner.report.report_file import REPORT, report_file
from cloner.settings import Settings
from cloner.state.keys import RedisKeys
from cloner.state.references import ReferenceStore


def keep_batch(redis: Redis, settings: Settings, manifest: Manifest) -> None:
    """Keep the batch and its references on the disk, for when Redis has forgotten them. Raises `RedisError`.

    Errors of the disk are only logged: what is generated does not depend on it.
    """
    root = settings.out_dir.resolve()
    references = ReferenceStore(redis, RedisKeys(settings.fleet), settings.batch_ttl_s)
    try:
        KeptReferences(root).keep((speaker.reference for speaker in manifest.speakers), references.get_all)
        KeptBatch(batch_folder(root, manifest.batch_id)).write(manifest)
    except OSError as error:
        log_event(Event.BATCH_NOT_KEPT, batch=manifest.batch_id, error=error)


def renew_references(redis: Redis, settings: Settings, speakers: Sequence[SpeakerRow]) -> None:
    """Keep the references of some speakers in Redis for one more batch; those that it has forgotten are read from the
    disk. Raises `RedisError`, `OSError`, and `UsageError` if one is not there either."""
    store = ReferenceStore(redis, RedisKeys(settings.fleet), settings.batch_ttl_s)
    expired = set(store.renew(speaker.reference.digest for speaker in speakers))
    lost = [speaker for speaker in speakers if speaker.reference.digest in expired]
    KeptReferences(settings.out_dir.resolve()).restore(lost, store.put)


def write_files(settings: Settings, result: BatchResult, record: Record) -> None:
    """Write the result, the report, and the list of the audio files with their texts."""
    batch_id, lines = result.batch_id, record.results
    write_beside(settings, batch_id, RESULT, [result.to_json(), "\n"])
    write_beside(settings, batch_id, REPORT, report_file(settings.out_dir.resolve(), result, settings.fleet, lines))
    write_beside(settings, batch_id, MANIFEST_JSONL, manifest_json(record, result.suspects))
    write_beside(settings, batch_id, "manifest.csv", manifest_csv(record, result.suspects))


def write_beside(settings: Settings, batch_id: str, name: str, pieces: Iterable[str]) -> None:
    """Put a file for users beside the record, whole or not at all. Errors are only logged.

    The result goes to Redis in any case: clients do not wait for room on a disk, nor for a report that cannot be made.
    """
    try:
        batch_folder(settings.out_dir.resolve(), batch_id).write(name, (piece.encode() for piece in pieces))
    except Exception as error:  # noqa: BLE001 - the batch is closed in any case
        log_event(Event.FILE_NOT_WRITTEN, file=name, batch=batch_id, error=reason_of(error))
