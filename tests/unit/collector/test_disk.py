"""The collector on a disk that fails for a while."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from cloner.collector import disk
from cloner.collector.disk import retry_on_failing_disk
from cloner.errors import RecordFailed, RecordUnavailable
from cloner.events import Event
from cloner.settings import Settings
from tests.support.log_lines import find_lines


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
