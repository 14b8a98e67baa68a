"""Recordings of a chunk become codes: together, once, and each failing for itself."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cloner.audio import SAMPLE_RATE, Audio, Codes
from cloner.batch import ReferenceKind
from cloner.engine.base import Voice
from cloner.engine.fake import FakeEngine
from cloner.errors import BadReference
from cloner.output.audio_files import codes_part
from cloner.protocol.messages import ReferenceRow
from cloner.protocol.references import codes_from_bytes, reference_key
from cloner.state.keys import RedisKeys
from cloner.worker.voice_loader import TOGETHER, VoiceLoader
from tests.support.batches import write_codes
from tests.support.workers import Workers


class Counting(FakeEngine):
    """Notes how many recordings each call brings; breaks on one of half a second."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def encode(self, recordings: Sequence[Audio]) -> list[Codes]:
        self.calls.append(len(recordings))
        if any(recording.size == SAMPLE_RATE // 2 for recording in recordings):
            raise RuntimeError("half a second")
        return super().encode(recordings)


def recording(workers: Workers, seed: int, seconds: float = 1.0) -> ReferenceRow:
    sound = io.BytesIO()
    samples = 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * SAMPLE_RATE)).astype(np.float32)
    soundfile.write(sound, samples, SAMPLE_RATE, format="FLAC")
    digest = reference_key(ReferenceKind.AUDIO, sound.getvalue())
    workers.blobs.set(RedisKeys(workers.settings.fleet).reference(digest), sound.getvalue())
    return ReferenceRow(kind=ReferenceKind.AUDIO, digest=digest, text=f"text {seed}")


def load(voices: VoiceLoader, rows: Sequence[ReferenceRow]) -> Voice:
    """The voice of the first of some references. Raises `BadReference`."""
    if error := voices.prepare(rows):
        raise error
    return voices.get(rows[0])


def test_recordings_are_encoded_together_and_once(workers: Workers) -> None:
    rows = [recording(workers, seed) for seed in range(TOGETHER + 2)]
    engine = Counting()
    voices = VoiceLoader(workers.start(engine=engine), {})
    wanted = [*rows, rows[0]]
    first = [load(voices, wanted[place:]) for place in range(len(wanted))]
    assert engine.calls == [TOGETHER, 2]
    assert [voice.text for voice in first[:-1]] == [f"text {seed}" for seed in range(TOGETHER + 2)]
    # Another worker that sees the folder, in another batch.
    other = Counting()
    again = [load(VoiceLoader(workers.start(engine=other), {}), [row]) for row in rows]
    assert other.calls == []
    assert [voice.key for voice in again] == [voice.key for voice in first[:-1]]


def test_a_recording_that_breaks_the_engine_fails_alone(workers: Workers) -> None:
    rows = [recording(workers, 0), recording(workers, 1, seconds=0.5), recording(workers, 2)]
    voices = VoiceLoader(workers.start(engine=Counting()), {})
    assert load(voices, rows).codes.shape[0] == 10
    with pytest.raises(BadReference, match="could not be encoded: RuntimeError: half a second"):
        load(voices, rows[1:])
    assert load(voices, rows[2:]).codes.shape[0] == 10


def test_a_recording_that_is_gone_or_damaged_fails_alone(workers: Workers) -> None:
    rows = [recording(workers, 0), recording(workers, 1), recording(workers, 2)]
    workers.blobs.delete(RedisKeys(workers.settings.fleet).reference(rows[0].digest))
    workers.blobs.set(RedisKeys(workers.settings.fleet).reference(rows[1].digest), b"no sound")
    voices = VoiceLoader(workers.start(engine=Counting()), {})
    for place, reason in enumerate(("no longer in Redis", "did not arrive whole")):
        with pytest.raises(BadReference, match=reason):
            load(voices, rows[place:])
    assert load(voices, rows[2:]).text == "text 2"


@pytest.mark.parametrize("kind", ReferenceKind)
def test_bytes_under_another_references_name_are_refused(workers: Workers, tmp_path: Path, kind: ReferenceKind) -> None:
    """Valid in themselves, but they are another speaker's."""
    other = recording(workers, 1)
    data = workers.blobs.get(RedisKeys(workers.settings.fleet).reference(other.digest))
    assert isinstance(data, bytes)
    if kind is ReferenceKind.CODES:
        data = write_codes(tmp_path / "a.npy").read_bytes()
        assert codes_from_bytes(data).shape == (10, 70)
    row = ReferenceRow(kind=kind, digest="0" * 64, text="text 0")
    workers.blobs.set(RedisKeys(workers.settings.fleet).reference(row.digest), data)
    with pytest.raises(BadReference, match="did not arrive whole"):
        load(VoiceLoader(workers.start(engine=Counting()), {}), [row])
    with pytest.raises(BadReference, match="did not arrive whole"):
        load(VoiceLoader(workers.start(engine=Counting()), {row.digest: data}), [row])


def test_damaged_kept_codes_are_replaced(workers: Workers, capsys: pytest.CaptureFixture[str]) -> None:
    row = recording(workers, 0)
    codes = load(VoiceLoader(workers.start(engine=Counting()), {}), [row]).codes
    (kept,) = (workers.settings.out_dir / ".cloner").rglob("*.npy")
    kept.write_bytes(kept.read_bytes()[:-100])
    engine = Counting()
    assert np.array_equal(load(VoiceLoader(workers.start(engine=engine), {}), [row]).codes, codes)
    assert engine.calls == [1]
    assert f"{kept} cannot be used, and is made again" in capsys.readouterr().err
    assert np.array_equal(np.load(kept, allow_pickle=False), codes)


def test_codes_that_cannot_be_kept_are_used_all_the_same(workers: Workers, capsys: pytest.CaptureFixture[str]) -> None:
    (workers.settings.out_dir / ".cloner").mkdir(parents=True)
    (workers.settings.out_dir / ".cloner" / "references").write_text("in the way")
    row = recording(workers, 0)
    assert load(VoiceLoader(workers.start(engine=Counting()), {}), [row]).text == "text 0"
    assert "cannot be written, so the recording may be encoded again" in capsys.readouterr().err


def test_the_temporary_file_of_a_process_is_identified_by_its_name(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def dies(file: int, data: memoryview) -> int:
        write(file, data[:4])
        raise SystemExit

    monkeypatch.setattr(os, "write", dies)
    worker, row = workers.start(engine=Counting()), recording(workers, 0)
    with pytest.raises(SystemExit):
        load(VoiceLoader(worker, {}), [row])
    left = [path for path in workers.settings.out_dir.rglob("*") if path.is_file()]
    assert left == [worker.outputs.root / ".cloner" / codes_part(worker.outputs.part)]
