"""The collector on a disk that fails for a while."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock, Mock

import pytest

from cloner.batch import Redo
from cloner.collector import closing, disk, publish
from cloner.collector.closing import EndedRound, end_unrecorded
from cloner.collector.disk import retry_on_failing_disk
from cloner.errors import RecordFailed, RecordUnavailable
from cloner.events import Event
from cloner.output.audio_files import OutputRoot
from cloner.output.record import Record
from cloner.output.redo import NotedTake
from cloner.protocol.rows import TakeRow
from cloner.settings import Settings
from cloner.state.progress import Round
from tests.support.log_lines import find_lines
from tests.support.manifests import manifest


@pytest.fixture(autouse=True)
def no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "DISK_INTERVAL_S", 0.0)


def test_what_fails_for_a_while_is_done_again(capsys: pytest.CaptureFixture[str]) -> None:
    work = Mock(side_effect=[RecordUnavailable("no"), RecordUnavailable("no"), "done"])
    assert retry_on_failing_disk(Settings())(work, 1, 2) == "done"
    assert [call.args for call in work.call_args_list] == [(1, 2)] * 3
    assert len(find_lines(capsys.readouterr().err.splitlines(), Event.DISK_FAILS, error="no", left_s=600)) == 1


def test_what_fails_for_good_is_raised() -> None:
    work = Mock(side_effect=RecordUnavailable("no"))
    with pytest.raises(RecordUnavailable):
        retry_on_failing_disk(Settings(disk_wait_s=0))(work)
    assert work.call_count == 1


def test_another_error_is_raised_at_once() -> None:
    work = Mock(side_effect=RecordFailed("no"))
    with pytest.raises(RecordFailed):
        retry_on_failing_disk(Settings())(work)
    assert work.call_count == 1


def test_takes_that_cannot_be_read_for_a_while_are_published_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    celery, take = Mock(), NotedTake(TakeRow(1, 2, 99, ""), "1.wav", "k")
    monkeypatch.setattr(publish, "current_app", celery)
    monkeypatch.setattr(publish, "BatchStore", MagicMock())
    monkeypatch.setattr(publish, "may_send", lambda *_: True)
    monkeypatch.setattr(publish, "noted_takes", Mock(side_effect=[RecordUnavailable("stale"), [take]]))
    redo = manifest().model_copy(update={"redo": Redo()})
    publish.publish_chunks(redo, Round(), Settings(), Mock())
    (message,) = celery.signature.call_args_list[1].kwargs["args"]
    assert message["takes"] == [[1, 2, 99, ""]]


def test_names_that_cannot_be_given_back_for_a_while_are_given_back_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    end = Mock(side_effect=[RecordUnavailable("stale"), None])
    monkeypatch.setattr(closing, "end_replacing", end)
    batch = EndedRound(
        Round(), manifest(), OutputRoot(tmp_path), Record(tmp_path, "b"), {}, cancelled=False, progress={}
    )
    end_unrecorded(Settings(), batch)
    assert [set(call.args[2]) for call in end.call_args_list] == [{0, 1, 2, 3, 4}] * 2
