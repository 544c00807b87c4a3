"""The argument parser that all commands share: errors in one line, help with examples, `--quiet` and `--verbose`."""

from __future__ import annotations

import argparse
import difflib
import re
import textwrap
from collections.abc import Sequence
from typing import NoReturn

from training.system.console import BAD_INPUT, PROGRAM, report_failure


class OneLineErrors(argparse.ArgumentParser):
    """A parser whose errors are one line, with the nearest name for a flag that does not exist."""

    def error(self, message: str) -> NoReturn:
        """Exits with 2."""
        unknown = re.match(r"unrecognized arguments: (--\w[\w-]*)", message)
        if unknown:
            close = difflib.get_close_matches(unknown[1], list(self._option_string_actions), n=1)
            message = f"there is no {unknown[1]}" + (f"; did you mean {close[0]}?" if close else "")
        report_failure(f"{message} (see {self.prog} --help)")
        raise SystemExit(BAD_INPUT)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Examples as they are typed, and the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = action.default in (None, "", [], False) or "default" in (action.help or "")
        return action.help if told else super()._get_help_string(action)


def complete_help(parser: argparse.ArgumentParser, *, examples: Sequence[str], writes: str) -> None:
    """Gives a command's parser `--quiet` and `--verbose`, and a help that one can work from alone.

    Args:
        parser: of the command; its description says what the command does.
        examples: calls of it, as one would type them after `sentence-ordering`.
        writes: what it leaves, and where, a line or more.
    """
    typed = "\n".join(f"  {PROGRAM} {example}" for example in examples)
    wrapped = "\n".join(
        textwrap.fill(line, 78, initial_indent="  ", subsequent_indent="  ") for line in writes.split("\n")
    )
    before = f"{parser.epilog}\n\n" if parser.epilog else ""
    parser.description = textwrap.fill(parser.description or "", 78)
    parser.epilog = f"{before}example{'s' * (len(examples) > 1)}:\n{typed}\n\nwhat it writes:\n{wrapped}"
    parser.formatter_class = HelpFormatter
    add_output_flags(parser)


def add_split_sentences(parser: argparse.ArgumentParser) -> None:
    """Adds `--split_sentences`."""
    parser.add_argument(
        "--split_sentences",
        metavar="LANG",
        help="language of prose to split into sentences, such as en: of text files, and of a column text, abstract or "
        "story; needs the extra 'split'",
    )


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """Adds `--quiet` and `--verbose`."""
    flags = parser.add_mutually_exclusive_group()
    flags.add_argument("--quiet", action="store_true", help="say nothing but the result and errors; no progress bars")
    flags.add_argument(
        "--verbose",
        action="store_true",
        help="let the libraries speak, show where an error came from, and say how long it took",
    )
