"""The requests that an engine draws from a chunk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cloner.batch import Generation, ReferenceKind
from cloner.engine.base import Voice
from cloner.protocol.messages import ReferenceRow, SpeakerSegments
from cloner.worker.pending import PendingSegment, by_speaker, speech_requests

GENERATION = Generation()


def speaker(name: str, *segments: int) -> SpeakerSegments:
    reference = ReferenceRow(kind=ReferenceKind.CODES, digest="0" * 64, text=f"reference of {name}")
    rows = [(segment, f"text {segment}", f"{segment}.wav", 10 + segment) for segment in segments]
    return SpeakerSegments(id=name, reference=reference, segments=rows, position=1, texts=len(rows))


@pytest.fixture
def pending() -> dict[int, PendingSegment]:
    """Two segments of anna and two of ben."""
    return {
        row.segment: PendingSegment(*row, key="", speaker=part)
        for part in (speaker("anna", 3, 4), speaker("ben", 1, 2))
        for row in part.segments
    }


class Voices:
    """Makes voices, and notes whose."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def get(self, reference: ReferenceRow) -> Voice:
        self.made.append(reference.text)
        return Voice(np.zeros((10, 1), dtype=np.int32), reference.text)


def test_segments_are_grouped_by_speaker_in_the_order_of_the_chunk(pending: dict[int, PendingSegment]) -> None:
    groups = by_speaker([2, 4, 3, 99], pending)
    assert [[segment.index for segment in group] for group in groups] == [[3, 4], [2]]


def test_requests_have_the_languages_of_their_texts(pending: dict[int, PendingSegment]) -> None:
    anna = pending[3].speaker.model_copy(update={"language": "de", "other_languages": [(4, "pt-BR")]})
    pending.update({index: replace(pending[index], speaker=anna) for index in (3, 4)})
    requests = speech_requests(by_speaker(pending, pending), GENERATION, Voices().get, lambda: False)
    assert {request.segment: request.language for request in requests} == {3: "de", 4: "pt-BR", 1: "", 2: ""}


def test_a_voice_is_made_when_its_first_request_is_drawn(pending: dict[int, PendingSegment]) -> None:
    voices = Voices()
    requests = speech_requests(by_speaker(pending, pending), GENERATION, voices.get, lambda: False)
    assert voices.made == []
    drawn = [next(requests), next(requests)]
    assert voices.made == ["reference of anna"]
    drawn += requests
    assert voices.made == ["reference of anna", "reference of ben"]
    assert [request.segment for request in drawn] == [3, 4, 1, 2]
    assert [request.seed for request in drawn] == [13, 14, 11, 12]
    assert drawn[0].voice is drawn[1].voice
    assert len(pending) == 4, "drawing changes nothing"


def test_requests_end_when_the_batch_is_cancelled(pending: dict[int, PendingSegment]) -> None:
    cancelled: list[bool] = []
    requests = speech_requests(by_speaker(pending, pending), GENERATION, Voices().get, lambda: bool(cancelled))
    assert next(requests).segment == 3
    cancelled.append(True)
    assert list(requests) == []
