"""Parts of closed batches: who is asked for them."""

from __future__ import annotations

from unittest.mock import MagicMock

import pytest

from cloner.batch import Redo
from cloner.client import parts
from cloner.errors import UsageError
from cloner.protocol.queries import PartRequest
from tests.support.manifests import in_languages, manifest

REQUEST = PartRequest(batch_id="b", failed=True)


def connection(*, alive: bool) -> MagicMock:
    """A fleet whose batch `b` is a redo, of which segment 1 has failed."""
    fleet = MagicMock()
    fleet.batches.result.return_value.errors = {1: None}
    fleet.batches.manifest.return_value = manifest().model_copy(update={"redo": Redo()})
    fleet.registry.collector_is_alive.return_value = alive
    fleet.references.renew.return_value = []
    return fleet


def test_what_is_left_of_a_failed_redo_is_asked_of_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet, ask = connection(alive=True), MagicMock()
    monkeypatch.setattr(parts, "ask_for_part", ask)
    assert parts.find_part(fleet, REQUEST) is ask.return_value
    ask.assert_called_once_with(fleet, REQUEST)
    with pytest.raises(UsageError, match=r"batch b is a redo, and the collector, .*, is not alive: start the fleet"):
        parts.find_part(connection(alive=False), REQUEST)


def test_segments_of_a_redo_are_redone_by_what_redis_has() -> None:
    part = parts.find_part(connection(alive=False), PartRequest(batch_id="b", segments=[1]))
    assert [row.segment for row in part.speakers[0].segments] == [1]


def test_a_part_is_a_batch_with_the_languages_of_its_texts() -> None:
    (anna,) = parts.batch_of(in_languages()).speakers
    assert [segment.language for segment in anna.segments] == ["de", "", "de", "pt-BR", "de"]
