"""`sentence-ordering --print-completion SHELL`: a script with which a shell completes commands, flags and choices."""

from __future__ import annotations

import argparse
from typing import Any

from training.system.console import show

# Names of flags and of their values in the help.
_FILES = {"FILE", "SRC", "INPUT", "data", "validation_data"}
_FOLDERS = {"DIR", "DIR_OR_REPO", "encoder", "output_dir", "resume_from_checkpoint"}
SHELLS = ("bash", "zsh", "tcsh")


class PrintCompletion(argparse.Action):
    """Prints the script and exits."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: Any = None) -> None:
        import shtab

        complete_files(parser, shtab.FILE, shtab.DIRECTORY)
        show(shtab.complete(parser, values))
        parser.exit()


def complete_files(parser: argparse.ArgumentParser, file: Any, folder: Any) -> None:
    """Completes files and folders where a flag takes them, in all commands."""
    action: Any
    for action in parser._actions:
        names = {action.metavar, action.dest}
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                complete_files(command, file, folder)
        elif names & _FOLDERS:
            action.complete = folder
        elif names & _FILES:
            action.complete = file
