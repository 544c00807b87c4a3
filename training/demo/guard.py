"""Middleware of the demo page that refuses uploads, large requests and requests from other sites.

A Space has a copy of this file as `demo_guard.py`, without our packages: it must not import them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

MAX_BODY = 2**20
"""Bytes of a request; the longest story needs a fifth of it."""
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
# What the page posts: actions and their cancellation.
_POSTED = ("/queue/join", "/cancel", "/reset")
# Routes that write files or fetch them from other servers.
_REFUSED = ("/upload", "/upload_progress", "/deep_link", "/proxy=", "/stream/")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Guard:
    """ASGI middleware around the page.

    Args:
        app: the page.
        local_only: refuse requests with another `Host` than localhost, or from other origins. This also prevents DNS
            rebinding.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], local_only: bool) -> None:
        self.app = app
        self.local_only = local_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self.app(scope, _Bounded(receive), send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            status, why = refusal
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": why.encode()})

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path, method = scope["path"], scope.get("method", "GET")
        if self.local_only:
            host, origin = headers.get(b"host", ""), headers.get(b"origin")
            if _hostname(host) not in LOCAL_HOSTS:
                return 403, "this page is served on localhost only"
            if origin is not None and origin.partition("://")[2] != host:
                return 403, "this page does not accept requests from other sites"
        if any(part in path for part in _REFUSED) or (method == "POST" and not path.endswith(_POSTED)):
            return 403, "this page does not accept files"
        if method not in ("GET", "HEAD", "POST", "OPTIONS"):
            return 405, "method not allowed"
        length = headers.get(b"content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return 413, f"a request has at most {MAX_BODY:,} bytes"
        return None


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:  # an incomplete IPv6 address
        return None


class _Bounded:
    """Limits the body of requests without a content length."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = MAX_BODY

    async def __call__(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        return message if self._left >= 0 else {"type": "http.disconnect"}
