"""The embedded server: it answers, keeps an append-only file, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from cloner.embedded import embedded_redis
from cloner.redisconn import connect

OWNER = """
import sys
from cloner.embedded import embedded_redis
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
