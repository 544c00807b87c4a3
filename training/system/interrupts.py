"""Ctrl-C in a command: it is not lost, and the exit code is 130."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from .processes import Processes


@contextmanager
def interrupts_seen() -> Iterator[list[int]]:
    """Makes sure that Ctrl-C is not lost.

    Python only prints a KeyboardInterrupt in a destructor or in a callback: then the signal is sent again. If a library
    catches it and raises another error, the list that is yielded is not empty.
    """
    seen: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    handler, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook

    def interrupt(number: int, _: Any) -> NoReturn:
        seen.append(number)
        raise KeyboardInterrupt

    def send_again(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        else:
            hook(unraisable)

    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
        sys.unraisablehook = send_again
    try:
        yield seen
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, handler)
        if sys.unraisablehook is send_again:
            sys.unraisablehook = hook


def exit_with(code: int) -> NoReturn:
    """Exits with this code, also after an interrupt.

    If Ctrl-C arrived within an `exec` of source text, as in `dataclass` at import, CPython remembers it even when it
    was handled, and kills `python -m` by SIGINT at exit. Running another text resets that.

    A failed process of several exits without cleanup, because C++ aborts when threads that communicate with the other
    processes are destroyed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exec("")
    if code and Processes.from_environment().world_size > 1:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)
