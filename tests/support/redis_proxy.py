"""A proxy between a client and Redis that kills the client at a command that the test chooses."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from enum import Enum
from pathlib import Path
from subprocess import Popen


class Moment(Enum):
    """When the client is killed."""

    TORN = "half of the command has reached Redis"
    DONE = "Redis has run it, and the client has no reply"


class KillingProxy:
    """Forwards commands and replies until the client sends the fatal command."""

    def __init__(self, server: str, path: Path) -> None:
        """`server` is the Unix socket of Redis; clients connect to the Unix socket `path`."""
        self.url = f"unix://{path}"
        self._server = server
        self._client: Popen[str] | None = None
        self._fatal = (b"", Moment.DONE)
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def kill_at(self, command: bytes, moment: Moment) -> None:
        """Kill the next client when it first sends `command`, alone or in a pipeline."""
        self._fatal = (command, moment)

    def serve(self, client: Popen[str]) -> None:
        """Set the process that is killed."""
        with self._lock:
            self._client = client

    def _accept(self) -> None:
        while True:
            here, _ = self._listener.accept()
            there = socket.socket(socket.AF_UNIX)
            there.connect(self._server)
            doomed = threading.Event()
            threading.Thread(target=self._forward_commands, args=(here, there, doomed), daemon=True).start()
            threading.Thread(target=self._forward_replies, args=(here, there, doomed), daemon=True).start()

    def _forward_commands(self, here: socket.socket, there: socket.socket, doomed: threading.Event) -> None:
        with suppress(OSError), there:
            while data := here.recv(1 << 22):
                with self._lock:
                    command, moment = self._fatal
                    fatal = bool(command) and command in data
                    if fatal and moment is Moment.DONE:
                        doomed.set()
                    elif fatal:
                        there.sendall(data[: len(data) // 2])
                        self._kill()
                        return
                there.sendall(data)

    def _forward_replies(self, here: socket.socket, there: socket.socket, doomed: threading.Event) -> None:
        with suppress(OSError), here:
            while data := there.recv(1 << 22):
                if doomed.is_set():
                    self._kill()
                    return
                here.sendall(data)

    def _kill(self) -> None:
        assert self._client
        self._client.kill()
        self._client.wait()
