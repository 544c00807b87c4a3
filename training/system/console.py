"""Messages of a command on standard output and standard error."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from .processes import Processes

PROGRAM = "sentence-ordering"
BAD_INPUT = 2  # the exit code
# Control characters except line ends and tabs. ANSI escape sequences begin with one of them.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_LONGEST_MESSAGE = 800
_LONG_VALUES = (re.compile(r"'[^']{160,}'"), re.compile(r'"[^"]{160,}"'), re.compile(r"[^\s/\\]{160,}"))
_is_quiet = False  # set by `--quiet`


def set_quiet(quiet: bool) -> None:
    """Sets whether `say` and `note` print nothing."""
    global _is_quiet
    _is_quiet = quiet


def say(message: str, stream: TextIO | None = None) -> None:
    """Prints progress, unless `--quiet` is set.

    A closed pipe is not an error: `sentence-ordering train … | head -1` trains to the end.

    Args:
        message: one line or more.
        stream: standard output by default.
    """
    if not _is_quiet:
        _print(message, stream)


def show(message: str) -> None:
    """Prints the result of a command to standard output, with `--quiet` too."""
    _print(message, None)


def _print(message: str, stream: TextIO | None) -> None:
    stream = stream or sys.stdout
    try:
        print(for_terminal(message) if stream.isatty() else message, file=stream, flush=True)
    except BrokenPipeError:
        drop_output()


def note(message: str) -> None:
    """Prints a warning of one line to standard error, unless `--quiet` is set."""
    if not _is_quiet:
        complain(f"note: {message}")


def drop_output() -> None:
    """Redirects standard output to the null device: flushing a closed pipe would fail at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(message: str) -> None:
    """Prints an error of one line to standard error, with characters that are not printable escaped."""
    line = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in shortened(" ".join(message.split()))
    )
    with suppress(OSError):  # standard error is closed
        print(f"{PROGRAM}: {line}", file=sys.stderr)


def for_terminal(text: str) -> str:
    """The text with control characters escaped, except line ends and tabs."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shortened(message: str) -> str:
    """The message with the middle of long quoted values and long words left out, and of the message itself."""
    if len(message) > 20 * _LONGEST_MESSAGE:
        message = f"{message[: 10 * _LONGEST_MESSAGE]}…{message[-10 * _LONGEST_MESSAGE :]}"
    for pattern in _LONG_VALUES:
        message = pattern.sub(lambda found: f"{found[0][:60]}…{found[0][-20:]}", message)
    if len(message) > _LONGEST_MESSAGE:
        message = f"{message[: _LONGEST_MESSAGE - 200]} … {message[-190:]}"
    return message


def report_failure(message: str) -> None:
    """Prints why this process fails.

    Of several processes that `torchrun` or `accelerate launch` started, only the first one that fails prints it: the
    others fail for the same reason or because of it. The launcher shows the message again in its summary.
    """
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if error_file is not None and Processes.from_environment().world_size > 1:
        with open(error_file, "w", encoding="utf-8") as sink:
            json.dump({"message": message, "timestamp": int(time.time())}, sink)
        try:  # the folder has a folder for each process of this machine
            os.close(os.open(Path(error_file).parents[1] / "reported", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
    complain(message)
