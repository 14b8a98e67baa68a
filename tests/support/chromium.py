"""Headless Chromium, controlled over its protocol (CDP) by the websocket client that Flower depends on."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.support.polling import TIMEOUT_S

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)


class LeavingError(AssertionError):
    """A script was evaluated while the page was being replaced by the next."""


class Page:
    """One page of a browser. Every method waits for its result."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: WebSocketClientConnection) -> None:
        self._loop = loop
        self._socket = socket
        self._number = 0
        self._session: str | None = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Page.enable")

    def look(self, width: int, height: int, scheme: str) -> None:
        """Set the window's size in pixels, and the scheme, "light" or "dark"."""
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def goto(self, address: str) -> None:
        self._call("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def on_each_page(self, script: str) -> None:
        """Run a script in every page that is opened from now on, before its own scripts."""
        self._call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def eval(self, script: str) -> Any:
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            pytest.fail(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """Wait until a script's value is truthy; returns it."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            with suppress(LeavingError):
                if value := self.eval(script):
                    return value
                assert time.monotonic() < deadline, f"{script} never came to hold; the page has:\n{self.text()}"
            self._loop.run_until_complete(asyncio.sleep(0.1))

    def press(self, key: str) -> None:
        """Press and release a key, such as "b", " " or "ArrowDown"."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
            self._call("Input.dispatchKeyEvent", type=kind, key=key, **text)

    def click(self, selector: str) -> None:
        """Click on the middle of the first element of a CSS selector, which is scrolled to."""
        script = """(async ([element]) => {
          element.scrollIntoView({ block: "nearest" });
          // What has come into view is laid out in the next frame, and may move it.
          for (const _ of [1, 2]) await new Promise(requestAnimationFrame);
          const box = element.getBoundingClientRect();
          return [box.x + box.width / 2, box.y + box.height / 2];
        })(document.querySelectorAll(%s))"""
        x, y = self.eval(script % json.dumps(selector))
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def save_downloads_in(self, folder: Path) -> None:
        """Save what pages download from now on in a folder; a file has its name when it is complete."""
        self._call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def text(self) -> str:
        """The page's visible text."""
        return str(self.eval("document.body ? document.body.innerText : ''"))

    def shoot(self, path: Path) -> None:
        """Save a screenshot of the whole page."""
        picture = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        return self._loop.run_until_complete(asyncio.wait_for(self._ask(message), TIMEOUT_S))

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        await self._socket.write_message(json.dumps(message))
        while True:
            said = await self._socket.read_message()
            assert said is not None, "the browser is gone"
            answer = json.loads(said)
            if answer.get("id") == message["id"]:
                error = answer.get("error", {}).get("message", "")
                if "navigated" in error or "context" in error:
                    raise LeavingError(error)
                assert not error, (message, error)
                return cast("dict[str, Any]", answer["result"])


@contextmanager
def browser() -> Iterator[Page]:
    """A new browser with one page."""
    program = shutil.which("chromium")
    assert program, "Chromium is not installed: apt-get install chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        loop = asyncio.new_event_loop()
        try:
            address = _devtools(process)
            socket = loop.run_until_complete(_connect(address))
            yield Page(loop, socket)
        finally:
            process.terminate()
            process.communicate()
            loop.close()


async def _connect(address: str) -> WebSocketClientConnection:
    return await websocket_connect(address, max_message_size=2**26)


def _devtools(process: subprocess.Popen[str]) -> str:
    assert process.stderr
    for line in process.stderr:
        if found := re.search(r"DevTools listening on (ws://\S+)", line):
            return found[1]
    pytest.fail("Chromium did not start")
