"""The command `sentence-ordering`. What a command needs is imported when it runs, so that `--help` is quick."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stderr
from typing import Any, NoReturn, TextIO, cast

from training.system.console import (
    PROGRAM,
    complain,
    note,
    set_quiet,
    show,
)
from training.system.exit_codes import DONE, INTERRUPTED, exit_code
from training.system.interrupts import exit_with
from training.system.processes import Processes

from .parsing import OneLineErrors, add_output_flags

# Name of each command, the module that runs it (its function `run(arguments) -> exit code`), and what it does.
COMMANDS = {
    "build": ("training.commands.build", "Make the shuffled data set as Parquet, with its card."),
    "train": ("training.commands.train", "Train a model on stories."),
    "evaluate": ("training.commands.evaluate", "Judge a model on stories whose order is known."),
    "search": ("training.commands.search", "Try recipes with Optuna and keep the best."),
    "compare": ("training.commands.compare", "Make the guide's table: frameworks, encoders and seeds side by side."),
    "order": ("training.commands.order", "Put shuffled sentences in order."),
    "export": ("training.commands.export", "Write a trained model as ONNX, for ONNX Runtime."),
    "demo": ("training.commands.demo", "Try a model on a page, here or as a Space on the Hub."),
    "push": ("training.commands.push", "Upload a trained model, or a Space, to the Hub, in one commit."),
}
SHELLS = ("bash", "zsh", "tcsh")


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
        epilog=f"commands:\n{lines}\n\n{PROGRAM} COMMAND --help tells what a command does, takes and writes. The first "
        f"one to try:\n  {PROGRAM} train --encoder cnn --data sample --output_dir my-first-model",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"{PROGRAM} COMMAND ...",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument(
        "--print-completion", metavar="SHELL", choices=SHELLS, help=f"print the completion of {', '.join(SHELLS)}"
    )
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="what to do, see below")
    try:
        options = parser.parse_args(arguments[: 1 + (arguments[:1] == ["--print-completion"])])
        if options.version:
            return _guarded(_show_version)
        if options.print_completion is not None:
            completion = "training.commands.completion"
            return _guarded(lambda: importlib.import_module(completion).run(parser, options.print_completion, COMMANDS))
        if options.command is None:
            parser.error(f"a command is missing: one of {', '.join(COMMANDS)}")
        if options.command not in COMMANDS:
            close = difflib.get_close_matches(options.command, COMMANDS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there is {', '.join(COMMANDS)}"
            parser.error(f"there is no command {options.command!r}; {hint}")
    except SystemExit as stop:
        return int(stop.code or 0)
    # Read before the command's module is imported: libraries ask how much to say when they are.
    early = OneLineErrors(prog=f"{PROGRAM} {options.command}", add_help=False, allow_abbrev=False)
    add_output_flags(early)
    try:
        output = early.parse_known_args(arguments[1:])[0]
    except SystemExit as stop:
        return int(stop.code or 0)
    command = COMMANDS[options.command][0]
    return _guarded(
        lambda: importlib.import_module(command).run(arguments[1:]),
        arguments[1:],
        quiet=output.quiet,
        verbose=output.verbose,
    )


def _note_once(message: str) -> None:
    """What a library warns of in one process, it warns of in all."""
    if Processes.from_environment().is_first:
        note(message)


def _guarded(
    command: Callable[[], int], arguments: Sequence[str] = (), *, quiet: bool = False, verbose: bool = False
) -> int:
    """Runs a command with these arguments; an exception becomes an exit code and one line."""
    set_quiet(quiet)
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            if quiet and sys.stderr.isatty():
                stack.enter_context(redirect_stderr(cast(TextIO, _NoTerminal(sys.stderr))))
            _set_up_libraries(verbose)
            code = exit_code(command, arguments, verbose=verbose)
    finally:
        set_quiet(False)
    if verbose:
        complain(f"exit code {code} after {time.monotonic() - began:.1f} s, {_versions()}")
    return code


class _NoTerminal:
    """A stream that says it is no terminal, so that nobody shows a progress bar on it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        return False


def _show_version() -> int:
    from importlib.metadata import version

    show(f"{PROGRAM} {version(PROGRAM)}")
    return DONE


def _versions() -> str:
    from importlib.metadata import version

    names = (PROGRAM, "torch", "transformers", "datasets")
    return f"Python {sys.version.split()[0]}, " + ", ".join(f"{name} {version(name)}" for name in names)


def _set_up_libraries(verbose: bool) -> None:
    """Keeps the libraries' progress bars to terminals, and what they say to warnings that concern the user."""
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")  # no pickle runs code, in no library
    if verbose:
        os.environ.update(dict.fromkeys(("TRANSFORMERS_VERBOSITY", "DATASETS_VERBOSITY", "HF_HUB_VERBOSITY"), "info"))
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    warnings.showwarning = lambda message, category, file, line, *_, **__: _note_once(
        f"{message} ({category.__name__} in {file}, line {line})" if verbose else f"{message}"
    )


def _open_what_is_closed() -> None:
    """A stream that is closed (`>&-`) gives and takes nothing; Python has None in its place, on which all stumble."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, open to the end


def run_and_exit() -> NoReturn:
    """The command as a process of its own. What is done when it ends takes a while, and is not to be interrupted."""
    _open_what_is_closed()
    try:
        code = main()
    except KeyboardInterrupt:  # before any command began
        complain("interrupted")
        code = INTERRUPTED
    exit_with(code)


if __name__ == "__main__":
    # The module that the commands know: run by its name, this one is another.
    importlib.import_module("training.commands.command_line").run_and_exit()
