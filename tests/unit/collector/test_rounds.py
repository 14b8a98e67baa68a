"""Which chunks of a batch are published again at the end of a round."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloner.collector.rounds import MAX_FRUITLESS, next_round
from cloner.output.record import Record
from cloner.protocol.messages import Manifest, SpeakerSliceRow
from cloner.state.progress import ChunkProgress, Round
from tests.support import manifests
from tests.support.records import segment_result


def manifest() -> Manifest:
    """Five segments: chunk 0 has the first three, chunk 1 the others."""
    one = manifests.manifest()
    rows = [SpeakerSliceRow(speaker=0, start=start, stop=stop, position=1, texts=5) for start, stop in ((0, 3), (3, 5))]
    chunks = [one.chunks[0].model_copy(update={"number": number, "slices": [row]}) for number, row in enumerate(rows)]
    return one.model_copy(update={"chunks": chunks})


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path, "b")


def test_a_whole_record_ends_the_batch(record: Record) -> None:
    for segment in range(5):
        record.add(segment_result(segment))
    assert next_round(manifest(), record, {}, Round()) == (None, {})


def test_a_failed_segment_is_not_missing(record: Record) -> None:
    for segment in range(4):
        record.add(segment_result(segment))
    record.add(segment_result(4, code="crashed", message="It crashed.", frames=0, audio_s=0))
    assert next_round(manifest(), record, {}, Round()) == (None, {})


def test_only_chunks_with_missing_segments_are_published(record: Record) -> None:
    for segment in range(4):
        record.add(segment_result(segment))
    following, progress = next_round(manifest(), record, {}, Round())
    assert following == Round(1, (1,), missing=1, fruitless=0)
    assert progress == {1: ChunkProgress(generated=1, frames=20, samples=40_960)}


def test_rounds_go_on_while_they_add_lines_and_end_after_three_that_do_not(record: Record) -> None:
    rounds = [Round()]
    for segment in range(3):
        following, _ = next_round(manifest(), record, {}, rounds[-1])
        assert following is not None
        rounds.append(following)
        record.add(segment_result(segment))
    while following := next_round(manifest(), record, {}, rounds[-1])[0]:
        rounds.append(following)
    assert [(ended.number, ended.missing, ended.fruitless) for ended in rounds] == [
        (0, 0, 0),
        (1, 5, 0),
        (2, 4, 0),
        (3, 3, 0),
        (4, 2, 0),
        (5, 2, 1),
        (6, 2, 2),
    ]
    assert MAX_FRUITLESS == 3


@pytest.mark.parametrize(
    "broken", [ChunkProgress(error="the record cannot be kept: no such disk"), ChunkProgress(given_up=True)]
)
def test_a_chunk_whose_record_cannot_be_kept_or_that_is_given_up_is_left_out(
    record: Record, broken: ChunkProgress
) -> None:
    following, _ = next_round(manifest(), record, {0: broken}, Round())
    assert following == Round(1, (1,), missing=5, fruitless=0)
    assert next_round(manifest(), record, {0: broken, 1: broken}, Round()) == (None, {})
