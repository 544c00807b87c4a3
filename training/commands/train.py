"""`sentence-ordering train`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from training.runs.card_options import CardOptions
from training.system.console import PROGRAM, say
from training.system.processes import Processes

from .parsing import ArgumentParser, add_recipe_flags, recipe_of, set_help
from .push import add_push_arguments, publication, push_again, say_where

SUMMARY = "Train a model on stories."


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's flags and the text of its help."""
    parser.usage = f"{PROGRAM} train --encoder ENCODER --data SRC [SRC ...] --output_dir DIR [--FIELD VALUE ...]"
    add_recipe_flags(parser)
    add_push_arguments(parser)
    _add_card_flags(parser)
    set_help(
        parser,
        "Train a model on stories in true order; it is shown them shuffled. --encoder, --data and --output_dir are "
        "required, as flags or in the file of --config.",
        examples=[
            "train --encoder cnn --data sample --output_dir my-first-model",
            "train --encoder roberta-base --data stories.jsonl --output_dir mine --framework lightning --max_steps 500",
            "train --config recipe.yaml --output_dir again --resume_from_checkpoint",
        ],
        writes="DIR, a complete repository for the Hub: weights, tokenizer, code, README.md (the model card), "
        "results.json, training_log.csv with plots, and recipe.yaml, with which --config trains the same model again. "
        "--resume_from_checkpoint resumes from checkpoints/.",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    recipe, card, where = recipe_of(options), _card_options(options), publication(options)

    from transformers.utils import logging

    from training.publishing.push import check_publication, push_folder
    from training.runs.run_recipe import run_recipe
    from training.system.device import limit_kernel_caches

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


def _add_card_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the model card")
    group.add_argument(
        "--license",
        metavar="ID",
        help="licence under which the stories may be passed on, such as cc-by-4.0: only then the card quotes three of "
        "them (never stories in the layout of ROCStories)",
    )
    group.add_argument(
        "--model_license",
        metavar="ID",
        help="licence of the model (default: apache-2.0 for cnn, rnn and minilm on 'sample', else unknown)",
    )
    group.add_argument(
        "--language", metavar="CODE", nargs="+", help="language of the stories (default: en for 'sample')"
    )


def _card_options(options: argparse.Namespace) -> CardOptions:
    language = options.language
    card = CardOptions(options.license, options.model_license, tuple(language) if language else None)
    card.check()
    return card
