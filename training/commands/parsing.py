"""The parser of all commands: one-line errors, help, flags derived from the recipe's fields, shell completion."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from training.recipe.file import named_recipe, read_recipe_file, recipe_names
from training.recipe.recipe import Recipe
from training.recipe.settings import Limits, Setting, add_flags, settings_of, unknown_choice
from training.system.console import BAD_INPUT, PROGRAM, report_failure, show

# Flags, and names of values in the help, that a shell completes with files or folders.
_FILES = {"FILE", "SRC", "INPUT", "data", "validation_data"}
_FOLDERS = {"DIR", "DIR_OR_REPO", "encoder", "output_dir", "resume_from_checkpoint"}
SHELLS = ("bash", "zsh", "tcsh")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of examples, and shows defaults that are not empty."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown = action.default in (None, "", [], False, argparse.SUPPRESS) or "default" in (action.help or "")
        return action.help if shown else f"{action.help} (default: %(default)s)"


class ArgumentParser(argparse.ArgumentParser):
    """A parser whose errors are one line, and suggest the closest flag or choice.

    A flag may be written with hyphens (`--learning-rate`), as `TrainingArguments` allows.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "formatter_class": HelpFormatter, **options})

    def _print_message(self, message: str, file: Any = None) -> None:
        """Prints help and version. argparse itself ignores that they could not be written."""
        if file is sys.stdout:
            show(message.removesuffix("\n"))
        else:
            super()._print_message(message, file)

    def add_number(
        self,
        flag: str,
        help: str,
        *,
        kind: type = int,
        default: int | None = None,
        metavar: str = "N",
        **limits: float,
    ) -> None:
        """Adds a flag whose value is a number within limits; see `Limits`."""
        number = Setting(flag.removeprefix("--"), kind, limits=Limits(**limits))
        self.add_argument(flag, type=number.parse_flag, default=default, metavar=metavar, help=help)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in argparse. A command refuses unknown flags itself: the program would not know its flags."""
        words = None if args is None else [self._with_underscores(word) for word in args]
        options, unknown = super().parse_known_args(words, namespace)
        if unknown:
            close = difflib.get_close_matches(unknown[0], list(self._option_string_actions), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            self.error(f"{'unknown flag' if unknown[0].startswith('-') else 'unexpected'} {unknown[0]}{hint}")
        return options, []

    def _with_underscores(self, word: str) -> str:
        flag, separator, value = word.partition("=")
        known = "--" + flag[2:].replace("-", "_")
        return known + separator + value if word.startswith("--") and known in self._option_string_actions else word

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(None, unknown_choice(action.dest, value, action.choices))

    def error(self, message: str) -> NoReturn:
        """Prints one line and exits with 2."""
        message = re.sub(r"^argument \S+: (?=--|unknown )", "", message)  # the message names the flag
        message = re.sub(r"^argument (?=--)", "", message)
        report_failure(f"{message} (see {self.prog} --help)")
        raise SystemExit(BAD_INPUT)


def set_help(parser: argparse.ArgumentParser, description: str, *, examples: Sequence[str], writes: str) -> None:
    """Sets the description of a command and what follows its flags in `--help`.

    Args:
        parser: parser of the command.
        description: what the command does.
        examples: command lines, without `sentence-ordering`.
        writes: what the command writes, and where.
    """
    typed = "\n".join(f"  {PROGRAM} {example}" for example in examples)
    wrapped = textwrap.fill(writes, 78, initial_indent="  ", subsequent_indent="  ")
    before = f"{parser.epilog}\n\n" if parser.epilog else ""
    parser.description = textwrap.fill(description, 78)
    parser.epilog = f"{before}example{'s' * (len(examples) > 1)}:\n{typed}\n\nwhat it writes:\n{wrapped}"


def add_input_flags(parser: ArgumentParser) -> None:
    """Adds the input of `order` and `score`, and how its prose is split."""
    parser.add_argument(
        "input", nargs="?", metavar="INPUT", help="text (.txt), JSONL, CSV, TSV, JSON or Parquet, or a folder"
    )
    add_recipe_flags(parser, ("split_sentences",))


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """Adds `--quiet` and `--verbose`."""
    flags = parser.add_mutually_exclusive_group()
    flags.add_argument("--quiet", action="store_true", help="print only the result and errors; no progress bars")
    flags.add_argument(
        "--verbose",
        action="store_true",
        help="print messages of the libraries, the traceback of an error, versions and the time",
    )


def add_recipe_flags(parser: argparse.ArgumentParser, names: Iterable[str] | None = None) -> None:
    """Adds flags for fields of the recipe.

    Args:
        parser: parser of the command.
        names: fields, for a command that uses a few of them; None: all of them, `--recipe` and `--config`, for
            `recipe_of`.
    """
    settings = settings_of(Recipe)
    if names is not None:
        add_flags(parser, [settings[name] for name in names])
        return
    add_flags(parser, settings.values(), only_given=True)
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help=f"recipe of this package: {', '.join(recipe_names())}; --config and flags override it",
    )
    parser.add_argument("--config", metavar="FILE", help="recipe as YAML or JSON; flags override it")


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The recipe from `--recipe`, `--config` and flags; later ones override earlier ones.

    Raises:
        RecipeError: if a file or a name cannot be used.
    """
    fields: dict[str, Any] = {}
    if options.recipe is not None:
        fields |= named_recipe(options.recipe)
    if options.config is not None:
        fields |= read_recipe_file(options.config)
    return Recipe(**fields | {name: value for name, value in vars(options).items() if name in settings_of(Recipe)})


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
