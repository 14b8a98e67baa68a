"""A stand-in for the Hugging Face hub: it has one model, for who has the token."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def running_hub(model: str, files: Mapping[str, bytes], token: str) -> Iterator[int]:
    """The port on which it answers, on all of this host's addresses."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self.wfile.write(self._answer())

        def _answer(self) -> bytes:
            body = self._body()
            self.send_response(200 if body is not None else 401)
            self.send_header("Content-Length", str(len(body or b"")))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{sha256(body or b"").hexdigest()}"')
            self.end_headers()
            return body or b""

        def _body(self) -> bytes | None:
            if self.headers["Authorization"] != f"Bearer {token}":
                return None
            path = self.path.partition("?")[0]
            if path.startswith(f"/api/models/{model}/revision/"):
                siblings = [{"rfilename": name} for name in files]
                return json.dumps({"id": model, "sha": COMMIT, "siblings": siblings}).encode()
            if path.startswith(f"/api/models/{model}/tree/"):
                tree = [{"type": "file", "path": name, "size": len(files[name]), "oid": COMMIT} for name in files]
                return json.dumps(tree).encode()
            return files.get(path.removeprefix(f"/{model}/resolve/{COMMIT}/"))

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("", 0), Hub)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
