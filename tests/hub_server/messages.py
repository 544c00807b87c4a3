"""What goes over the wire: requests as they are recorded, responses, and errors as the Hub words them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Kind = str  # "model", "dataset" or "space"


@dataclass
class Request:
    """One request that reached the server.

    ``path`` is decoded and has no query; ``quoted_path`` is as the client sent it, where `/` inside of a revision is
    `%2F`. Names in ``headers`` are in lower case. ``outcome`` is the status of the answer, ``"drop"`` or
    ``"lose reply"``; the ``body`` of a dropped request is what had arrived by then.
    """

    method: str
    quoted_path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    host: str
    body: bytes = field(default=b"", repr=False)
    outcome: int | str | None = None

    @classmethod
    def parse(cls, method: str, target: str, headers: Mapping[str, str]) -> Request:
        """``target`` is a path, or the whole URL where the client takes this server for a proxy."""
        url = urlsplit(target)
        headers = {name.lower(): value for name, value in headers.items()}
        query = parse_qs(url.query, keep_blank_values=True)
        return cls(method, url.path, query, headers, host=url.netloc or headers.get("host", ""))

    @property
    def path(self) -> str:
        return unquote(self.quoted_path)

    @property
    def token(self) -> str | None:
        """The token that the client showed, right or wrong."""
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None

    def flag(self, name: str) -> bool:
        """Whether a query parameter is on, however the client spells it."""
        return self.query.get(name, [""])[-1].lower() in ("1", "true")

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise HubError(400, f"Invalid JSON in the request: {error}") from None

    def quotes(self, text: str) -> bool:
        """Whether the text occurs anywhere but in the Authorization header: a token must not.

        A commit has the content of its small files in base64; for what they say see `Hub.repo_files`.
        """
        headers = [value for name, value in self.headers.items() if name != "authorization"]
        parameters = [value for values in self.query.values() for value in values]
        return any(text in part for part in (self.path, *headers, *parameters)) or text.encode() in self.body


@dataclass
class Response:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        """JSON. What JSON does not know, such as a date in a card, is written as its text."""
        body = json.dumps(value, default=str).encode()
        return cls(status, body, {"Content-Type": "application/json; charset=utf-8", **(headers or {})})


class HubError(Exception):
    """An answer that is an error: the client's exception depends on the status and on ``code``, a header."""

    def __init__(self, status: int, message: str, code: str | None = None, **more: Any) -> None:
        super().__init__(message)
        headers = {"X-Error-Message": " ".join(message.split())}
        if code:
            headers["X-Error-Code"] = code
        self.response = Response.of({"error": message, **more}, status, headers)
