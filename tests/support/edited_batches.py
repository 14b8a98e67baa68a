"""Batches of one speaker that are edited, as their collector and a worker treat them, and deaths on the way."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloner.batch import Generation, ReferenceKind
from cloner.output.audio_files import OutputRoot
from cloner.output.record import Record, RecordWriter
from cloner.output.reuse import reuse_finished
from cloner.protocol.content_key import ContentKeys
from cloner.protocol.messages import ChunkRow, Manifest, ReferenceRow, SpeakerRow, SpeakerSliceRow
from cloner.protocol.results import SegmentResult
from tests.support.ownership import Known

REFERENCE = ReferenceRow(kind=ReferenceKind.CODES, digest="d" * 64, text="Hello.")
WORKER = "cpu.0@box"
LINES = ["one", "two", "three", "four"]


class Killed(BaseException):
    """The process dies: no clean-up runs for it."""


def seed_of(text: str) -> int:
    return sum(text.removesuffix(" again").encode())


def batch(batch_id: str, texts: Sequence[str], path: str = "/home/batch.json", *, overwrite: bool = False) -> Manifest:
    """A batch of one speaker, with the names that it gets by default. What is said `again` is the same audio."""
    rows = [(n, text.removesuffix(" again"), f"anna/{n + 1:04}.wav", seed_of(text)) for n, text in enumerate(texts)]
    row = SpeakerSliceRow(speaker=0, start=0, stop=len(rows), position=1, texts=len(rows))
    return Manifest(
        batch_id=batch_id,
        source="batch.json",
        path=path,
        overwrite=overwrite,
        submitted_at=1.0,
        generation=Generation(),
        engine="fake",
        fingerprint="none",
        speakers=[SpeakerRow(id="anna", reference=REFERENCE, segments=rows)],
        chunks=[ChunkRow(number=0, queue="q", assignment=0, speakers=1, texts=len(rows), slices=[row])],
    )


def audio_of(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.full(400, seed_of(text) / 4000, dtype=np.float32)


def speak(root: Path, manifest: Manifest, *, lines: bool = True, beside: Sequence[str] = ()) -> None:
    """Open the batch, `beside` others that are open, and generate what it does not reuse, as its collector and a worker
    do."""
    reused = {line.segment for found in reuse_finished(manifest, OutputRoot(root), beside).values() for line in found}
    outputs, keys = (
        OutputRoot(root),
        ContentKeys(manifest.speech),
    )
    with RecordWriter(Record(root, manifest.batch_id), WORKER) as writer:
        for row in manifest.speakers[0].segments:
            if row.segment not in reused:
                written = asdict(outputs.write_audio(row.output, audio_of(row.text), 44_100, Known(digests=set())))
                result = SegmentResult(
                    segment=row.segment,
                    speaker="anna",
                    output=row.output,
                    key=keys.of(manifest.speakers[0], row),
                    assignment=0,
                    worker=WORKER,
                    **written,
                )
                if lines:
                    writer.append(result)


def reused(root: Path, manifest: Manifest) -> set[str]:
    """Texts that need not be generated."""
    chunks = reuse_finished(manifest, OutputRoot(root))
    texts = {row.segment: row.text for row in manifest.speakers[0].segments}
    return {texts[line.segment] for lines in chunks.values() for line in lines}


def deaths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], object]
) -> Iterator[tuple[int, Path]]:
    """Generate a batch of `LINES`, `act` and die at each call that changes a folder, in turn; and once without a death.

    Returns the number of the call, and the output root, which `act` gets.
    """
    for deadly in range(1000):
        root = tmp_path / f"out{deadly}"
        speak(root, batch("first", LINES))
        with monkeypatch.context() as patch:
            has_died = die_at(patch, deadly)
            with suppress(Killed):
                act(root)
        yield deadly, root
        if not has_died():
            return
    pytest.fail("it has no end")


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)


def die_at(patch: pytest.MonkeyPatch, call: int) -> Callable[[], bool]:
    """Kill the process before one call that changes a folder; returns whether it was killed."""
    calls = 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def do(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > call:
                raise Killed
            return real(*args, **options)

        return do

    for name in ("link", "unlink", "replace", "utime", "write"):
        patch.setattr(os, name, dying(getattr(os, name)))
    return lambda: calls > call
