"""Exceptions that end a command become an exit code and one line on standard error."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Callable, Sequence

from dataset_builder import UserError

from .console import BAD_INPUT, complain, drop_output, report_failure
from .errors import CommandFailed
from .full_disk import full_disk_message
from .interrupts import interrupts_seen
from .processes import Processes

DONE, FAILED, INTERRUPTED = 0, 1, 130


def exit_code(command: Callable[[], int], arguments: Sequence[str] = (), *, verbose: bool = False) -> int:
    """Runs a command and returns its exit code, or that of its exception.

    Args:
        command: returns an exit code.
        arguments: command-line arguments, whose paths are searched for a full disk.
        verbose: print the traceback too.
    """
    try:
        with interrupts_seen() as interrupted:
            try:
                code = command()
                sys.stdout.flush()
                return code
            except SystemExit as stop:
                return stop.code if isinstance(stop.code, int) else BAD_INPUT if stop.code else DONE
            except Exception as error:
                if interrupted:  # a library turned it into an error of its own
                    raise KeyboardInterrupt from error
                raise
            except BaseException as error:
                if type(error).__name__ != "PanicException":
                    raise
                # A panic in the Rust code of a library, which has printed its own message.
                raise UserError(f"a library cannot process this input: {error}") from error
    except KeyboardInterrupt as interrupt:
        if Processes.from_environment().is_first:
            complain(str(interrupt) or "interrupted")
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError) and sys.stdout is sys.__stdout__:
            _try_to_flush()
        if verbose:
            traceback.print_exception(error)
        full_disk = full_disk_message(error, arguments)
        report_failure(full_disk or _message(error))
        return BAD_INPUT if _is_bad_input(error) and not full_disk else FAILED


def _is_bad_input(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENAMETOOLONG
    return isinstance(error, UserError) or _cannot_be_encoded(error)


def _cannot_be_encoded(error: Exception) -> bool:
    """Whether text cannot be written in the encoding of standard output."""
    return isinstance(error, UnicodeEncodeError) and not error.encoding.lower().startswith("utf")


def _try_to_flush() -> None:
    """Flushes standard output now: Python would print an error of its own if that failed at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        drop_output()


def _message(error: Exception) -> str:
    text = str(error) or type(error).__name__
    if isinstance(error, UnicodeEncodeError) and _cannot_be_encoded(error):
        shown = error.object[error.start : error.start + 1]
        return (
            f"the output is encoded as {error.encoding}, which has no {shown!r}: set PYTHONIOENCODING=utf-8, or write "
            "to a file with --output"
        )
    if isinstance(error, OSError) and error.strerror:
        name = error.filename2 or error.filename  # of two names, the first is the source of a copy
        return f"{name}: {error.strerror}" if name else error.strerror
    if isinstance(error, (UserError, CommandFailed, OSError)) or _is_out_of_memory(error):
        return text
    from .hub_errors import is_unreachable  # only here: it imports the Hub's client

    if is_unreachable(error):
        return text
    return f"unexpected {type(error).__name__}: {text} (please report it, with what --verbose shows of it)"


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory was too small; torch, where it is loaded, has an exception of its own for that."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
