"""What the demo page's server does not answer: uploads, large requests, and pages of other sites.

A Space has a copy of this file as `demo_guard.py` and none of our packages: it imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

MAX_BODY = 2**20
"""Bytes of a request; the longest story takes a fifth of it."""
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
# All that the page sends: an action, and that it is not wanted any more.
_POSTED = ("/queue/join", "/cancel", "/reset")
# What writes files, or fetches them from elsewhere.
_REFUSED = ("/upload", "/upload_progress", "/deep_link", "/proxy=", "/stream/")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Guard:
    """ASGI middleware around the page.

    Args:
        app: the page.
        local_only: refuse requests by other names than those of this machine, and from pages of other origins. A site
            that makes its own name point to this machine is thus kept out.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], local_only: bool) -> None:
        self.app = app
        self.local_only = local_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or hands it on."""
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
                return 403, "this page is for this machine only"
            if origin is not None and origin.partition("://")[2] != host:
                return 403, "this page does not answer other sites"
        if any(part in path for part in _REFUSED) or (method == "POST" and not path.endswith(_POSTED)):
            return 403, "this page takes no files"
        if method not in ("GET", "HEAD", "POST", "OPTIONS"):
            return 405, "not for this page"
        length = headers.get(b"content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return 413, f"a request has at most {MAX_BODY:,} bytes"
        return None


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:  # half an IPv6 address
        return None


class _Bounded:
    """Passes a body on up to its limit; a request may leave out how long it is."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = MAX_BODY

    async def __call__(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        return message if self._left >= 0 else {"type": "http.disconnect"}
