"""`sentence-ordering --print-completion SHELL`: a script by which a shell knows our commands, flags and choices.

It is made once, by a process that has the time to ask every command; pressing Tab starts none.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from typing import Any

import shtab

from training.system.console import show

# What a value names, by what the help calls it, or by the name of the flag.
_FILES = {"FILE", "SRC", "INPUT", "data", "validation_data"}
_FOLDERS = {"DIR", "DIR_OR_REPO", "encoder", "output_dir", "resume_from_checkpoint"}


def run(parser: argparse.ArgumentParser, shell: str, commands: Mapping[str, tuple[str, str]]) -> int:
    """Prints the script.

    Args:
        parser: of the program, without its commands.
        shell: one that shtab knows, such as `"bash"`.
        commands: for each name the module that runs the command, and what it does.

    Returns:
        The exit code.
    """
    # A parser of its own: the program's reads the name of a command as a word like any other.
    whole = argparse.ArgumentParser(prog=parser.prog, description=parser.description)
    whole.add_argument("--version", action="store_true", help="print the version and exit")
    subparsers = whole.add_subparsers()
    for name, (module, text) in commands.items():
        given = importlib.import_module(module).command_parser()
        subparsers.add_parser(name, help=text, parents=[_with_files(given)], add_help=False, conflict_handler="resolve")
    show(shtab.complete(whole, shell))
    return 0


def _with_files(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The same parser, whose flags for files and folders are completed as such."""
    action: Any
    for action in parser._actions:
        names = {action.metavar, action.dest}
        if names & _FOLDERS:
            action.complete = shtab.DIRECTORY
        elif names & _FILES:
            action.complete = shtab.FILE
    return parser
