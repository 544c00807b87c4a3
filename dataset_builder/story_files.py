"""Files of stories: the supported formats, what a file's name says of its split, and reading one story at a time."""

from __future__ import annotations

import difflib
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import IO, Any, cast

from .errors import UserError
from .line_formats import Lines, Records, jsonl_records, text_records
from .parquet_format import parquet_records
from .story import BadRecord, SingleSentence, Story, story_from_record
from .tables import csv_records, tsv_records

OnError = Callable[[BadRecord], None]
SPLITS = ("train", "validation", "test")
SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".parquet": "parquet", ".txt": "text"}
_LINE_FORMATS: dict[str, Callable[[Lines], Records]] = {
    "csv": csv_records,
    "tsv": tsv_records,
    "jsonl": jsonl_records,
    "text": text_records,
}
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
_NOT_DATA = {"readme", "license", "licence", "notice", "requirements"}


def read_stories(
    source: str | os.PathLike[str] | IO[Any],
    *,
    as_given: bool = False,
    on_error: OnError | None = None,
    file_format: str | None = None,
    name: str | None = None,
) -> Iterator[Story]:
    """The stories of a file or an open stream, one by one, in the order of the file.

    Memory is constant: a record is released when the next is requested. Sentences keep their white space; only the line
    end is removed (and a byte order mark at the start of the file).

    Args:
        source: a path (or an fsspec URL), or a stream open for reading: bytes as UTF-8, or text.
        as_given: keep the sentences in the order of the file instead of their true order; one or none is accepted.
        on_error: called with each bad record, after which reading continues; without it, the first one is raised.
        file_format: one of `csv`, `tsv`, `jsonl`, `parquet`, `text`; the suffix of the path by default, `text` for a
            stream.
        name: name of the source, for messages and made-up ids; the path by default, `stdin` for a stream.

    Raises:
        BadRecord: a record is not a story; the message states file, row and reason.
        UserError: the file does not exist or its format is unknown, raised at once; or it may not be read, raised when
            it is opened.
    """
    if not isinstance(source, (str, os.PathLike)):
        stream = getattr(source, "buffer", source)  # the bytes of a text stream, to locate one that is not UTF-8
        name = name or "stdin"
        return _stories(_records(stream, name, file_format or "text"), name, as_given, on_error)
    path = os.fspath(source)
    name = name or path
    file_format = file_format or format_of_name(name)
    if "://" not in path and not os.path.isfile(path):
        _check_special(path, file_format)
    return _stories(read_records(path, name, file_format), name, as_given, on_error)


class Skipped:
    """An `on_error` that counts the records of a single sentence, and raises any other error."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: BadRecord) -> None:
        """Counts or raises."""
        if not isinstance(error, SingleSentence):
            raise error
        self.count += 1


def read_records(path: str, name: str, file_format: str | None = None) -> Records:
    """The records of a file before they are made stories: `(row, fields)`, or the error."""
    with open_bytes(path) as stream:
        yield from _records(stream, name, file_format or format_of_name(name))


def open_bytes(path: str) -> IO[bytes]:
    """A file on disk, or at an fsspec URL; UserError if it may not be read."""
    if "://" in path:
        import fsspec

        return fsspec.open(path, "rb").open()
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _records(stream: IO[Any], file: str, file_format: str) -> Records:
    if file_format == "parquet":
        return parquet_records(stream, file)
    if isinstance(stream, io.IOBase) and not isinstance(stream, (io.RawIOBase, io.BufferedIOBase, io.TextIOBase)):
        stream = io.BufferedReader(cast(io.RawIOBase, stream))  # `readline` of an fsspec file takes no size
    return _LINE_FORMATS[file_format](Lines(stream, file))


def _stories(records: Records, name: str, as_given: bool, on_error: OnError | None) -> Iterator[Story]:
    for item in records:
        try:
            if isinstance(item, BadRecord):
                raise item
            story = story_from_record(item[1], file=name, row=item[0], as_given=as_given)
        except BadRecord as error:
            if on_error is None:
                raise
            on_error(error)
        else:
            yield story


def split_of_name(name: str) -> str | None:
    """The split in the name of a file or a split, as on the Hub: `train.csv`, `roc-valid.tsv`, `dev`.

    None if the name contains none, or several.
    """
    words = re.split(r"[^a-z]+", PurePath(name).stem.lower())
    found = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
    return found.pop() if len(found) == 1 else None


def format_of_name(name: str) -> str:
    """The format of a file by its suffix; ValueError for an unknown one."""
    suffix = PurePath(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{name}: no reader for {suffix or 'a file without a suffix'}; supported are {supported()}")
    return SUFFIXES[suffix]


def supported() -> str:
    """The supported suffixes, for messages."""
    return ", ".join(SUFFIXES)


def files_in_folder(folder: str) -> list[str]:
    """Paths of the supported files in a folder (not in folders below it), sorted by name.

    Hidden files, README and LICENSE are not data.

    Raises:
        UserError: there are none.
    """
    names = sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_file()
        and PurePath(entry.name).suffix.lower() in SUFFIXES
        and not entry.name.startswith((".", "_"))
        and PurePath(entry.name).stem.lower() not in _NOT_DATA
    )
    if not names:
        raise UserError(f"{folder}: no file of stories in this folder; supported are {supported()}")
    return [os.path.join(folder, name) for name in names]


def _check_special(path: str, file_format: str) -> None:
    """Raises UserError for what is not a file, except a named pipe with a format that is read from the beginning."""
    if os.path.isdir(path):
        raise UserError(f"{path}: a folder, where a file is expected")
    special = special_file(path)
    if special is None:
        raise UserError(f"{path}: no such file{did_you_mean(path)}")
    if special != "a named pipe":
        raise UserError(f"{path}: {special}, which cannot be read as a file of stories")
    if file_format == "parquet":
        raise UserError(f"{path}: a named pipe, but Parquet is not read from its beginning: write it to a file first")


def special_file(path: str) -> str | None:
    """The kind of a path that is neither a file nor a folder, in words; None for these and for a missing path."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    kinds = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"))
    return next((words for is_kind, words in (*kinds, (stat.S_ISBLK, "a device")) if is_kind(mode)), None)


def did_you_mean(path: str) -> str:
    """A hint for the message that a path does not exist: the most similar name in its folder; empty if none is."""
    folder, name = os.path.split(path)
    try:
        present = [] if os.path.lexists(path) else os.listdir(folder or ".")
    except OSError:
        return ""
    close = difflib.get_close_matches(name, present, n=1, cutoff=0.7)
    return f"; did you mean {os.path.join(folder, close[0])}?" if close else ""
