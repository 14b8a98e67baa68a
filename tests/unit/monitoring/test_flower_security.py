from __future__ import annotations

import asyncio
from base64 import b64encode
from types import SimpleNamespace
from typing import Any

import flower.urls
import pytest
from flower.views import BaseHandler
from flower.views.monitor import Healthcheck
from tornado.httpclient import AsyncHTTPClient
from tornado.web import Application, StaticFileHandler, authenticated, url

from cloner.monitoring.flower import security
from cloner.monitoring.flower.security import is_login, protect
from tests.support.web_services import free_port

LOGINS = ["anna:s3cret", "jürgen:пароль", "kim:a:b"]


def basic(login: str, encoding: str = "utf-8") -> str:
    return f"Basic {b64encode(login.encode(encoding)).decode()}"


@pytest.mark.parametrize("login", LOGINS)
def test_each_login_is_accepted_whatever_its_letters(login: str) -> None:
    assert is_login(basic(login), LOGINS)
    assert is_login(basic(login).replace("Basic", "basic"), LOGINS)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic \xff\xfe",
        "Basic %%%",
        "Bearer " + basic("anna:s3cret")[6:],
        basic("anna:S3cret"),
        basic("anna:s3creté"),
        basic("anna:s3cre"),
        basic("anna"),
        basic("jürgen:пароль".upper()),
        basic("jürgen:x", "latin-1"),
    ],
)
def test_all_else_is_refused(header: str) -> None:
    assert not is_login(header, LOGINS)


class Page(BaseHandler):  # type: ignore[misc]
    @authenticated
    def get(self) -> None:
        self.write("seen")


class Prepared(Page):
    def prepare(self) -> None:
        self.write("prepared, ")


def test_wrong_logins_are_answered_late_and_all_handlers_are_protected(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    handlers = [url("/page", Page, name="page"), ("/prepared", Prepared), ("/healthcheck", Healthcheck)]
    files = url("/files/(.*)", StaticFileHandler, {"path": "/nowhere"})
    monkeypatch.setattr(flower.urls, "handlers", [*handlers, files])
    monkeypatch.setattr(flower.urls, "settings", {})
    monkeypatch.setattr(security, "asyncio", SimpleNamespace(sleep=sleep))
    protect()
    assert flower.urls.handlers[-1].handler_class is StaticFileHandler

    async def visit() -> list[tuple[int, str, list[float]]]:
        application: Any = Application(flower.urls.handlers, **flower.urls.settings)
        application.options = SimpleNamespace(basic_auth=LOGINS, auth="", url_prefix="")
        port = free_port()
        server = application.listen(port, "127.0.0.1")
        found = []
        for path, header in [
            ("page", None),
            ("page", basic("anna:wrong")),
            ("page", basic("jürgen:x", "latin-1")),
            ("page", basic("jürgen:пароль")),
            ("prepared", basic("anna:s3cret")),
            ("healthcheck", None),
            ("files/none", None),
            ("nothing", None),
        ]:
            headers = {"Authorization": header} if header else {}
            pauses.clear()
            answer = await AsyncHTTPClient().fetch(
                f"http://127.0.0.1:{port}/{path}", headers=headers, raise_error=False
            )
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'; ")
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert answer.headers.get_list("X-Content-Type-Options") == ["nosniff"]
            found.append((answer.code, answer.body.decode()[:20], list(pauses)))
        server.stop()
        return found

    denied, late = "Access denied", security.WRONG_LOGIN_DELAY_S
    assert asyncio.run(visit())[:6] == [
        (401, denied, []),
        (401, denied, [late]),
        (401, denied, [late]),
        (200, "seen", []),
        (200, "prepared, seen", []),
        (200, "OK", []),
    ]
