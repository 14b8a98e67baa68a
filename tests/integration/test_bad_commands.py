"""Commands, addresses and settings that cannot be used, and their error messages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from redis import Redis

from cloner.events import Event
from cloner.settings import Settings, WorkerSettings
from cloner.worker.__main__ import main as worker_main
from tests.support.bad_inputs import CommandLine, RunCommand, nothing_done
from tests.support.batches import write_batch
from tests.support.log_lines import find_lines

ADDRESSES = [
    "localhost",
    "localhost:6379",
    "http://:topsecret@localhost",
    "redis:/:topsecret@localhost",
    "REDIS://:topsecret@localhost",
    "redis://:topsecret@localhost:port",
    "redis://:topsecret@localhost:99999",
    "redis://:topsecret@localhost:0",
    "redis://:top/secret@localhost",
    "redis://:top#secret@localhost",
    "redis://[topsecret",
    "redis://localhost/topsecret",
    "redis://localhost/0/1",
    "redis://localhost?password=topsecret",
    "redis://localhost?db=1",
    "redis://localhost?ssl_cert_reqs=none",
    "rediss://localhost?ssl_cert_reqs=topsecret",
    "rediss://localhost?ssl_ca_certs=",
    "rediss://localhost?topsecret=1",
    "unix://topsecret/socket",
    "unix://",
    "unix:///socket?db=topsecret",
    "sentinel://:topsecret@localhost",
    "redis://löcalhost",
    " redis://localhost",
    "\x1b[2J",
]

NONSENSE = ["\n", " ", "\x1b[2J", "no such thing!", "-7.5 apples", "[]"]

FREE = {"CLONER_REDIS_URL", "CLONER_WORKER_GPU"}
"""Settings that accept any text; an address is checked at its first use."""

FOLDERS = {
    "CLONER_CHECKPOINT_DIR",
    "CLONER_KERNEL_CACHE",
    "CLONER_OUT_DIR",
    "CLONER_RECOGNISER",
    "CLONER_RECOGNISER_CACHE",
    "CLONER_REFERENCES_DIR",
}
"""Folder settings: only an empty text or a control character is invalid."""


def variables(kind: type[Settings | WorkerSettings]) -> list[str]:
    """Every environment variable of the settings, new ones included."""
    prefix = str(kind.model_config.get("env_prefix", ""))
    fields = kind.model_fields.items()
    return [str(field.validation_alias or f"{prefix}{name}".upper()) for name, field in fields]


def nonsense(kind: type[Settings | WorkerSettings]) -> list[tuple[str, str]]:
    names = [name for name in variables(kind) if name not in FREE]
    return [(name, text) for name in names for text in (NONSENSE[:3] if name in FOLDERS else NONSENSE)]


COMMANDS: dict[str, tuple[list[str], str]] = {
    "nothing": (["run"], "Missing argument"),
    "an unknown command": (["rum"], "No such command 'rum'"),
    "an unknown option": (["run", "b.json", "--speed", "9"], "No such option: --speed"),
    "no workers": (["run", "b.json", "--workers", "0"], "Invalid value for '--workers'"),
    "workers in words": (["run", "b.json", "--workers", "many"], "Invalid value for '--workers'"),
    "an unknown format": (["run", "b.json", "--format", "aac"], "'aac' is not one of"),
    "a rate in words": (["submit", "b.json", "--rate", "high"], "Invalid value for '--rate'"),
    "a loudness in words": (["plan", "b.json", "--loudness", "loud"], "Invalid value for '--loudness'"),
    "an unknown strategy": (["submit", "b.json", "--strategy", "fastest"], "'fastest' is not one of"),
    "an unknown engine": (["run", "b.json", "--engine", "espeak"], "'espeak' is not one of"),
    "an output folder of 300 bytes": (["run", "b.json", "--engine", "fake", "--out", "o" * 300], "File name too long"),
    "an output folder that is a file": (["run", "b.json", "--out", "b.json"], "is not a folder: name one"),
    "an output folder that is a loop": (["run", "b.json", "--out", "loop/a"], "--out"),
    "a folder to list that is a loop": (["list", "--out", "loop/a"], "--out"),
    "a folder to report from that is a loop": (["report", "20260101-000000-abcdef", "--out", "loop/a"], "--out"),
    "a folder to redo in that is a loop": (
        ["redo", "20260101-000000-abcdef", "--segment", "1", "--out", "loop/a"],
        "--out",
    ),
    "an unknown batch": (["status", "20260101-000000-abcdef"], "no batch 20260101-000000-abcdef is known"),
    "an id that leads elsewhere": (
        ["cancel", "../../etc/passwd"],
        "'../../etc/passwd' is no batch's id: ids are",
    ),
    "an id that is no text": (["result", os.fsdecode(b"\xff\xfe")], "'\\udcff\\udcfe' is no batch's id"),
    "an id of a megabyte": (["wait", "9" * 100_000], "is no batch's id: ids are printed by `cloner submit`"),
    "codes of no name": (["encode", "anna.wav", "-o", "anna.wav"], "codes are kept as .npy; name the output so"),
    "a checkpoint of no name": (["checkpoint", "pull", "gpt"], "'gpt' is no known checkpoint"),
    "a checkpoint where something is": (["checkpoint", "init", "refs"], "is not empty: name a folder that is empty"),
}


def test_a_plan_says_where_a_run_would_be_refused(
    run_command: RunCommand, batch_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloner.output.writable.seems_writable", lambda _: False)
    write_batch(batch_folder, [1])
    status, _, stderr = run_command("plan", "batch.json", "--out", "new", "--engine", "fake")
    assert status == 0, stderr
    assert find_lines(stderr.splitlines(), Event.OUT_NOT_WRITABLE, folder=batch_folder / "new")


@pytest.mark.parametrize("url", ADDRESSES)
def test_an_address_that_is_none(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("CLONER_REDIS_URL", url)
    status, stderr = command_line("fleet")
    assert status == 2
    assert stderr.startswith(
        ("CLONER_REDIS_URL is not a Redis address: write", "CLONER_REDIS_URL has an option behind")
    )
    assert "secret" not in stderr


@pytest.mark.slow
@pytest.mark.parametrize(("name", "text"), nonsense(Settings))
def test_a_setting_of_nonsense(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(name, text)
    status, stderr = command_line("fleet")
    assert (status, stderr.count("\n")) == (2, 1)
    assert stderr.startswith(f"{name}={text!r}: give ")


@pytest.mark.parametrize(("name", "text"), nonsense(WorkerSettings))
def test_a_workers_setting_of_nonsense(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv("CLONER_REDIS_URL", "redis://localhost:1")
    monkeypatch.setenv(name, text)
    status, stderr = command_line(entry=worker_main)
    assert (status, stderr.count("\n")) == (2, 1)
    assert stderr.startswith(f"{name}={text!r}: give ")


@pytest.mark.parametrize(("arguments", "message"), COMMANDS.values(), ids=COMMANDS)
def test_a_command_that_makes_no_sense(
    batch_folder: Path,
    command_line: CommandLine,
    idle_fleet: Settings,
    redis: Redis,
    arguments: list[str],
    message: str,
) -> None:
    (batch_folder / "loop").symlink_to("loop")
    with nothing_done(batch_folder, redis):
        status, stderr = command_line(*arguments)
    assert status == 2
    assert message in " ".join(stderr.replace("│", "").split())
