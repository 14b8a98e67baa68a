"""Attempts: checked, made again in the chunk, kept, and taken up again after a crash."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import soundfile

from cloner.audio import SAMPLE_RATE, Audio
from cloner.batch import attempt_seed
from cloner.checks.catalogue import CHECKS
from cloner.engine.base import (
    NULL_OBSERVER,
    ChunkObserver,
    RequestQueue,
    SegmentAudio,
    SegmentFailure,
    SpeechRequest,
    SpeechResult,
)
from cloner.engine.fake import FakeEngine
from cloner.events import Event
from cloner.monitoring.snapshot import CHECK_NAMES
from cloner.output.attempts import discard_unnamed_attempts
from cloner.output.record import Record
from cloner.protocol.messages import ChunkMessage
from cloner.protocol.results import SegmentResult
from cloner.worker import attempt_checks
from cloner.worker.checked_segment import rounded_up
from cloner.worker.chunk_run import run_chunk
from tests.support.batches import write_batch
from tests.support.edited_batches import Killed, die_at
from tests.support.log_lines import find_lines
from tests.support.polling import TIMEOUT_S
from tests.support.speech import TEXT, speech
from tests.support.workers import BATCH_ID, Workers

GOOD = speech(SAMPLE_RATE, seed=4)
MUTE, FAINT = GOOD * np.float32(0.002), GOOD * np.float32(0.01)
"""Two that fail, the first by more."""


class Voice(FakeEngine):
    """An engine that speaks well, but for some attempts: `bad`, by segment and number of the attempt in this process.
    They are `cut`, if that is said; None stands for numbers that are not finite."""

    def __init__(
        self,
        bad: Mapping[tuple[int, int], Audio | None],
        *,
        slots: int = 1,
        cut: bool = False,
        code: str = "generation_failed",
    ) -> None:
        super().__init__(slots)
        self._code = code
        self.asked: list[tuple[int, int]] = []
        """Segment and seed of each request."""
        self._bad = bad
        self._cut = cut
        self._numbers = Counter[int]()

    def speak(
        self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
    ) -> Generator[SpeechResult, None, None]:
        queue = RequestQueue.of(requests)
        while group := queue.next_group(self.slots):
            for request in group:
                observer.started(request.segment)
                self.asked.append((request.segment, request.seed))
                self._numbers[request.segment] += 1
                attempt = request.segment, self._numbers[request.segment]
                audio = self._bad.get(attempt)
                if audio is None and attempt in self._bad:
                    yield SegmentFailure(request.segment, self._code, "not finite")
                    continue
                cut = self._cut and audio is not None
                yield SegmentAudio(request.segment, GOOD if audio is None else audio, 100, truncated=cut)


def submit(workers: Workers, folder: Path, segments: int, **generation: Any) -> ChunkMessage:
    texts = dict.fromkeys(range(segments), TEXT)
    (chunk,) = workers.submit(write_batch(folder, [segments], {"checks": True, **generation}, texts=texts))
    return chunk


def lines(workers: Workers) -> dict[int, SegmentResult]:
    record = Record(workers.settings.out_dir, BATCH_ID)
    record.refresh()
    return record.results


def seeds(chunk: ChunkMessage) -> dict[int, int]:
    return {row.segment: row.seed for speaker in chunk.slices for row in speaker.segments}


def kept_files(workers: Workers) -> list[str]:
    return sorted(path.name for path in workers.settings.out_dir.glob(f".cloner/{BATCH_ID}/attempts/*"))


def is_good(workers: Workers, line: SegmentResult) -> bool:
    samples, _ = soundfile.read(workers.settings.out_dir / line.output)
    return bool(np.abs(samples - GOOD).max() < 2 / 2**15)


def killed(*_arguments: object) -> None:
    raise Killed


@pytest.mark.parametrize("slots", [1, 4])
def test_an_attempt_that_fails_is_made_again_with_another_seed(
    workers: Workers, tmp_path: Path, capsys: pytest.CaptureFixture[str], slots: int
) -> None:
    chunk = submit(workers, tmp_path, 6)
    engine = Voice({(2, 1): MUTE, (5, 1): MUTE, (5, 2): MUTE}, slots=slots)
    counts = run_chunk(workers.start(engine=engine), chunk)
    assert (counts.generated, counts.failed) == (6, 0)
    found, own = lines(workers), seeds(chunk)
    assert {index for index, line in found.items() if line.attempts} == {2, 5}
    assert [len(found[index].attempts) for index in (2, 5)] == [2, 3]
    for index in (2, 5):
        *failed, last = found[index].attempts
        assert [attempt.number for attempt in found[index].attempts] == list(range(1, len(failed) + 2))
        assert all("too_quiet" in attempt.failed and not attempt.kept for attempt in failed)
        assert (last.failed, last.kept, last.file) == ({}, True, "")
        assert [attempt.seed for attempt in found[index].attempts] == [
            attempt_seed(own[index], number + 1) for number in range(len(failed) + 1)
        ]
    assert all(is_good(workers, line) and 0 < line.suspicion <= 1 for line in found.values())
    assert Counter(segment for segment, _ in engine.asked) == {0: 1, 1: 1, 2: 2, 3: 1, 4: 1, 5: 3}
    assert kept_files(workers) == ["2.0.1.flac", "5.0.1.flac", "5.0.2.flac"]
    assert len(find_lines(capsys.readouterr().err.splitlines(), Event.ATTEMPT_FAILED)) == 3
    assert list(workers.settings.out_dir.rglob("*.journal")) == []


def test_an_attempt_that_ends_in_digital_silence_and_is_nearly_mute_is_made_again(
    workers: Workers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fading = GOOD * np.geomspace(3e-4, 2e-5, len(GOOD), dtype=np.float32)
    engine = Voice({(0, 1): fading})
    run_chunk(workers.start(engine=engine), submit(workers, tmp_path, 1))
    assert [segment for segment, _ in engine.asked] == [0, 0]
    assert lines(workers)[0].attempts[0].failed.keys() >= {"too_quiet"}
    assert find_lines(capsys.readouterr().err.splitlines(), Event.CHECK_BROKEN) == []


def test_the_best_attempt_is_kept_where_all_fail_and_its_segment_is_a_suspect(workers: Workers, tmp_path: Path) -> None:
    chunk = submit(workers, tmp_path, 1, attempts=3)
    counts = run_chunk(workers.start(engine=Voice({(0, 1): MUTE, (0, 2): FAINT, (0, 3): MUTE})), chunk)
    assert (counts.generated, counts.failed) == (1, 0)
    (line,) = lines(workers).values()
    assert [attempt.kept for attempt in line.attempts] == [False, True, False]
    assert line.suspicion > 1
    assert line.failed_checks == ["too_quiet"]
    samples, _ = soundfile.read(workers.settings.out_dir / line.output)
    assert np.abs(samples - FAINT).max() < 2 / 2**15
    assert kept_files(workers) == ["0.0.1.flac", "0.0.3.flac"], "the output has the other"


def test_a_segment_whose_attempts_are_all_cut_fails(workers: Workers, tmp_path: Path) -> None:
    chunk = submit(workers, tmp_path, 2, attempts=2)
    engine = Voice({(0, 1): GOOD, (1, 1): GOOD, (1, 2): GOOD}, cut=True)
    counts = run_chunk(workers.start(engine=engine), chunk)
    assert (counts.generated, counts.failed) == (1, 1)
    assert (lines(workers)[0].code, lines(workers)[1].code) == ("", "cut_off")
    assert [attempt.kept for attempt in lines(workers)[1].attempts] == [False, False]
    assert kept_files(workers) == ["0.0.1.flac", "1.0.1.flac", "1.0.2.flac"], "no output has the better of the two"


@pytest.mark.parametrize(
    ("code", "failed"), [("generation_failed", {"not_a_number": 100}), ("codec_failed", {"codec_failed": 1})]
)
def test_an_attempt_of_which_nothing_can_be_heard_is_made_again(
    workers: Workers, tmp_path: Path, code: str, failed: dict[str, float]
) -> None:
    chunk = submit(workers, tmp_path, 2, attempts=2)
    engine = Voice({(0, 1): None, (1, 1): None, (1, 2): None}, code=code)
    counts = run_chunk(workers.start(engine=engine), chunk)
    assert (counts.generated, counts.failed) == (1, 1)
    found = lines(workers)
    assert [(attempt.failed, attempt.kept) for attempt in found[0].attempts] == [(failed, False), ({}, True)]
    assert found[1].code == code
    assert [(attempt.failed, attempt.kept) for attempt in found[1].attempts] == [(failed, False)] * 2
    assert set(failed) <= set(CHECK_NAMES)


@pytest.mark.parametrize(("check", "asked"), [("pause", 4), ("measures", 3)])
def test_a_check_that_raises_is_left_out_and_one_line_says_which(
    workers: Workers,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    check: str,
    asked: int,
) -> None:
    def broken(*_arguments: object) -> float:
        raise ZeroDivisionError("division by zero")

    if check == "measures":
        monkeypatch.setattr(attempt_checks, "measure", broken)
    else:
        monkeypatch.setattr(next(kind for kind in CHECKS if kind.name == check), "score", broken)
    engine = Voice({(1, 1): MUTE})
    counts = run_chunk(workers.start(engine=engine), submit(workers, tmp_path, 3))
    assert (counts.generated, counts.failed) == (3, 0)
    assert len(engine.asked) == asked, "the mute one is made again where another check finds it"
    (line,) = find_lines(capsys.readouterr().err.splitlines(), Event.CHECK_BROKEN, check=check)
    assert "ZeroDivisionError: division by zero" in line


def test_a_checked_attempt_is_written_before_the_engine_has_its_next_result(workers: Workers, tmp_path: Path) -> None:
    class Waking(Voice):
        """Takes as long for its second segment as the line of the first is not written."""

        woken: SimpleQueue[None] = SimpleQueue()

        def speak(  # type: ignore[override]
            self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
        ) -> Generator[SpeechResult | None, None, None]:
            for result in super().speak(requests, observer):
                while result.segment and not lines(workers):
                    self.woken.get(timeout=TIMEOUT_S)
                    yield None
                yield result

        def wake(self) -> None:
            self.woken.put(None)

    chunk = submit(workers, tmp_path, 2)
    counts = run_chunk(workers.start(engine=Waking({}, slots=2)), chunk)
    assert (counts.generated, counts.failed) == (2, 0)


def test_pieces_of_a_text_of_which_another_has_failed_are_not_made_again(workers: Workers, tmp_path: Path) -> None:
    class Late(Voice):
        """Answers for the second piece once the first has failed their segment."""

        def speak(  # type: ignore[override]
            self, requests: Iterable[SpeechRequest], observer: ChunkObserver = NULL_OBSERVER
        ) -> Generator[SpeechResult | None, None, None]:
            for result in super().speak(requests, observer):
                while result.segment == -2 and not observer._observer.dropped(-2):  # type: ignore[attr-defined]
                    yield None
                yield result

    texts = {0: f"{TEXT} [pause:0.1] {TEXT}"}
    (chunk,) = workers.submit(write_batch(tmp_path, [1], {"checks": True}, texts=texts))
    engine = Late({(-1, 1): None, (-2, 1): MUTE}, slots=2, code="out_of_memory")
    counts = run_chunk(workers.start(engine=engine), chunk)
    assert (counts.generated, counts.failed) == (0, 1)
    assert [segment for segment, _ in engine.asked] == [-1, -2]
    assert kept_files(workers) == []


def test_attempts_of_another_model_are_not_taken_up(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = submit(workers, tmp_path, 1, attempts=2)
    with monkeypatch.context() as patch:
        patch.setattr(RequestQueue, "add", killed)  # the attempt has failed, and is in the journal
        with pytest.raises(Killed):
            run_chunk(workers.start(engine=Voice({(0, 1): FAINT})), chunk)
    assert kept_files(workers) == ["0.0.1.flac"]
    worker = workers.start(engine=Voice({(0, 1): MUTE, (0, 2): MUTE}))
    monkeypatch.setattr(type(worker), "fingerprint", "another")
    run_chunk(worker, chunk)
    samples, _ = soundfile.read(workers.settings.out_dir / lines(workers)[0].output)
    assert np.abs(samples - MUTE).max() < 2 / 2**15


def test_nothing_is_checked_unless_the_engine_is_trained_or_the_batch_asks_for_it(
    workers: Workers, tmp_path: Path
) -> None:
    chunk = submit(workers, tmp_path, 1, checks=None)
    engine = Voice({(0, 1): MUTE})
    run_chunk(workers.start(engine=engine), chunk)
    assert len(engine.asked) == 1
    assert (lines(workers)[0].attempts, lines(workers)[0].suspicion) == ((), 0)


def test_a_trained_engine_is_checked(workers: Workers, tmp_path: Path) -> None:
    chunk = submit(workers, tmp_path, 1, checks=None)
    engine = Voice({(0, 1): MUTE})
    engine.trained = True
    run_chunk(workers.start(engine=engine), chunk)
    assert len(engine.asked) == 2


def test_what_is_usual_is_learnt_for_each_language_of_a_speaker(workers: Workers, tmp_path: Path) -> None:
    """Of pieces, too."""
    path = write_batch(tmp_path, [4], {"checks": True}, texts={**dict.fromkeys(range(3), TEXT), 3: f"{TEXT}[pause:1]"})
    batch = json.loads(path.read_text())
    for task, language in zip(batch["tasks"], ("de", "pt-BR", None, "pt-PT"), strict=True):
        task["language"] = language
    path.write_text(json.dumps(batch))
    (chunk,) = workers.submit(path)
    worker = workers.start(engine=Voice({}))
    run_chunk(worker, chunk)
    counts = worker.history(BATCH_ID)._counts
    assert counts == {("0", "de", "LATIN"): 1, ("0", "pt", "LATIN"): 2, ("0", "", "LATIN"): 1}


def test_pieces_are_attempted_one_by_one(workers: Workers, tmp_path: Path) -> None:
    text = f"{TEXT} [pause:0.2] {TEXT}"
    (chunk,) = workers.submit(write_batch(tmp_path, [1], {"checks": True}, texts={0: text}))
    engine = Voice({(-2, 1): MUTE})
    counts = run_chunk(workers.start(engine=engine), chunk)
    assert counts.generated == 1
    (line,) = lines(workers).values()
    assert sorted((attempt.piece, attempt.number, attempt.kept) for attempt in line.attempts) == [
        (1, 1, False),
        (1, 2, True),
    ]
    assert kept_files(workers) == ["0.1.1.flac"]


def test_a_death_at_any_call_repeats_no_attempt_that_failed_and_leaves_nothing(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = submit(workers, tmp_path, 2, attempts=2)
    bad = {(0, 1): MUTE, (0, 2): FAINT}
    for deadly in range(200):
        root = tmp_path / f"out{deadly}"
        workers.settings = workers.settings.model_copy(update={"out_dir": root})
        first = Voice(bad)
        with monkeypatch.context() as patch:
            has_died = die_at(patch, deadly)
            with suppress(Killed):
                run_chunk(workers.start(engine=first), chunk)
        journaled = sum(
            '"failed"' in line for path in root.rglob("*.journal") for line in path.read_text().splitlines()
        )
        done = {line.segment for line in lines(workers).values()} if root.exists() else set()
        second = Voice({(0, 1): MUTE, (0, 2): FAINT} if not journaled else {(0, 1): FAINT} if journaled == 1 else {})
        run_chunk(workers.start(engine=second), chunk)
        if not done:
            assert [segment for segment, _ in second.asked].count(0) == 2 - journaled, deadly
        found = lines(workers)
        assert [attempt.number for attempt in found[0].attempts] == [1, 2]
        assert [attempt.kept for attempt in found[0].attempts] == [False, True]
        samples, _ = soundfile.read(root / found[0].output)
        assert np.abs(samples - FAINT).max() < 2 / 2**15
        assert is_good(workers, found[1])
        record = Record(root, BATCH_ID)
        record.refresh()
        discard_unnamed_attempts(record)
        assert kept_files(workers) == ["0.0.1.flac"], deadly
        if not has_died():
            return
    pytest.fail("it has no end")


@pytest.mark.parametrize(
    ("suspicion", "kept"), [(1.0, 1.0), (1.0004, 1.001), (0.25, 0.25), (float("inf"), float("inf"))]
)
def test_a_suspicion_above_1_stays_above_it_when_it_is_rounded(suspicion: float, kept: float) -> None:
    assert rounded_up(suspicion) == kept
