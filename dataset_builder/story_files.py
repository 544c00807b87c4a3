"""Files of stories: which are supported, what their names say of a split, and what to say when one is missing."""

from __future__ import annotations

import difflib
import os
import re
import stat
from pathlib import PurePath

from .errors import UserError
from .formats import SUFFIXES

SPLITS = ("train", "validation", "test")
_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
_NO_DATA = {"readme", "license", "licence", "notice", "requirements"}


def split_of_name(name: str) -> str | None:
    """The split that a file's name (or a split's) speaks of, as on the Hub: `train.csv`, `roc-valid.tsv`, `dev`.

    None if it speaks of none, or of several.
    """
    words = re.split(r"[^a-z]+", PurePath(name).stem.lower())
    spoken_of = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
    return spoken_of.pop() if len(spoken_of) == 1 else None


def format_of_name(name: str) -> str:
    """The format of a file by its suffix; UserError if there is no reader for it."""
    suffix = PurePath(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{name}: no reader for {suffix or 'a file without a suffix'}; there are {supported()}")
    return SUFFIXES[suffix]


def supported() -> str:
    """The supported suffixes, for messages."""
    return ", ".join(SUFFIXES)


def files_in_folder(folder: str) -> list[str]:
    """Paths of the supported files directly in a folder, sorted by name; hidden files, README and LICENSE are no data.

    Raises:
        UserError: there is none.
    """
    names = sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_file()
        and PurePath(entry.name).suffix.lower() in SUFFIXES
        and not entry.name.startswith((".", "_"))
        and PurePath(entry.name).stem.lower() not in _NO_DATA
    )
    if not names:
        raise UserError(f"{folder}: no file of stories in this folder; there are readers for {supported()}")
    return [os.path.join(folder, name) for name in names]


def special_file(path: str) -> str | None:
    """What something is that is neither a file nor a folder, in words; None for these and for what is not there."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    kinds = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"))
    return next((words for is_kind, words in (*kinds, (stat.S_ISBLK, "a device")) if is_kind(mode)), None)


def nearest_name(path: str) -> str | None:
    """The path in the same folder whose name is closest to a missing one, if any is close."""
    folder, name = os.path.split(path)
    try:
        present = os.listdir(folder or ".")
    except OSError:
        return None
    close = difflib.get_close_matches(name, present, n=1, cutoff=0.7)
    return os.path.join(folder, close[0]) if close else None


def did_you_mean(path: str) -> str:
    """A hint to put behind the message that a path does not exist; empty if there is nothing to hint at."""
    near = nearest_name(path) if not os.path.lexists(path) else None
    return f"; did you mean {near}?" if near else ""
