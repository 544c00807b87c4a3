"""Read a file of stories, one story at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from .errors import UserError
from .formats import records_of
from .records import story_from_record
from .story import BadRecord, SingleSentence, Story
from .story_files import did_you_mean, format_of_name, special_file


def read_stories(
    source: str | os.PathLike[str] | IO[Any],
    *,
    as_given: bool = False,
    on_error: Callable[[BadRecord], None] | None = None,
    file_format: str | None = None,
    name: str | None = None,
) -> Iterator[Story]:
    """The stories of a file or an open stream, one by one, in the order of the file.

    Memory is constant: a record is forgotten once the next is asked for. Sentences come as the file has them, white
    space included; only the end of a line is cut off (and a byte order mark at the start of the file).

    Args:
        source: a path (or an fsspec URL), or a stream open for reading: bytes as UTF-8, or text.
        as_given: keep the sentences in the order of the file, without asking for a true one; one or none is fine.
        on_error: is handed each bad record, and reading goes on with the next; without it, the first one is raised.
        file_format: one of `csv`, `tsv`, `jsonl`, `parquet`, `text`; by default the suffix of the path decides, and
            a stream is text.
        name: name of the source, for messages and made-up ids; the path by default, `stdin` for a stream.

    Raises:
        BadRecord: a record is no story; its message says file, row and reason.
        UserError: there is no such file, or no reader for it. Raised at once, not with the first story. Or it may not
            be read, which is seen when it is opened.
    """
    if not isinstance(source, (str, os.PathLike)):
        stream = getattr(source, "buffer", source)  # the bytes below a text stream tell where a bad one stands
        records = records_of(stream, name or "stdin", file_format or "text")
        return _stories(records, name or "stdin", as_given, on_error)
    path = os.fspath(source)
    name = name or path
    file_format = file_format or format_of_name(name)
    if "://" not in path and not os.path.isfile(path):
        _check_special(path, file_format)
    return _stories_of_file(path, name, file_format, as_given, on_error)


class Skipped:
    """An `on_error` that counts the records of a single sentence, and raises any other error."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: BadRecord) -> None:
        """Counts or raises."""
        if not isinstance(error, SingleSentence):
            raise error
        self.count += 1


def _check_special(path: str, file_format: str) -> None:
    """Raises UserError for what is not a file, unless it is a named pipe with a format that is read from the front."""
    if os.path.isdir(path):
        raise UserError(f"{path}: a folder, where a file is expected")
    special = special_file(path)
    if special is None:
        raise UserError(f"{path}: no such file{did_you_mean(path)}")
    if special != "a named pipe":
        raise UserError(f"{path}: {special}, which cannot be read as a file of stories")
    if file_format == "parquet":
        raise UserError(f"{path}: a named pipe, and Parquet is not read from its beginning: write it to a file first")


def read_records(path: str, name: str) -> Iterator[tuple[int, dict[str, Any]] | BadRecord]:
    """The records of a file as they stand in it, before they are stories: `(row, fields)`, or what is wrong."""
    with open_bytes(path) as stream:
        yield from records_of(stream, name, format_of_name(name))


def _stories_of_file(
    path: str, name: str, file_format: str, as_given: bool, on_error: Callable[[BadRecord], None] | None
) -> Iterator[Story]:
    with open_bytes(path) as stream:
        yield from _stories(records_of(stream, name, file_format), name, as_given, on_error)


def open_bytes(path: str) -> IO[bytes]:
    """A file on disk, or behind an fsspec URL; UserError if it may not be read."""
    if "://" in path:
        import fsspec

        return fsspec.open(path, "rb").open()
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _stories(
    records: Iterable[tuple[int, dict[str, Any]] | BadRecord],
    name: str,
    as_given: bool,
    on_error: Callable[[BadRecord], None] | None,
) -> Iterator[Story]:
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
