"""The voices of a chunk: references out of Redis, recordings turned into codes once and kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np

from cloner.audio import Codes, check_codes
from cloner.batch import ReferenceKind
from cloner.engine.base import Voice
from cloner.errors import BadReference, EngineBroken, reason_of
from cloner.logs import get_logger
from cloner.output.audio_files import codes_part
from cloner.protocol.messages import ReferenceRow
from cloner.protocol.references import audio_from_bytes, codes_from_bytes, reference_key
from cloner.validation import HOUSEKEEPING
from cloner.worker.runtime import Runtime

TOGETHER = 8
"""Recordings that are encoded at once: 30 s each, a batch that any card holds."""


class Voices:
    """The references of one chunk, in the order in which they will be asked for.

    Codes of recordings are kept under the output root, by the content hash of the recording and the identity of the
    codec, so that a recording is encoded once for all chunks, batches and workers that see the folder.
    """

    def __init__(self, runtime: Runtime, references: Sequence[ReferenceRow], fetched: dict[str, bytes]) -> None:
        """`fetched` are references whose bytes are here already, by digest."""
        self._runtime = runtime
        self._fetched = fetched
        self._recordings = {row.digest: row for row in references if row.kind is ReferenceKind.AUDIO}
        self._encoded: dict[str, Codes | BadReference] = {}
        self._folder = runtime.outputs.root / HOUSEKEEPING / "references" / runtime.codec_identity

    def get(self, reference: ReferenceRow) -> Voice:
        """The voice of a reference. Raises `BadReference`."""
        if reference.kind is ReferenceKind.CODES:
            return Voice(codes_from_bytes(self._data(reference)), reference.text)
        if reference.digest not in self._encoded:
            self._encode_next(reference.digest)
        codes = self._encoded[reference.digest]
        if isinstance(codes, BadReference):
            raise codes
        return Voice(codes, reference.text)

    def _encode_next(self, first: str) -> None:
        """Make the codes of this recording, and of some that will be asked for after it, in one go."""
        digests = list(self._recordings)
        missing = (digest for digest in digests[digests.index(first) :] if digest not in self._encoded)
        audios = {}
        for digest in islice(missing, TOGETHER):
            kept = self._kept(digest)
            if kept is not None:
                self._encoded[digest] = kept
                continue
            try:
                audios[digest] = audio_from_bytes(self._data(self._recordings[digest]))
            except BadReference as error:
                self._encoded[digest] = error
        if not audios:
            return
        try:
            together = self._runtime.engine.encode(list(audios.values()))
        except EngineBroken:
            raise
        except Exception:  # noqa: BLE001 - one recording's fault, and which one's is found out below
            together = []
        for digest, codes in zip(audios, together, strict=False):
            self._keep(digest, codes)
        for digest in audios.keys() - self._encoded.keys():
            try:
                (codes,) = self._runtime.engine.encode([audios[digest]])
                self._keep(digest, codes)
            except EngineBroken:
                raise
            except BadReference as error:
                self._encoded[digest] = error
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this speaker's alone
                self._encoded[digest] = BadReference(f"the recording could not be encoded: {reason_of(error)}")

    def _data(self, reference: ReferenceRow) -> bytes:
        digest = reference.digest
        data = self._fetched.pop(digest, None) or self._runtime.references.get(digest)
        if not isinstance(data, bytes):
            raise BadReference("the speaker's reference is no longer in Redis; submit the batch again")
        if reference_key(reference.kind, data) != digest:
            raise BadReference("the speaker's reference did not arrive whole; submit the batch again")
        return data

    def _kept(self, digest: str) -> Codes | None:
        try:
            codes: Codes = np.load(self._path(digest), allow_pickle=False)
            check_codes(codes)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, BadReference) as error:
            get_logger().warning(f"{self._path(digest)} is made anew, it cannot be used: {reason_of(error)}")
            return None
        return codes

    def _keep(self, digest: str, codes: Codes) -> None:
        self._encoded[digest] = codes
        path = self._path(digest)
        outputs = self._runtime.outputs
        # Named after this process, so that whoever goes on after its death can remove it.
        part = outputs.root / HOUSEKEEPING / codes_part(outputs.part)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                np.save(file, codes, allow_pickle=False)
            part.replace(path)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            get_logger().warning(f"{path} cannot be written, so the recording may be encoded again: {error}")

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.npy"
