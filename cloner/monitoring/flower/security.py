"""What Flower leaves open: logins with letters beyond ASCII, guessing passwords, and the headers that confine a page.

Flower has no interface for either, so its handlers are replaced by subclasses before it starts.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from base64 import b64decode, b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import flower.urls
from flower.utils.authentication import authenticate
from flower.views import BaseHandler
from tornado.httputil import HTTPHeaders
from tornado.routing import URLSpec
from tornado.web import HTTPError, OutputTransform

WRONG_LOGIN_DELAY_S = 1.0
"""Seconds after which a wrong login is answered; a right one is answered at once."""

# Flower's page of workers has one inline script, of two possible texts; Tornado has taken the spaces from its line.
_INLINE_SCRIPTS = [sha256(f"\nvar autorefresh = {value};\n".encode()).digest() for value in (0, 1)]

# Styles may be inline: reports have widths of bars in their elements, and DataTables, which Flower uses, sets some.
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' " + " ".join(f"'sha256-{b64encode(digest).decode()}'" for digest in _INLINE_SCRIPTS),
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)


def protect() -> None:
    """Check logins on all pages that Flower has by now, and send the headers with every response."""
    flower.urls.handlers[:] = [_with_login(handler) for handler in flower.urls.handlers]
    flower.urls.settings["transforms"] = [SecurityHeaders]


class SecurityHeaders(OutputTransform):
    """Adds headers to every response, whichever handler makes it: pages, data, files and errors."""

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        del finishing
        headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        headers["X-Frame-Options"] = "DENY"
        headers["X-Content-Type-Options"] = "nosniff"
        return status_code, headers, chunk


class Login(BaseHandler):  # type: ignore[misc] # Flower has no types
    """Compares logins as bytes: Flower compares texts, which fails if one has letters beyond ASCII."""

    async def prepare(self) -> None:
        if "Authorization" in self.request.headers and not self._is_right():
            await asyncio.sleep(WRONG_LOGIN_DELAY_S)
        waiting = super().prepare()
        if waiting is not None:
            await waiting

    def get_current_user(self) -> Any:
        """The user, True without OAuth, or None. Raises `HTTPError` 401 after a missing or wrong login."""
        if not self._is_right():
            raise HTTPError(401)
        pattern = self.application.options.auth
        if not pattern:
            return True
        user = (self.get_secure_cookie("user") or b"").decode()
        return user if user and authenticate(pattern, user) else None

    def _is_right(self) -> bool:
        logins = self.application.options.basic_auth
        return not logins or is_login(self.request.headers.get("Authorization", ""), logins)


def is_login(header: str, logins: Sequence[str]) -> bool:
    """Whether an Authorization header has one of the logins ``user:password``; takes as long for all headers."""
    scheme, _, credentials = header.strip().partition(" ")
    try:
        given = b64decode(credentials) if scheme.lower() == "basic" else b""
    except ValueError:
        given = b""
    digest = sha256(given).digest()
    same = [hmac.compare_digest(digest, sha256(os.fsencode(login)).digest()) for login in logins]
    return any(same)


def _with_login(handler: Any) -> Any:
    """The handler, or its tuple of pattern, class and more, with `Login` in front of its class if Flower made that."""
    if isinstance(handler, URLSpec):
        return URLSpec(handler.regex.pattern, _checked(handler.handler_class), handler.kwargs, handler.name)
    pattern, kind, *more = handler
    return pattern, _checked(kind), *more


def _checked(kind: type[Any]) -> type[Any]:
    return type(kind.__name__, (Login, kind), {}) if issubclass(kind, BaseHandler) else kind
