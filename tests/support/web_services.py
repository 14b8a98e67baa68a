"""Flower and the Prometheus exporter, started by their commands, and requests to them."""

from __future__ import annotations

import socket
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloner.settings import Settings
from tests.support.polling import eventually
from tests.support.processes import LoggedProcess, environment

LOGIN = "anna:s3cret"


@contextmanager
def running_flower(settings: Settings, folder: Path, **changes: str) -> Iterator[str]:
    """Flower's address, without a slash at its end; `changes` are environment variables."""
    port = free_port()
    env = {**environment(settings), "FLOWER_BASIC_AUTH": LOGIN, "FLOWER_PORT": str(port), **changes}
    flower = LoggedProcess([sys.executable, "-m", "cloner", "flower"], env, folder)
    with _answering(flower, f"http://127.0.0.1:{port}", "/healthcheck") as address:
        yield address


@contextmanager
def running_exporter(settings: Settings, folder: Path) -> Iterator[str]:
    """The exporter's address, without a slash at its end."""
    port = free_port()
    command = [sys.executable, "-m", "cloner", "metrics", "--port", str(port)]
    exporter = LoggedProcess(command, environment(settings), folder)
    with _answering(exporter, f"http://127.0.0.1:{port}", "/metrics") as address:
        yield address


@contextmanager
def _answering(server: LoggedProcess, address: str, path: str) -> Iterator[str]:
    try:
        eventually(lambda: server.process.poll() is not None or get(address + path)[0] == 200)
        assert server.process.poll() is None, server.lines
        yield address
    finally:
        server.stop()


def get(address: str, login: str | None = LOGIN) -> tuple[int, str]:
    """Status and text of a page; status 0 if the server does not answer."""
    return _answer(urllib.request.Request(address), login)


def post(address: str, login: str = LOGIN) -> int:
    """Status of the answer to a POST without data."""
    return _answer(urllib.request.Request(address, method="POST"), login)[0]


def _answer(request: urllib.request.Request, login: str | None) -> tuple[int, str]:
    if login:
        request.add_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def free_port() -> int:
    """A TCP port that no process listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
