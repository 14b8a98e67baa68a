"""The voices of a chunk: references come from Redis; recordings are encoded once, and their codes kept on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from cloner.audio import Codes
from cloner.batch import ReferenceKind
from cloner.engine.base import Voice
from cloner.errors import BadReference, EngineBroken, reason_of
from cloner.events import Event
from cloner.logs import log_event
from cloner.output.kept_references import REFERENCES, codes_name, codes_of_recording
from cloner.output.own_folder import OwnFolder
from cloner.protocol.messages import ChunkMessage, ReferenceRow
from cloner.protocol.references import audio_from_bytes, codes_from_bytes, pack_codes, reference_key
from cloner.worker.worker_process import WorkerProcess

TOGETHER = 8
"""Recordings that are encoded at once: 30 s each, a batch that any GPU holds."""


def fetch_codes(worker: WorkerProcess, message: ChunkMessage) -> dict[str, bytes]:
    """The bytes of the references of a chunk that are codes, by digest: they are a few KB each. Raises `RedisError`."""
    wanted = {row.reference.digest for row in message.slices if row.reference.kind is ReferenceKind.CODES}
    return worker.references.get_all(wanted)


class VoiceLoader:
    """Loads the references of one chunk.

    Codes of recordings are kept under the output root, by the content hash of the recording and the identity of the
    codec, so that a recording is encoded once for all chunks, batches and workers that see the folder.
    """

    def __init__(self, worker: WorkerProcess, fetched: dict[str, bytes]) -> None:
        """`fetched` are references whose bytes are here already, by digest."""
        self._worker = worker
        self._fetched = fetched
        self._loaded: dict[str, Codes | BadReference] = {}
        """By digest: codes ``[codebooks, frames]``, or why the reference cannot be used."""
        self._folder = OwnFolder(worker.outputs.root, REFERENCES, worker.codec_identity)

    def prepare(self, references: Sequence[ReferenceRow]) -> BadReference | None:
        """Load the first of some references; returns why it cannot be used, if it cannot.

        If it is a recording, it is encoded together with others of the references, up to `TOGETHER` of them. Raises
        `EngineBroken`, and `RedisError`.
        """
        first = references[0]
        if first.digest not in self._loaded:
            if first.kind is ReferenceKind.CODES:
                self._load_codes(first)
            else:
                self._encode([row for row in references if row.kind is ReferenceKind.AUDIO])
        loaded = self._loaded[first.digest]
        return loaded if isinstance(loaded, BadReference) else None

    def get(self, reference: ReferenceRow) -> Voice:
        """The voice of a reference that was prepared. Raises `BadReference` if it cannot be used."""
        codes = self._loaded[reference.digest]
        if isinstance(codes, BadReference):
            raise codes
        return Voice(codes, reference.text)

    def _load_codes(self, reference: ReferenceRow) -> None:
        try:
            self._loaded[reference.digest] = codes_from_bytes(self._data(reference))
        except BadReference as error:
            self._loaded[reference.digest] = error

    def _encode(self, recordings: Sequence[ReferenceRow]) -> None:
        """Load the first `TOGETHER` of some recordings that are not loaded yet; all of those without kept codes are
        encoded at once."""
        missing = {row.digest: row for row in recordings if row.digest not in self._loaded}
        audios = {}
        for digest, row in islice(missing.items(), TOGETHER):
            kept = self._kept(digest)
            if kept is not None:
                self._loaded[digest] = kept
                continue
            try:
                audios[digest] = audio_from_bytes(self._data(row))
            except BadReference as error:
                self._loaded[digest] = error
        if not audios:
            return
        try:
            together = self._worker.engine.encode(list(audios.values()))
        except EngineBroken:
            raise
        except Exception:  # noqa: BLE001 - one recording's fault; encoding each alone finds out whose
            together = []
        for digest, codes in zip(audios, together, strict=False):
            self._keep(digest, codes)
        for digest in audios.keys() - self._loaded.keys():
            try:
                (codes,) = self._worker.engine.encode([audios[digest]])
                self._keep(digest, codes)
            except EngineBroken:
                raise
            except BadReference as error:
                self._loaded[digest] = error
            except Exception as error:  # noqa: BLE001 - any error concerns this speaker alone
                self._loaded[digest] = BadReference(f"the recording could not be encoded: {reason_of(error)}")

    def _data(self, reference: ReferenceRow) -> bytes:
        """The reference's bytes. Raises `BadReference` if they are gone or damaged."""
        digest = reference.digest
        data = self._fetched.pop(digest, None) or self._worker.references.get(digest)
        if not isinstance(data, bytes):
            raise BadReference("the speaker's reference is no longer in Redis; submit the batch again")
        if reference_key(reference.kind, data) != digest:
            raise BadReference("the speaker's reference did not arrive whole; submit the batch again")
        return data

    def _kept(self, digest: str) -> Codes | None:
        """The recording's codes, if an earlier encoding has kept them."""
        try:
            return codes_of_recording(self._worker.outputs.root, self._worker.codec_identity, digest)
        except (OSError, BadReference) as error:
            log_event(Event.CODES_UNUSABLE, path=self._folder.path / codes_name(digest), error=reason_of(error))
            return None

    def _keep(self, digest: str, codes: Codes) -> None:
        self._loaded[digest] = codes
        try:
            self._worker.outputs.write_codes(self._folder, codes_name(digest), pack_codes(codes))
        except OSError as error:
            log_event(Event.CODES_NOT_KEPT, path=self._folder.path / codes_name(digest), error=error)
