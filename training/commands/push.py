"""`sentence-ordering push`, and the flags by which `train` and `build` push what they have made."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from dataset_builder import UserError
from training.demo.space import check_space
from training.publishing.push import Publication, Pushed, push_folder
from training.system.console import PROGRAM, say

from .parsing import OneLineErrors, complete_help


def add_push_arguments(parser: argparse.ArgumentParser, repository_flag: str = "--push_to_hub") -> None:
    """Adds the flags that say where on the Hub something goes, and how; `publication` reads them."""
    required = repository_flag == "--repo_id"
    parser.add_argument(
        repository_flag,
        dest="repo_id",
        metavar="USER/NAME",
        required=required,
        help=f"repository on the Hub{'' if required else ' to push to in the end'}; made if there is none",
    )
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to commit to (default: main)")
    parser.add_argument("--create_pr", action="store_true", help="open a pull request instead")
    parser.add_argument("--commit_message", metavar="TEXT", help="message of the commit")


def publication(options: argparse.Namespace) -> Publication | None:
    """What the flags of `add_push_arguments` say; None if nothing is to be pushed.

    Raises:
        UserError: for a flag that is of no use without a repository.
    """
    if options.repo_id is None:
        for name in ("private", "revision", "create_pr", "commit_message"):
            if getattr(options, name):
                raise UserError(f"--{name} says how to push, but not where to: add --push_to_hub USER/NAME")
        return None
    return Publication(
        options.repo_id,
        trust_remote_code=getattr(options, "trust_remote_code", False),
        private=options.private,
        revision=options.revision,
        create_pr=options.create_pr,
        commit_message=options.commit_message,
    )


def push_again(folder: str, where: Publication) -> str:
    """The command that pushes a model to the same place in the same way."""
    words = [PROGRAM, "push", "--model", folder, "--repo_id", where.repo_id]
    words += [f"--{name}" for name in ("private", "create_pr") if getattr(where, name)]
    for name in ("revision", "commit_message"):
        if (value := getattr(where, name)) is not None:
            words += [f"--{name}", value]
    return shlex.join(words)


def say_where(pushed: Pushed, where: Publication, repo_type: str = "model") -> None:
    """Prints where it is now, and how to use it."""
    say(f"pushed {pushed.repo_id}: {pushed.url}")
    revision = f', revision="{where.revision}"' if where.revision else ""
    if where.create_pr:
        say("next: look at the pull request, and merge it")
    elif repo_type == "space":
        say("next: open it there, when the Hub has built it")
    elif repo_type == "model":
        say(f'next: pipeline("sentence-ordering", model="{pushed.repo_id}"{revision}, trust_remote_code=True)')
    else:
        say(f'next: load_dataset("{pushed.repo_id}"{revision}), or {PROGRAM} train --data {pushed.repo_id}')


def command_parser() -> OneLineErrors:
    """What the command takes."""
    parser = OneLineErrors(
        prog=f"{PROGRAM} push",
        description="Upload a trained model, or a Space made by demo --export, to the Hub, in one commit, after "
        "checking that the model loads by itself. The token is the one that you are logged in with (hf auth login), or "
        "HF_TOKEN.",
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", metavar="DIR", help="the model's folder")
    what.add_argument("--space", metavar="DIR", help="the folder of a Space")
    add_push_arguments(parser, "--repo_id")
    parser.add_argument(
        "--trust_remote_code",
        action="store_true",
        help="run code in the folder that is not this package's, to see whether the model loads; read it before",
    )
    complete_help(
        parser,
        examples=[
            "push --model my-first-model --repo_id me/my-first-model --private",
            "push --model my-first-model --repo_id somebody/their-model --create_pr",
            "push --space my-space --repo_id me/my-space",
        ],
        writes="Nothing here. On the Hub one commit with the whole folder: weights, tokenizer, code, card, results and "
        "training log. Checkpoints and TensorBoard's files stay at home, old weights there are deleted.",
    )
    return parser


def run(arguments: Sequence[str]) -> int:
    """Runs the command; its exit code."""
    options = command_parser().parse_args(list(arguments))
    where = publication(options)
    assert where is not None  # the parser requires it
    if options.space is not None:
        check_space(Path(options.space))
        say_where(push_folder(Path(options.space), where, repo_type="space", report=say), where, "space")
        return 0
    from training.models.trained_model import (
        is_trained_model,
        load_trained_model,
    )  # only here: `build` and Spaces are pushed without torch

    folder = Path(options.model)
    if not folder.is_dir() or not is_trained_model(options.model):
        raise UserError(f"--model {folder} is not the folder of a sentence ordering model")
    load_trained_model(options.model)  # says what is wrong with it before the Hub is asked anything
    say_where(push_folder(folder, where, report=say), where)
    return 0
