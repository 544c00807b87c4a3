"""`sentence-ordering build`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from model_card.licences import check_language, check_licence
from training.system.console import PROGRAM, say
from training.system.output_names import check_apart, check_folder_name

from .parsing import ArgumentParser, add_recipe_flags, set_help
from .push import add_push_arguments, publication, say_where

if TYPE_CHECKING:
    from training.publishing.push import Publication

SUMMARY = "Write the shuffled data set as Parquet, with its card."


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's flags and the text of its help."""
    parser.add_argument("--data", required=True, nargs="+", metavar="SRC", help="stories, as for train")
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="folder to write; must be new or empty")
    add_recipe_flags(parser, ("split_sentences", "data_seed", "test_size", "validation_size"))
    parser.add_argument(
        "--license",
        metavar="ID",
        help="licence of the stories, by its id on the Hub; needed to push them to a public repository, and to quote "
        "some on the card (the sample's is known)",
    )
    parser.add_argument("--language", nargs="+", default=[], metavar="CODE", help="language of the stories, such as en")
    parser.add_argument(
        "--allow_rocstories",
        action="store_true",
        help="push stories in the layout of ROCStories, too, which asks its users not to pass it on",
    )
    add_push_arguments(parser)
    set_help(
        parser,
        "Write the shuffled data set as Parquet, with its card. load_dataset(DIR) loads it.",
        examples=[
            "build --data sample --output_dir shuffled_stories",
            "build --data train.csv test.csv --output_dir mine --license cc-by-4.0 --push_to_hub me/my-stories",
        ],
        writes="DIR, a data set of the Hub: Parquet files of each split, shuffled (with labels) and in the columns of "
        "the guide, and README.md, its card. With --push_to_hub the same in a repository of that name.",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    from dataset_builder import CardMarkup, build_dataset
    from model_card.markdown import as_text
    from model_card.renewal import BEGIN, END, HINT, write_card

    where = publication(options)
    check_folder_name("--output_dir", options.output_dir)
    check_apart("--output_dir", options.output_dir, data=options.data)
    _check(options)
    repo_id = None if where is None else _checked_target(where, options)
    built = build_dataset(
        options.data,
        options.output_dir,
        seed=options.data_seed,
        test_size=options.test_size,
        validation_size=options.validation_size,
        split_sentences=options.split_sentences,
        license=options.license,
        language=options.language,
        allow_rocstories=options.allow_rocstories,
        repo_id=repo_id,
        markup=CardMarkup(as_text, before=(HINT, BEGIN), behind=(END,), write=write_card),
    )
    counts = ", ".join(f"{count:,} {split}" for split, count in built.stories.items())
    say(f"wrote {built.output_dir}: {counts} stories as {' and '.join(built.configurations)}, and README.md")
    if where is None:
        say(f"next: load_dataset({str(built.output_dir)!r}), or {PROGRAM} train --data {built.output_dir}")
    else:
        from training.publishing.push import push_folder

        say_where(push_folder(built.output_dir, where, repo_type="dataset", report=say), where, "dataset")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuses a licence or language that the Hub would reject.

    Raises:
        UserError: naming the flag.
    """
    if options.license is not None:
        check_licence("--license", options.license)
    for code in options.language:
        check_language("--language", code)


def _checked_target(where: Publication, options: argparse.Namespace) -> str:
    """The full id of the repository, if these stories may be pushed there.

    Raises:
        UserError: if they may not.
        PushFailed: if the Hub does not answer.
    """
    from dataset_builder import check_public_push, check_push_of_rocstories
    from training.publishing.push import check_publication

    check_push_of_rocstories(options.data, allow_rocstories=options.allow_rocstories)
    repo_id = check_publication(where, "dataset")
    if _will_be_public(where, repo_id):
        check_public_push(options.data, license=options.license)
    return repo_id


def _will_be_public(where: Publication, repo_id: str) -> bool:
    """Whether the repository is public; `--private` does not change one that exists."""
    from huggingface_hub import HfApi

    from training.publishing.push import PushFailed, is_public
    from training.system.hub_errors import first_line

    if where.private:  # a public one has been refused
        return False
    try:
        return is_public(HfApi(token=where.token), repo_id, "dataset") is not False
    except Exception as error:
        raise PushFailed(f"cannot push to {repo_id}: {first_line(error)}") from error
