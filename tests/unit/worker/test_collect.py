"""Gathering a batch's result from its manifest and its record."""

from __future__ import annotations

from pathlib import Path

from cloner.record import Record
from cloner.results import BatchResult, SegmentResult
from cloner.worker.collect import gather
from tests.unit.test_wire import manifest


def spoken(segment: int, **changes: object) -> SegmentResult:
    values: dict[str, object] = {
        "segment": segment,
        "speaker": "anna",
        "output": f"{segment}.wav",
        "key": "k",
        "assignment": 0,
        "worker": "cpu.0@box",
        "frames": 20,
        "audio_s": 0.9288,
    }
    return SegmentResult.model_validate({**values, **changes})


def gathered(tmp_path: Path, *results: SegmentResult, cancelled: bool = False) -> BatchResult:
    record = Record(tmp_path, "b")
    for result in results:
        record.add(result)
    return gather(manifest(), record, tmp_path, cancelled, now=4.5)


def test_every_segment_is_a_result_or_an_error(tmp_path: Path) -> None:
    result = gathered(
        tmp_path,
        spoken(0),
        spoken(3, worker="cpu.1@box", truncated=True),
        spoken(4, code="bad_reference", message="It is silent.", frames=0, audio_s=0),
    )
    assert (result.total, result.generated, result.failed) == (5, 2, 3)
    assert result.results == {0: "0.wav", 3: "3.wav"}
    assert {index: error.code for index, error in result.errors.items()} == {
        1: "missing",
        2: "missing",
        4: "bad_reference",
    }
    assert result.truncated == (3,)
    assert result.errors[4].message == "It is silent."
    assert result.workers == {"cpu.0@box": 1, "cpu.1@box": 1}
    assert (result.elapsed_s, result.audio_s, result.frames) == (3.5, 1.858, 40)


def test_a_segment_without_a_line_says_where_it_was_looked_for(tmp_path: Path) -> None:
    assert str(tmp_path / ".cloner" / "b") in gathered(tmp_path).errors[0].message


def test_what_a_cancelled_batch_has_not_spoken_is_cancelled(tmp_path: Path) -> None:
    result = gathered(tmp_path, spoken(0), cancelled=True)
    assert result.cancelled
    assert {error.code for error in result.errors.values()} == {"cancelled"}


def test_a_result_survives_its_way(tmp_path: Path) -> None:
    result = gathered(tmp_path, spoken(0))
    assert BatchResult.unpack(result.pack()) == result
    assert "\n" not in result.to_json()
