"""The command `sentence-ordering`. Its modules import what is expensive when they run, so that `--help` is fast."""

from __future__ import annotations

import importlib
import os
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr
from functools import partial
from importlib.metadata import version
from typing import Any, NoReturn, Protocol, TextIO, cast

from training.system.console import PROGRAM, complain, note, set_quiet
from training.system.exit_codes import INTERRUPTED, exit_code
from training.system.interrupts import exit_with
from training.system.processes import Processes

from . import build, compare, demo, evaluate, export, order, push, score, search, train
from .parsing import SHELLS, ArgumentParser, PrintCompletion, add_output_flags


class Command(Protocol):
    """A module that defines a command."""

    SUMMARY: str

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Adds the command's flags and the text of its help."""

    def run(self, options: Namespace) -> int:
        """Runs the command and returns the exit code."""


COMMANDS: dict[str, Command] = {
    "build": build,
    "train": train,
    "evaluate": evaluate,
    "search": search,
    "compare": compare,
    "order": order,
    "score": score,
    "export": export,
    "demo": demo,
    "push": push,
}


def program_parser() -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """The parser of the program, and that of each command."""
    parser = ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} COMMAND ...",
        description="Train, share and run models that put shuffled sentences back in order.",
        epilog=f"{PROGRAM} COMMAND --help describes a command. To start:\n"
        f"  {PROGRAM} train --encoder cnn --data sample --output_dir my-first-model",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {version(PROGRAM)}")
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        metavar="SHELL",
        choices=SHELLS,
        help=f"print the completion script of a shell: {', '.join(SHELLS)}",
    )
    subparsers = parser.add_subparsers(title="commands", prog=PROGRAM, dest="command", metavar="COMMAND")
    commands = {}
    for name, module in COMMANDS.items():
        commands[name] = subparsers.add_parser(name, help=module.SUMMARY)
        module.add_arguments(commands[name])
        add_output_flags(commands[name])
    return parser, commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        0 if it was done; 1 if it failed for a reason outside of its input; 2 for bad input; 130 if interrupted.
        For each but 0, one line is printed to standard error.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parser, _ = program_parser()
        options = parser.parse_args(arguments)
        if options.command is None:
            parser.error(f"a command is missing; choose from {', '.join(COMMANDS)}")
    except SystemExit as stop:
        return int(stop.code or 0)
    except OSError as error:  # help or version could not be written
        return exit_code(partial(_raise, error))
    set_quiet(options.quiet)
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            if options.quiet and sys.stderr.isatty():
                stack.enter_context(redirect_stderr(cast(TextIO, _NoTerminal(sys.stderr))))
            _set_up_libraries(options.verbose)
            code = exit_code(lambda: COMMANDS[options.command].run(options), arguments, verbose=options.verbose)
    finally:
        set_quiet(False)
    if options.verbose:
        complain(f"exit code {code} after {time.monotonic() - began:.1f} s, {_versions()}")
    return code


def _raise(error: Exception) -> NoReturn:
    raise error


def _note_once(message: str) -> None:
    """Prints a warning in the first process only: all processes have the same ones."""
    if Processes.from_environment().is_first:
        note(message)


class _NoTerminal:
    """A stream that does not count as a terminal, so that libraries show no progress bars."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        return False


def _versions() -> str:
    names = (PROGRAM, "torch", "transformers", "datasets")
    return f"Python {sys.version.split()[0]}, " + ", ".join(f"{name} {version(name)}" for name in names)


def _set_up_libraries(verbose: bool) -> None:
    """Shows progress bars on terminals only, and warnings as notes. Libraries read these variables when imported."""
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")  # no library runs code from a pickle
    if verbose:
        os.environ.update(dict.fromkeys(("TRANSFORMERS_VERBOSITY", "DATASETS_VERBOSITY", "HF_HUB_VERBOSITY"), "info"))
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    warnings.showwarning = lambda message, category, file, line, *_, **__: _note_once(
        f"{message} ({category.__name__} in {file}, line {line})" if verbose else f"{message}"
    )


def _reopen_standard_streams() -> None:
    """Opens the null device for each standard stream that is closed (`>&-`), which is None in Python."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, open to the end


def run_and_exit() -> NoReturn:
    """Runs the command as a process. Its clean-up takes a while and cannot be interrupted."""
    _reopen_standard_streams()
    try:
        code = main()
    except KeyboardInterrupt:  # while the command line was parsed
        complain("interrupted")
        code = INTERRUPTED
    exit_with(code)


if __name__ == "__main__":
    # As `__main__` this is another module than the one that commands import.
    importlib.import_module("training.commands.command_line").run_and_exit()
