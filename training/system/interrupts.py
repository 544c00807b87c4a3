"""Ctrl-C in a command: it is not lost, and the exit code is the command's own."""

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
    """Sees to it that Ctrl-C is not lost.

    Where it strikes in a destructor or in a callback, Python prints it and goes on: then it is sent again. Where a
    library catches it and fails in its own way, the list that is given tells that there was one.
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
    """Ends the process with this code, whatever was interrupted in it.

    Where Ctrl-C strikes within `exec` of a text (as in `dataclass`, at any import), CPython remembers it, though it is
    caught and answered, and ends a `python -m` by the signal: until the next text is run.

    Of several processes, one that has failed leaves at once: its threads still speak with the others, and C++ aborts
    where such threads are taken down in order.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exec("")
    if code and Processes.from_environment().world_size > 1:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)
