"""Errors of requests to the Hub: recognised, retried and put in one line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

TRIES = 4
Answer = TypeVar("Answer")


def is_unreachable(error: BaseException) -> bool:
    """Whether the Hub could not be reached, as opposed to an error about the requested name."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError, TimeoutError)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def first_line(error: BaseException) -> str:
    """The first line of an error message.

    If it ends in a colon (`Bad request:`), the next line is added; so is a list of errors in a card's metadata.
    """
    first, *rest = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    details = [line for line in rest if line.startswith("- ")] or (rest[:1] if first.endswith(":") else [])
    return " ".join([first, *details])


def with_retries(call: Callable[[], Answer], tries: int = TRIES) -> Answer:
    """The result of `call`, repeated after temporary errors: a lost connection or reply, an overloaded server.

    The client does not retry `create_repo` and `create_commit`; both may be repeated safely.
    """
    for attempt in range(1, tries + 1):
        try:
            return call()
        except Exception as error:
            if attempt == tries or not _is_temporary(error):
                raise
            time.sleep(min(2.0 ** (attempt - 1), 8.0) * float(os.environ.get("SENTENCE_ORDERING_RETRY_SECONDS", "1")))
    raise AssertionError("unreachable")


def _is_temporary(error: BaseException) -> bool:
    if isinstance(error, OfflineModeIsEnabled):
        return False
    if isinstance(error, HfHubHTTPError):
        status = getattr(error.response, "status_code", 0)
        return status == 429 or status >= 500
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:  # of a download
        return _is_temporary(error.__cause__)
    # By name: versions of the client use different HTTP libraries.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, (ConnectionError, TimeoutError)) or bool(kinds & {"TransportError", "RequestException"})
