"""What a command tells the person who runs it, on standard output and standard error."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from contextlib import suppress
from typing import TextIO

from .processes import Processes

PROGRAM = "sentence-ordering"
BAD_INPUT = 2  # the exit code
# Seconds in which a launcher ends all processes after one has failed, on a busy machine, too; who has only lost another
# has nothing to say, unless there is no launcher.
_FIRST_SPEAKS, _OTHERS_SPEAK = 15.0, 60.0
# Control characters but the ends of lines and tabs: ANSI escapes begin with one, or with one of the second range.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_LONGEST_MESSAGE = 800
_LONG_VALUES = (re.compile(r"'[^']{160,}'"), re.compile(r'"[^"]{160,}"'), re.compile(r"[^\s/\\]{160,}"))
_is_quiet = False  # what `--quiet` says, while its command runs


def set_quiet(quiet: bool) -> None:
    """Whether `say` and `note` print nothing from now on."""
    global _is_quiet
    _is_quiet = quiet


def say(message: str, stream: TextIO | None = None) -> None:
    """Prints what a person wants to know who waits, at once; nothing with `--quiet`.

    Nobody has to read it: `sentence-ordering train … | head -1` trains to the end.

    Args:
        message: one line or more.
        stream: where to; standard output if not given.
    """
    if not _is_quiet:
        _print(message, stream)


def show(message: str) -> None:
    """Prints what the command was asked for to standard output; see `say`, but with `--quiet`, too."""
    _print(message, None)


def _print(message: str, stream: TextIO | None) -> None:
    stream = stream or sys.stdout
    try:
        print(for_terminal(message) if stream.isatty() else message, file=stream, flush=True)
    except BrokenPipeError:
        drop_output()


def note(message: str) -> None:
    """Prints one line to standard error on what should not be overlooked; nothing with `--quiet`."""
    if not _is_quiet:
        complain(f"note: {message}")


def drop_output() -> None:
    """Lets go of standard output, with what it still holds back: Python would complain when it cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(message: str) -> None:
    """Prints one line to standard error; what a terminal would obey, or cannot show, is spelled out."""
    line = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in shortened(" ".join(message.split()))
    )
    with suppress(OSError):  # nobody listens; the exit code tells
        print(f"{PROGRAM}: {line}", file=sys.stderr)


def for_terminal(text: str) -> str:
    """The text with the control characters spelled out that a terminal would obey; ends of lines and tabs stay."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shortened(message: str) -> str:
    """The message without the inner part of long values in it: quoted ones, words that are not paths, and the rest."""
    if len(message) > 20 * _LONGEST_MESSAGE:
        message = f"{message[: 10 * _LONGEST_MESSAGE]}…{message[-10 * _LONGEST_MESSAGE :]}"
    for pattern in _LONG_VALUES:
        message = pattern.sub(lambda found: f"{found[0][:60]}…{found[0][-20:]}", message)
    if len(message) > _LONGEST_MESSAGE:
        message = f"{message[: _LONGEST_MESSAGE - 200]} … {message[-190:]}"
    return message


def complain_as_one(message: str, *, later: bool = False) -> None:
    """Prints why this process fails; once, where several fail together.

    What fails in all of them, or in one and then in those that wait for it, is said by the first, or by the one that
    failed alone. Meanwhile their launcher ends the others.

    Args:
        message: what is said.
        later: another has failed, and speaks first.
    """
    processes = Processes.from_environment()
    if later or not processes.is_first:
        time.sleep(_OTHERS_SPEAK if later else _FIRST_SPEAKS)
    if not processes.is_first:
        message = f"process {processes.rank}: {message}"
    complain(message)
    report = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if report is not None and processes.world_size > 1:  # torchrun says a page about how all ended, and why with it
        with open(report, "w", encoding="utf-8") as sink:
            json.dump({"message": message, "timestamp": int(time.time())}, sink)
