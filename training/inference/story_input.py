"""The input of the commands that read texts as they are given."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from itertools import chain

from dataset_builder import BadRecord, Story, UserError, files_in_folder, read_stories
from training.system.console import complain


def input_files(path: str) -> list[str]:
    """The files of a folder, or the one file."""
    return files_in_folder(path) if os.path.isdir(path) else [path]


def input_records(
    path: str | None, *, split_sentences: str | None = None, group_by: str | None = None
) -> Iterator[Story | BadRecord]:
    """The stories of a file, a folder or standard input, and bad records at their positions.

    Args:
        path: file or folder; None for text from standard input.
        split_sentences, group_by: as in `read_stories`.

    Raises:
        UserError: a file cannot be read or has no story.
    """
    if path is not None and os.path.isdir(path):
        files = files_in_folder(path)
        return chain.from_iterable(
            input_records(file, split_sentences=split_sentences, group_by=group_by) for file in files
        )
    errors: list[BadRecord] = []
    if path is None and sys.stdin.isatty():
        complain("type one sentence per line, with a blank line between stories; Ctrl-D ends the input")
    stories = read_stories(
        sys.stdin if path is None else path,
        as_given=True,
        on_error=errors.append,
        split_sentences=split_sentences,
        group_by=group_by,
    )
    return _merged(stories, errors, path)


def _merged(stories: Iterable[Story], errors: list[BadRecord], path: str | None) -> Iterator[Story | BadRecord]:
    """Raises UserError for an input without a story; standard input may be empty."""
    some = False
    for story in stories:
        yield from errors
        errors.clear()
        yield story
        some = True
    if not some and errors:
        others = f"; the other {len(errors) - 1:,} records have errors as well" if len(errors) > 1 else ""
        raise UserError(f"{errors[0]}{others}")
    if not some and path is not None:
        raise UserError(f"no stories in {path}")
    yield from errors
