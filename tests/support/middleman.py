"""A socket between a client and Redis that kills the client at the very command that a test names."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from enum import Enum
from pathlib import Path
from subprocess import Popen


class Moment(Enum):
    """When a client dies."""

    TORN = "half of the command has reached Redis"
    DONE = "Redis has done it, and the client has not heard"


class Middleman:
    """Passes on what a client and Redis say to each other, until the client says the fatal word."""

    def __init__(self, server: str, path: Path) -> None:
        """`server` is a Unix socket, and so is `path`, where clients come."""
        self.url = f"unix://{path}"
        self._server = server
        self._client: Popen[str] | None = None
        self._fatal = (b"", Moment.DONE)
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def expect(self, word: bytes, moment: Moment) -> None:
        """The next client is to die when it first says `word`, in a command or a pipeline of them."""
        self._fatal = (word, moment)

    def let_in(self, client: Popen[str]) -> None:
        """This is the client; until now, it waits at the door."""
        with self._lock:
            self._client = client

    def _accept(self) -> None:
        while True:
            here, _ = self._listener.accept()
            there = socket.socket(socket.AF_UNIX)
            there.connect(self._server)
            doomed = threading.Event()
            threading.Thread(target=self._ask, args=(here, there, doomed), daemon=True).start()
            threading.Thread(target=self._answer, args=(here, there, doomed), daemon=True).start()

    def _ask(self, here: socket.socket, there: socket.socket, doomed: threading.Event) -> None:
        with suppress(OSError), there:
            while data := here.recv(1 << 22):
                with self._lock:
                    word, moment = self._fatal
                    fatal = bool(word) and word in data
                    if fatal and moment is Moment.DONE:
                        doomed.set()
                    elif fatal:
                        there.sendall(data[: len(data) // 2])
                        self._kill()
                        return
                there.sendall(data)

    def _answer(self, here: socket.socket, there: socket.socket, doomed: threading.Event) -> None:
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
