"""What goes wrong on the way to the Hub: told from other errors, tried again where that helps, said in one line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

TRIES = 4
Answer = TypeVar("Answer")


def is_unreachable(error: BaseException) -> bool:
    """Whether the Hub could not be reached, which is no fault of the name that was asked for."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError, TimeoutError)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def first_line(error: BaseException) -> str:
    """The first line of a message that goes on with advice for programmers; with what it only announces.

    That is the next line behind a colon (`Bad request:`), and a list of what is wrong with a card's metadata.
    """
    first, *rest = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    announced = [line for line in rest if line.startswith("- ")] or (rest[:1] if first.endswith(":") else [])
    return " ".join([first, *announced])


def persistently(call: Callable[[], Answer], tries: int = TRIES) -> Answer:
    """Calls again after what may pass: a lost connection or answer, an overloaded server.

    The client does not try `create_repo` and `create_commit` again by itself; both may be repeated safely.
    """
    for attempt in range(1, tries + 1):
        try:
            return call()
        except Exception as error:
            if attempt == tries or not _may_pass(error):
                raise
            time.sleep(min(2.0 ** (attempt - 1), 8.0) * float(os.environ.get("SENTENCE_ORDERING_RETRY_SECONDS", "1")))
    raise AssertionError("unreachable")


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, OfflineModeIsEnabled):
        return False
    if isinstance(error, HfHubHTTPError):
        status = getattr(error.response, "status_code", 0)
        return status == 429 or status >= 500
    # The client's own library for HTTP has changed over its versions: its transport errors are known by their base.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, (ConnectionError, TimeoutError)) or bool(kinds & {"TransportError", "RequestException"})
