"""`sentence-ordering train`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser
from transformers.utils import logging

from training.publishing.push import Publication, check_publication, push_folder
from training.recipe.file import named_recipe, read_recipe_file, recipe_names
from training.recipe.recipe import Recipe
from training.runs.card_options import CardOptions, add_card_flags, card_options
from training.runs.session import run_recipe
from training.system.console import PROGRAM, say
from training.system.device import limit_kernel_caches
from training.system.processes import Processes

from .parsing import OneLineErrors, complete_help
from .push import add_push_arguments, publication, push_again, say_where


class RecipeParser(OneLineErrors, HfArgumentParser):
    """A flag for each field of the recipe, and `--config`, with errors of one line."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(  # type: ignore[misc]
            Recipe,  # type: ignore[arg-type]
            prog=f"{PROGRAM} {command}",
            description=description,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument(
            "--recipe",
            metavar="NAME",
            help=f"a recipe of the package, {', '.join(recipe_names())}; --config and flags override it",
        )
        self.add_argument("--config", metavar="FILE", help="recipe as YAML or JSON; flags win over it")

    def parse_recipe(self, arguments: Sequence[str]) -> tuple[Recipe, dict[str, Any]]:
        """The recipe from flags and, with `--config`, from a file; and the flags that are no fields of it.

        Raises:
            RecipeError: for a file that is no recipe.
            SystemExit: for flags that do not exist, and after `--help`.
        """
        config = OneLineErrors(prog=self.prog, add_help=False, allow_abbrev=False)
        config.add_argument("--config")
        config.add_argument("--recipe")
        files = config.parse_known_args(list(arguments))[0]
        if files.recipe is not None:
            self.set_defaults(**named_recipe(files.recipe))
        if files.config is not None:
            self.set_defaults(**read_recipe_file(files.config))
        values = vars(self.parse_args(list(arguments)))
        fields = {spec.name: values.pop(spec.name) for spec in dataclasses.fields(Recipe)}
        return Recipe(**fields), values


def command_parser() -> RecipeParser:
    """What the command takes."""
    parser = RecipeParser(
        "train",
        "Train a model on stories in true order; it is shown them shuffled. Needed are --encoder, --data and "
        "--output_dir, here or in the file of --config.",
    )
    parser.usage = f"{parser.prog} --encoder ENCODER --data SRC [SRC ...] --output_dir DIR [--FIELD VALUE ...]"
    add_push_arguments(parser)
    add_card_flags(parser)
    complete_help(
        parser,
        examples=[
            "train --encoder cnn --data sample --output_dir my-first-model",
            "train --encoder roberta-base --data stories.jsonl --output_dir mine --framework lightning --max_steps 500",
            "train --config recipe.yaml --output_dir again --resume_from_checkpoint",
        ],
        writes="DIR, a complete repository for the Hub: weights, tokenizer, code, README.md (the model card), "
        "results.json, training_log.csv with plots, and recipe.yaml, which makes the same model again by --config. "
        "checkpoints/ is what --resume_from_checkpoint goes on from.",
    )
    return parser


def parse_train(arguments: Sequence[str]) -> tuple[Recipe, CardOptions, Publication | None]:
    """What `sentence-ordering train` is to do.

    Returns:
        The recipe, what is stated for the card, and where it is pushed to, if it is.

    Raises:
        ValueError: see `RecipeParser.parse_recipe`, `card_options` and `publication`.
    """
    parser = command_parser()
    recipe, others = parser.parse_recipe(arguments)
    return recipe, card_options(others), publication(argparse.Namespace(**others))


def run(arguments: Sequence[str]) -> int:
    """Runs the command; its exit code."""
    recipe, card, where = parse_train(arguments)
    limit_kernel_caches()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    is_first = Processes.from_environment().is_first
    if where is not None and is_first:
        where = dataclasses.replace(where, repo_id=check_publication(where))
    run_recipe(recipe, report=say, card=card)
    if where is not None and is_first:
        again = f"{push_again(recipe.output_dir, where)} pushes the trained model again"
        say_where(push_folder(Path(recipe.output_dir), where, again=again, report=say), where)
    return 0
