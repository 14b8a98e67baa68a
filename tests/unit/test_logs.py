"""Log lines, for people and for programs."""

from __future__ import annotations

import json
import threading

import pytest
from structlog.contextvars import bound_contextvars

from cloner.console import Screen
from cloner.logs import configure, get_logger, in_json, passed_on

SECRETS = [
    ("no answer from redis://:s3cret@host:6379/0", "no answer from redis://:***@host:6379/0"),
    ("lost rediss://user:s3cret@host, and unix://:s3cret@/s", "lost rediss://user:***@host, and unix://:***@/s"),
    ("mail anna@host about http://host:80/a@b", "mail anna@host about http://host:80/a@b"),
]


@pytest.fixture
def json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLONER_LOG_FORMAT", "json")


def test_a_person_reads_the_sentence_alone(capsys: pytest.CaptureFixture[str]) -> None:
    configure(worker="cpu.0@box")
    get_logger().info("Speaker 0 progress: 1/5", speaker="0")
    assert capsys.readouterr().err == "Speaker 0 progress: 1/5\n"
    assert passed_on("Worker 0", "Loading") == "[Worker 0] Loading"
    assert passed_on("Worker 0", '{"time": "", "event": "x"}').startswith("[Worker 0] {")


def test_a_program_reads_one_object_a_line(json_lines: None, capsys: pytest.CaptureFixture[str]) -> None:
    configure(worker="cpu.0@box")
    with bound_contextvars(batch="b1"):
        get_logger().warning("❌ Segment 3 failed:\nno", speaker='a"<b>', segment=3)
    get_logger().info("idle")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert first.pop("time") <= second.pop("time")
    assert first == {
        "level": "warning",
        "event": "❌ Segment 3 failed:\nno",
        "worker": "cpu.0@box",
        "batch": "b1",
        "speaker": 'a"<b>',
        "segment": 3,
    }
    assert second == {"level": "info", "event": "idle", "worker": "cpu.0@box"}


def test_what_a_process_is_called_stands_in_lines_of_all_its_threads(
    json_lines: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(worker="cpu.0@box")
    thread = threading.Thread(target=lambda: get_logger().info("from a thread"))
    thread.start()
    thread.join()
    assert json.loads(capsys.readouterr().err)["worker"] == "cpu.0@box"


def test_a_launcher_passes_json_on_as_it_is_and_dresses_the_rest(
    json_lines: None, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = '{"time": "2026-01-01T00:00:00Z", "level": "info", "event": "hi", "worker": "w"}'
    for text in (whole, "Traceback (most recent call last):", '{"time": cut', ""):
        get_logger().info(passed_on("Worker 0", text))
    first, *others = capsys.readouterr().err.splitlines()
    assert first == whole
    assert [json.loads(line)["event"] for line in others] == [
        "[Worker 0] Traceback (most recent call last):",
        '[Worker 0] {"time": cut',
        "[Worker 0]",
    ]


@pytest.mark.parametrize("wanted", ["text", "json"])
@pytest.mark.parametrize(("said", "written"), SECRETS)
def test_no_line_tells_a_password(
    wanted: str, said: str, written: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLONER_LOG_FORMAT", wanted)
    get_logger().error(said)
    line = capsys.readouterr().err
    assert (json.loads(line)["event"] if wanted == "json" else line.rstrip()) == written


def test_an_environment_that_makes_no_sense_is_complained_of_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLONER_LOG_FORMAT", "xml")
    assert not in_json()


def test_a_screen_logs_for_programs(json_lines: None, capsys: pytest.CaptureFixture[str]) -> None:
    Screen().say("[Main] Speakers: 6")
    assert json.loads(capsys.readouterr().err)["event"] == "[Main] Speakers: 6"
