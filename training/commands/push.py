"""`sentence-ordering push`, and the flags with which `train` and `build` push."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from dataset_builder import UserError
from training.system.console import PROGRAM, say

from .parsing import ArgumentParser, set_help

if TYPE_CHECKING:
    from training.publishing.push import Publication, Pushed

SUMMARY = "Upload a trained model, or a Space, to the Hub, in one commit."


def add_push_arguments(parser: argparse.ArgumentParser, repository_flag: str = "--push_to_hub") -> None:
    """Adds the flags for `publication`: the repository and how to push to it."""
    required = repository_flag == "--repo_id"
    parser.add_argument(
        repository_flag,
        dest="repo_id",
        metavar="USER/NAME",
        required=required,
        help=f"repository on the Hub{'' if required else ' to push to at the end'}; created if it does not exist",
    )
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to commit to (default: main)")
    parser.add_argument("--create_pr", action="store_true", help="open a pull request instead")
    parser.add_argument("--commit_message", metavar="TEXT", help="message of the commit")


def publication(options: argparse.Namespace) -> Publication | None:
    """Where and how to push, from the flags of `add_push_arguments`; None without a repository.

    Raises:
        UserError: for another of these flags without a repository.
    """
    if options.repo_id is None:
        for name in ("private", "revision", "create_pr", "commit_message"):
            if getattr(options, name):
                raise UserError(f"--{name} needs a repository: add --push_to_hub USER/NAME")
        return None
    from training.publishing.push import Publication

    return Publication(
        options.repo_id,
        trust_remote_code=getattr(options, "trust_remote_code", False),
        private=options.private,
        revision=options.revision,
        create_pr=options.create_pr,
        commit_message=options.commit_message,
    )


def push_again(folder: str, where: Publication) -> str:
    """The command line that pushes a model as `where` does."""
    words = [PROGRAM, "push", "--model", folder, "--repo_id", where.repo_id]
    words += [f"--{name}" for name in ("private", "create_pr") if getattr(where, name)]
    for name in ("revision", "commit_message"):
        if (value := getattr(where, name)) is not None:
            words += [f"--{name}", value]
    return shlex.join(words)


def say_where(pushed: Pushed, where: Publication, repo_type: str = "model") -> None:
    """Prints the address of the repository, and how to use it."""
    say(f"pushed {pushed.repo_id}: {pushed.url}")
    revision = f', revision="{where.revision}"' if where.revision else ""
    if where.create_pr:
        say("next: review and merge the pull request")
    elif repo_type == "space":
        say("next: open it when the Hub has built it")
    elif repo_type == "model":
        say(f'next: pipeline("sentence-ordering", model="{pushed.repo_id}"{revision}, trust_remote_code=True)')
    else:
        say(f'next: load_dataset("{pushed.repo_id}"{revision}), or {PROGRAM} train --data {pushed.repo_id}')


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's flags and the text of its help."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", metavar="DIR", help="the model's folder")
    what.add_argument("--space", metavar="DIR", help="the folder of a Space")
    add_push_arguments(parser, "--repo_id")
    parser.add_argument(
        "--trust_remote_code",
        action="store_true",
        help="run code in the folder that is not part of this package to check that the model loads; read it first",
    )
    set_help(
        parser,
        "Upload a trained model, or a Space made by demo --export, to the Hub, in one commit, after checking that the "
        "model loads from its folder alone. The token is the one of `hf auth login`, or HF_TOKEN.",
        examples=[
            "push --model my-first-model --repo_id me/my-first-model --private",
            "push --model my-first-model --repo_id somebody/their-model --create_pr",
            "push --space my-space --repo_id me/my-space",
        ],
        writes="One commit on the Hub with the whole folder: weights, tokenizer, code, card, results and training log. "
        "Checkpoints and TensorBoard files are not pushed; old weights in the repository are deleted.",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    where = publication(options)
    assert where is not None  # the parser requires it
    from training.publishing.push import push_folder

    if options.space is not None:
        from training.demo.space import check_space

        check_space(Path(options.space))
        say_where(push_folder(Path(options.space), where, repo_type="space", report=say), where, "space")
        return 0
    from training.models.trained_model import is_trained_model, load_trained_model

    folder = Path(options.model)
    if not folder.is_dir() or not is_trained_model(options.model):
        raise UserError(f"--model {folder} is not the folder of a sentence ordering model")
    load_trained_model(options.model)  # reports errors before any request to the Hub
    say_where(push_folder(folder, where, report=say), where)
    return 0
