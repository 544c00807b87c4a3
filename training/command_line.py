"""The command `sentence-ordering`. What a command needs is imported when it runs, so that `--help` is quick."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

PROGRAM = "sentence-ordering"
# Name of each command, the module that runs it (its function `run(arguments) -> exit code`), and what it does.
COMMANDS = {
    "build": ("training.command_build", "Make the shuffled data set as Parquet, with its card."),
    "train": ("training.command_train", "Train a model on stories."),
    "evaluate": ("training.command_evaluate", "Judge a model on stories whose order is known."),
    "compare": ("training.command_compare", "Make the guide's table: frameworks, encoders and seeds side by side."),
    "order": ("training.command_order", "Put shuffled sentences in order."),
    "demo": ("training.command_demo", "Try a model on a page, here or as a Space on the Hub."),
    "push": ("training.command_push", "Upload a trained model, or a Space, to the Hub, in one commit."),
}
_DONE, _FAILED, _BAD_INPUT, _INTERRUPTED = 0, 1, 2, 130
TRACEBACK_VARIABLE = "SENTENCE_ORDERING_TRACEBACK"


class OneLineErrors(argparse.ArgumentParser):
    """A parser whose errors are one line, with the nearest name for a flag that does not exist."""

    def error(self, message: str) -> NoReturn:
        """Exits with 2."""
        unknown = re.match(r"unrecognized arguments: (--\w[\w-]*)", message)
        if unknown:
            close = difflib.get_close_matches(unknown[1], list(self._option_string_actions), n=1)
            message = f"there is no {unknown[1]}" + (f"; did you mean {close[0]}?" if close else "")
        complain(f"{message} (see {self.prog} --help)")
        raise SystemExit(_BAD_INPUT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        0 if it was done; 1 if it failed for a reason outside of its input; 2 for bad input; 130 if interrupted.
        Each but 0 comes with one line on standard error.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    lines = "\n".join(f"  {name:10} {text}" for name, (_, text) in COMMANDS.items())
    parser = OneLineErrors(
        prog=PROGRAM,
        description="Train, share and run models that put shuffled sentences back in order.",
        epilog=f"commands:\n{lines}\n\n{PROGRAM} COMMAND --help tells what a command takes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"{PROGRAM} COMMAND ...",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="what to do, see below")
    try:
        options = parser.parse_args(arguments[:1])
        if options.version:
            from importlib.metadata import version

            print(f"{PROGRAM} {version(PROGRAM)}")
            return _DONE
        if options.command is None:
            parser.error(f"a command is missing: one of {', '.join(COMMANDS)}")
        if options.command not in COMMANDS:
            close = difflib.get_close_matches(options.command, COMMANDS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there is {', '.join(COMMANDS)}"
            parser.error(f"there is no command {options.command!r}; {hint}")
    except SystemExit as stop:
        return int(stop.code or 0)
    return _guarded(lambda: importlib.import_module(COMMANDS[options.command][0]).run(arguments[1:]))


def complain(message: str) -> None:
    """Prints one line to standard error."""
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)


def _guarded(command: Callable[[], int]) -> int:
    """Runs a command; an exception becomes an exit code and one line."""
    show_traceback = bool(os.environ.get(TRACEBACK_VARIABLE))
    try:
        _quiet_libraries()
        return command()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else _BAD_INPUT if stop.code else _DONE
    except KeyboardInterrupt as interrupt:
        complain(str(interrupt) or "interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has enough of it. Python would complain once more when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except Exception as error:
        if show_traceback:
            raise
        complain(_in_words(error))
        return _BAD_INPUT if isinstance(error, ValueError) else _FAILED


def _in_words(error: Exception) -> str:
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, (ValueError, OSError, RuntimeError)):
        return text
    return f"{type(error).__name__}: {text} (set {TRACEBACK_VARIABLE}=1 for the details)"


def _quiet_libraries() -> None:
    """Keeps the libraries' progress bars to terminals, and what they say to warnings that concern the user."""
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    warnings.showwarning = lambda message, *_, **__: complain(f"note: {message}")


if __name__ == "__main__":
    sys.exit(main())
