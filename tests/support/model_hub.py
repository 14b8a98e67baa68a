"""A local server with the API of the Hugging Face hub and one model, which requires a token."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def sibling(name: str, content: bytes) -> dict[str, Any]:
    """What the hub says of a file: weights are kept outside Git."""
    file = {
        "rfilename": name,
        "size": len(content),
        "blobId": sha1(b"blob %d\0%b" % (len(content), content)).hexdigest(),
    }
    if name.endswith((".pth", ".bin")):
        lfs = {"size": len(content), "sha256": sha256(content).hexdigest(), "pointerSize": 134}
        return {**file, "lfs": lfs, "blobId": COMMIT}
    return file


@contextmanager
def running_hub(
    model: str, files: Mapping[str, bytes], token: str, published: Mapping[str, bytes] | None = None
) -> Iterator[int]:
    """Run the server; yields its port, on all of this host's addresses. The digests are those of `published`, which is
    `files` if not given."""
    siblings = [sibling(name, content) for name, content in (published or files).items()]

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
            if path == f"/api/models/{model}" or path.startswith(f"/api/models/{model}/revision/"):
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
