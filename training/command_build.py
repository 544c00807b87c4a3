"""`sentence-ordering build`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from dataset_builder.build import BuiltDataset, build_dataset
from dataset_builder.rights import check_public_push, check_push_of_rocstories
from model_card.licences import check_licence

from .command_line import PROGRAM, OneLineErrors

_LANGUAGE = re.compile(r"[a-z]{2,3}|multilingual")


def _parser() -> OneLineErrors:
    parser = OneLineErrors(
        prog=f"{PROGRAM} build",
        description="Make the shuffled data set as Parquet, with its card: plain load_dataset(DIR) loads it.",
        allow_abbrev=False,
    )
    parser.add_argument("--data", required=True, nargs="+", metavar="SRC", help="stories, as for train")
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="folder to write; must be new or empty")
    parser.add_argument("--data_seed", type=int, default=42, help="seed of split and shuffles (default: 42)")
    parser.add_argument("--test_size", type=float, default=0.2, help="share held out (default: 0.2)")
    parser.add_argument("--validation_size", type=float, default=0.3, help="share of it to validate on (default: 0.3)")
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
    parser.add_argument("--push_to_hub", metavar="REPO", help="upload it to this data set repository, with the card")
    _add_push_arguments(parser)
    return parser


def _add_push_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to commit to (default: main)")
    parser.add_argument("--create_pr", action="store_true", help="open a pull request instead")
    parser.add_argument("--commit_message", metavar="TEXT", help="message of the commit")


def run(arguments: Sequence[str]) -> int:
    """Runs the command; its exit code."""
    parser = _parser()
    options = parser.parse_args(list(arguments))
    _check(parser, options)
    repo_id = None if options.push_to_hub is None else _checked_target(options)
    built = build_dataset(
        options.data,
        options.output_dir,
        seed=options.data_seed,
        test_size=options.test_size,
        validation_size=options.validation_size,
        license=options.license,
        language=options.language,
        allow_rocstories=options.allow_rocstories,
        repo_id=repo_id,
    )
    counts = ", ".join(f"{count:,} {split}" for split, count in built.stories.items())
    print(f"wrote {built.output_dir}: {counts} stories as {' and '.join(built.configurations)}, and README.md")
    if repo_id is None:
        print(f"next: load_dataset({str(built.output_dir)!r}), or {PROGRAM} train --data {built.output_dir}")
    else:
        _push(built, repo_id, options)
    return 0


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuses flags that do not go together, and licences and languages that the Hub would refuse when all is built."""
    if options.push_to_hub is None:
        for flag in ("private", "revision", "create_pr", "commit_message"):
            if getattr(options, flag):
                parser.error(f"--{flag} needs --push_to_hub REPO")
    if options.license is not None:
        check_licence("--license", options.license)
    for code in options.language:
        if not _LANGUAGE.fullmatch(code):
            parser.error(f"--language {code}: a code of two or three letters is expected, such as en, or multilingual")


def _checked_target(options: argparse.Namespace) -> str:
    """The full id of the repository, if these stories may go there.

    Raises:
        ValueError: if they may not.
        PushFailed: if the Hub cannot be asked.
    """
    from .push_target import push_target

    check_push_of_rocstories(options.data, allow_rocstories=options.allow_rocstories)
    target = push_target(options.push_to_hub, repo_type="dataset", private=options.private)
    if target.public:
        check_public_push(options.data, license=options.license)
    return target.repo_id


def _push(built: BuiltDataset, repo_id: str, options: argparse.Namespace) -> None:
    from .publishing import push_folder

    pushed = push_folder(
        built.output_dir,
        repo_id,
        repo_type="dataset",
        private=True if options.private else None,
        revision=options.revision,
        create_pr=options.create_pr,
        commit_message=options.commit_message or "Upload shuffled stories",
    )
    print(f"pushed {pushed.repo_id}: {pushed.url}")
    revision = f", revision={options.revision!r}" if options.revision else ""
    print(f"next: load_dataset({pushed.repo_id!r}{revision}), or {PROGRAM} train --data {pushed.repo_id}")
