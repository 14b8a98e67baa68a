"""Log lines as text and as JSON."""

from __future__ import annotations

import json
import threading

import pytest
from structlog.contextvars import bound_contextvars

from cloner.console import Screen
from cloner.events import Event
from cloner.logs import configure, in_json, log_event, log_line, passed_on

SECRETS = [
    ("no answer from redis://:s3cret@host:6379/0", "no answer from redis://:***@host:6379/0"),
    ("lost rediss://user:s3cret@host, and unix://:s3cret@/s", "lost rediss://user:***@host, and unix://:***@/s"),
    ("mail anna@host about http://host:80/a@b", "mail anna@host about http://host:80/a@b"),
]


@pytest.fixture
def json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLONER_LOG_FORMAT", "json")


def test_a_text_line_is_the_events_text_alone(capsys: pytest.CaptureFixture[str]) -> None:
    configure(worker="cpu.0@box")
    log_event(Event.SPEAKER_PROGRESS, speaker="0", finished=1, texts=5)
    assert capsys.readouterr().err == "Speaker 0 progress: 1/5\n"
    assert passed_on("Worker 0", "Loading") == "[Worker 0] Loading"
    assert passed_on("Worker 0", '{"time": "", "event": "x"}').startswith("[Worker 0] {")


def test_a_json_line_has_the_events_id_and_fields(json_lines: None, capsys: pytest.CaptureFixture[str]) -> None:
    configure(worker="cpu.0@box")
    with bound_contextvars(batch="b1"):
        log_event(Event.SEGMENT_FAILED, segment=3, speaker='a"<b>', error="\nno")
    log_event(Event.MODELS_LOADED)
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert first.pop("time") <= second.pop("time")
    assert first == {
        "level": "warning",
        "event": '❌ Segment 3 of Speaker a"<b> failed: \nno',
        "id": "segment_failed",
        "worker": "cpu.0@box",
        "batch": "b1",
        "speaker": 'a"<b>',
        "segment": 3,
        "error": "\nno",
    }
    assert second == {
        "level": "info",
        "event": "Models loaded! Starting generation...",
        "id": "models_loaded",
        "worker": "cpu.0@box",
    }


def test_lines_of_all_threads_have_the_processs_fields(json_lines: None, capsys: pytest.CaptureFixture[str]) -> None:
    configure(worker="cpu.0@box")
    thread = threading.Thread(target=lambda: log_event(Event.MODELS_LOADED))
    thread.start()
    thread.join()
    assert json.loads(capsys.readouterr().err)["worker"] == "cpu.0@box"


def test_a_launcher_passes_json_lines_on_unchanged_and_wraps_other_text(
    json_lines: None, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = '{"time": "2026-01-01T00:00:00Z", "level": "info", "event": "hi", "worker": "w"}'
    for text in (whole, "Traceback (most recent call last):", '{"time": cut', ""):
        log_line(passed_on("Worker 0", text))
    first, *others = capsys.readouterr().err.splitlines()
    assert first == whole
    assert [json.loads(line)["event"] for line in others] == [
        "[Worker 0] Traceback (most recent call last):",
        '[Worker 0] {"time": cut',
        "[Worker 0]",
    ]


@pytest.mark.parametrize("wanted", ["text", "json"])
@pytest.mark.parametrize(("error", "written"), SECRETS)
def test_no_line_contains_a_password(
    wanted: str, error: str, written: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLONER_LOG_FORMAT", wanted)
    log_event(Event.FAILED, error=RuntimeError(error))
    line = capsys.readouterr().err
    if wanted == "json":
        entry = json.loads(line)
        assert (entry["event"], entry["error"]) == (written, written)
    else:
        assert line.rstrip() == written


def test_an_invalid_environment_gets_text_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLONER_LOG_FORMAT", "xml")
    assert not in_json()


def test_a_screen_logs_json_lines(json_lines: None, capsys: pytest.CaptureFixture[str]) -> None:
    Screen().log(Event.SPEAKERS.line(speakers=6))
    entry = json.loads(capsys.readouterr().err)
    assert (entry["event"], entry["id"], entry["speakers"]) == ("[Main] Speakers: 6", "speakers", 6)


def test_every_event_has_a_text_of_its_own() -> None:
    assert len(Event) == len(Event.__members__)
