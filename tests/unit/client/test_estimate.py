"""What is left to generate, and how long it takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cloner.batch import Batch, Generation, Reference, ReferenceKind, Segment, Speaker
from cloner.client.assignment import Strategy, assign
from cloner.client.estimate import Counts, Estimate, estimate
from cloner.names import QueueNames
from cloner.state.registry import WorkerInfo

WORKERS = [WorkerInfo(f"cpu.{n}@box", "box", n, f"queue{n}", "cpu", "", "fake", "mini", 1) for n in range(2)]
TEXT = "x" * 150
"""Ten seconds of audio, within a fortieth."""


def batch(sizes: dict[str, int]) -> Batch:
    reference = Reference(ReferenceKind.CODES, (), "Hello.")
    speakers = tuple(
        Speaker(name, reference, tuple(Segment(n, TEXT, f"{name}/{n}.wav") for n in range(size)))
        for name, size in sizes.items()
    )
    return Batch(Path("batch.json"), speakers, Generation())


def measured(*speeds: float) -> list[WorkerInfo]:
    """Workers that have generated at so many times real time; 0 for one that has generated nothing yet."""
    return [
        replace(worker, spoken_s=100.0 * bool(speed), busy_s=100.0 / speed if speed else 0.0)
        for worker, speed in zip(WORKERS, speeds, strict=True)
    ]


def seconds(sizes: dict[str, int], *speeds: float, strategy: Strategy = Strategy.ROUND_ROBIN) -> float | None:
    workers = measured(*speeds)
    chunks, _ = assign(batch(sizes), workers, strategy, QueueNames("test"))
    return estimate(batch(sizes), [], [], chunks, workers).seconds


def test_each_speakers_segments_are_counted() -> None:
    found = estimate(batch({"anna": 3, "bob": 2}), ["anna/0.wav", "bob/1.wav"], ["anna/2.wav"])
    assert found.speakers == {"anna": Counts(1, 1, 1), "bob": Counts(1, 0, 1)}
    assert found.total == Counts(2, 1, 2)
    assert found.rows() == [("anna", "1", "1", "1"), ("bob", "1", "0", "1"), ("total", "2", "1", "2")]
    assert found.audio_s == pytest.approx(30, rel=0.03)
    assert str(found) == "3 segments are left to generate, about 29 s of audio; no speed was measured yet"


def test_of_a_finished_batch_nothing_is_left() -> None:
    found = estimate(batch({"anna": 1}), ["anna/0.wav"], [])
    assert (found.audio_s, str(found)) == (0, "Nothing is left to generate")


def test_the_time_is_that_of_the_last_worker_to_finish() -> None:
    assert seconds({"anna": 6, "bob": 1}, 10.0, 10.0) == pytest.approx(6, rel=0.03)
    assert seconds({"anna": 6, "bob": 1}, 10.0, 1.0) == pytest.approx(10, rel=0.03)


def test_a_worker_without_a_measured_speed_counts_as_average() -> None:
    assert seconds({"anna": 1, "bob": 4}, 5.0, 0.0) == pytest.approx(8, rel=0.03)
    assert seconds({"anna": 1}, 0.0, 0.0) is None


def test_a_shared_queue_is_emptied_together() -> None:
    assert seconds({"anna": 6, "bob": 3}, 6.0, 3.0, strategy=Strategy.SHARED) == pytest.approx(10, rel=0.03)


def test_no_segment_is_longer_than_its_limit() -> None:
    long = replace(batch({"anna": 1}), generation=Generation(max_new_tokens=43))
    assert estimate(long, [], []).audio_s == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.01, "1 s"), (99.0, "99 s"), (150.0, "2 min"), (5900.0, "1 h 38 min"), (9000.0, "2 h 30 min")],
)
def test_times_are_rounded_as_estimates(seconds: float, text: str) -> None:
    found = Estimate({"anna": Counts(missing=1)}, seconds, seconds)
    assert str(found) == (
        f"1 segment is left to generate, about {text} of audio; that takes about {text} at the measured speed"
    )
