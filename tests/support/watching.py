"""Flower and the exporter, started as people start them; and what they answer."""

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
from tests.integration.conftest import Said, environment, eventually

LOGIN = "anna:s3cret"


@contextmanager
def running_flower(settings: Settings, folder: Path) -> Iterator[str]:
    """Flower's address, without a slash at its end."""
    port = free_port()
    env = {**environment(settings), "FLOWER_BASIC_AUTH": LOGIN, "FLOWER_PORT": str(port), "FLOWER_ADDRESS": "127.0.0.1"}
    said = Said([sys.executable, "-m", "cloner", "flower"], env, folder)
    with _answering(said, f"http://127.0.0.1:{port}", "/healthcheck") as address:
        yield address


@contextmanager
def running_exporter(settings: Settings, folder: Path) -> Iterator[str]:
    """The exporter's address, without a slash at its end."""
    port = free_port()
    said = Said([sys.executable, "-m", "cloner", "metrics", "--port", str(port)], environment(settings), folder)
    with _answering(said, f"http://127.0.0.1:{port}", "/metrics") as address:
        yield address


@contextmanager
def _answering(said: Said, address: str, path: str) -> Iterator[str]:
    try:
        eventually(lambda: said.process.poll() is not None or get(address + path)[0] == 200)
        assert said.process.poll() is None, said.lines
        yield address
    finally:
        said.stop()


def get(address: str, login: str | None = LOGIN) -> tuple[int, str]:
    """Status and text of a page; status 0 if nobody answers."""
    request = urllib.request.Request(address)
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
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
