"""Files of stories: the supported formats, what a file's name says of its split, and reading one story at a time."""

from __future__ import annotations

import difflib
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import IO, Any, NamedTuple, cast

from .errors import UserError
from .json_formats import json_records
from .line_formats import Lines, Records, joins_sentences, jsonl_records, text_records
from .parquet_format import parquet_records
from .sentence_splitting import SentenceSplitter, splitter_of
from .story import BadRecord, SingleSentence, Story, story_from_record
from .tables import csv_records, tsv_records
from .unpacking import COMPRESSIONS, UnpackingError, split_compression, unpacked, zip_member

OnError = Callable[[BadRecord], None]
SPLITS = ("train", "validation", "test")


class Format(NamedTuple):
    """A file format.

    Attributes:
        title: its name for cards.
        suffixes: of its files, in lower case.
        records: yields the records of an open stream; called with the stream, the file's name for messages, `prose`
            (whether texts are split into sentences) and `group_by` (a column to read in addition, or None).
    """

    title: str
    suffixes: tuple[str, ...]
    records: Callable[..., Records]


def _of_table(reader: Callable[..., Records]) -> Callable[..., Records]:
    return lambda stream, file, **options: reader(_lines(stream, file), **options)


FORMATS = {
    "csv": Format("CSV", (".csv",), _of_table(csv_records)),
    "tsv": Format("TSV", (".tsv",), _of_table(tsv_records)),
    "jsonl": Format("JSON Lines", (".jsonl",), lambda stream, file, **_: jsonl_records(_lines(stream, file))),
    "parquet": Format("Parquet", (".parquet",), parquet_records),
    "text": Format("text", (".txt",), lambda stream, file, prose, **_: text_records(_lines(stream, file), prose=prose)),
    "json": Format("JSON", (".json", ".ipynb"), lambda stream, file, **_: json_records(stream, file)),
}
SUFFIXES = {suffix: name for name, file_format in FORMATS.items() for suffix in file_format.suffixes}
# Two ends of sentences within a line, each followed by a word that begins another one.
_THREE_SENTENCES = re.compile(r"(?:[.!?][\"'”’»)]*\s+[\"'“‘«(]*[^\W\da-z].*){2}", re.DOTALL)
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
    split_sentences: str | None = None,
    group_by: str | None = None,
) -> Iterator[Story]:
    """The stories of a file or an open stream, one by one, in the order of the file.

    Memory is constant: a record is released when the next is requested. Sentences keep their white space; only the line
    end is removed (and a byte order mark at the start of the file).

    Args:
        source: a path (or an fsspec URL), of a file that may be compressed (see `unpacking`), or an open stream: bytes
            as UTF-8, or text.
        as_given: keep the sentences in the order of the file instead of their true order; one or none is accepted.
        on_error: called with each bad record, after which reading continues; without it, the first one is raised.
        file_format: `csv`, `tsv`, `jsonl`, `json`, `parquet` or `text`; the suffix of the path by default, `text` for a
            stream.
        name: name of the source, for messages and made-up ids; the path by default, `stdin` for a stream.
        split_sentences: language of prose to split into sentences, such as `en`: of text files, and of a column `text`,
            `abstract` or `story` where a record has no sentences. Needs the extra `split`.
        group_by: column whose value becomes `Story.group`, such as a genre.

    Raises:
        BadRecord: a record is not a story; the message states file, row and reason.
        UserError: `group_by` is given for text; the file does not exist or its format is unknown, raised at once; or
            it may not be read, raised when it is opened.
    """
    if file_format not in (None, *FORMATS):
        raise UserError(f"unknown file_format {file_format!r}; choose from {', '.join(FORMATS)}")
    reading = _Reading(as_given, on_error, splitter_of(split_sentences), group_by)
    if not isinstance(source, (str, os.PathLike)):
        stream = getattr(source, "buffer", source)  # the bytes of a text stream, to locate one that is not UTF-8
        name, file_format = name or "stdin", file_format or "text"
        records = FORMATS[file_format].records(stream, name, prose=reading.prose, group_by=group_by)
        return reading.stories(records, name, file_format)
    path = os.fspath(source)
    name = name or path
    if "://" not in path and not os.path.isfile(path):
        _check_path(path, file_format or format_of_name(name))
    file_format = file_format or format_of_file(name, path)
    records = read_records(path, name, file_format, prose=reading.prose, group_by=group_by)
    return reading.stories(records, name, file_format)


class Skipped:
    """An `on_error` that counts the records of a single sentence, and raises any other error."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: BadRecord) -> None:
        """Counts or raises."""
        if not isinstance(error, SingleSentence):
            raise error
        self.count += 1


def read_records(
    path: str, name: str, file_format: str | None = None, *, prose: bool = False, group_by: str | None = None
) -> Records:
    """The records of a file before they are made stories: `(row, fields)`, or the error.

    Args:
        path: a path, or an fsspec URL.
        name: for messages and the suffixes.
        file_format: as in `read_stories`.
        prose: whether texts are split into sentences.
        group_by: a column to read in addition.
    """
    file_format = file_format or format_of_file(name, path)
    with open_bytes(path) as stream:
        try:
            compression = split_compression(name)[1]
            content = unpacked(stream, compression) if compression else stream
            yield from FORMATS[file_format].records(content, name, prose=prose, group_by=group_by)
        except UnpackingError as error:
            yield BadRecord(name, None, str(error))


def open_bytes(path: str) -> IO[bytes]:
    """A file on disk, or at an fsspec URL; UserError if it may not be read."""
    if "://" in path:
        import fsspec

        return fsspec.open(path, "rb").open()
    try:
        return open(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _lines(stream: IO[Any], file: str) -> Lines:
    if isinstance(stream, io.IOBase) and not isinstance(stream, (io.RawIOBase, io.BufferedIOBase, io.TextIOBase)):
        stream = io.BufferedReader(cast(io.RawIOBase, stream))  # `readline` of an fsspec file takes no size
    return Lines(stream, file)


@dataclass(frozen=True)
class _Reading:
    """How records become stories; see `read_stories`."""

    as_given: bool
    on_error: OnError | None
    splitter: SentenceSplitter | None
    group_by: str | None = None

    @property
    def prose(self) -> bool:
        return self.splitter is not None

    def stories(self, records: Records, name: str, file_format: str) -> Iterator[Story]:
        if self.group_by is not None and file_format == "text":
            raise UserError(f"{name}: text has no column '{self.group_by}'; use CSV, JSON Lines or Parquet")
        for item in records:
            try:
                if isinstance(item, BadRecord):
                    raise item
                story = story_from_record(
                    item[1],
                    file=name,
                    row=item[0],
                    as_given=self.as_given,
                    splitter=self.splitter,
                    group_by=self.group_by,
                )
                if file_format == "text" and not self.as_given and not self.prose:
                    _check_lines(story)
            except BadRecord as error:
                if self.on_error is None:
                    raise
                self.on_error(error)
            else:
                yield story


def _check_lines(story: Story) -> None:
    """Refuses lines that are stories: joined sentences, or three or more lines of three or more sentences each."""
    if any(map(joins_sentences, story.sentences)):
        raise BadRecord(story.file, story.row, "sentences joined with <eos>, but the first line of the file has none")
    if len(story.sentences) > 2 and all(map(_THREE_SENTENCES.search, story.sentences)):
        reason = (
            "every line has several sentences; if each is a story, add --split_sentences LANG (in Python "
            "split_sentences=LANG); to order paragraphs, use JSON Lines"
        )
        raise BadRecord(story.file, story.row, reason)


def split_of_name(name: str) -> str | None:
    """The split in the name of a file or a split, as on the Hub: `train.csv`, `roc-valid.tsv`, `dev`.

    None if the name contains none, or several.
    """
    words = re.split(r"[^a-z]+", PurePath(split_compression(name)[0]).stem.lower())
    found = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
    return found.pop() if len(found) == 1 else None


def format_of_name(name: str) -> str:
    """The format of a file by its suffixes; the last may be one of `COMPRESSIONS`.

    Raises:
        UserError: the suffix is unknown, the file is compressed Parquet, or the format of what is in a ZIP archive is
            not in its name.
    """
    plain, compression = split_compression(name)
    suffix = PurePath(plain).suffix.lower()
    if suffix not in SUFFIXES:
        what = f"{suffix or 'a file without a suffix'}{f' in {compression}' if compression else ''}"
        raise UserError(f"{name}: no reader for {what}; supported are {supported()}")
    if compression and suffix == ".parquet":
        raise UserError(f"{name}: Parquet is not read from compressed files: unpack it")
    return SUFFIXES[suffix]


def format_of_file(name: str, path: str) -> str:
    """As `format_of_name`; the name of the file in a ZIP archive counts, if the archive's own has no other suffix."""
    plain, compression = split_compression(name)
    if compression != ".zip" or PurePath(plain).suffix.lower() in SUFFIXES:
        return format_of_name(name)
    try:
        with open_bytes(path) as stream:
            return format_of_name(f"{zip_member(stream)}.zip")
    except UnpackingError as error:
        raise BadRecord(name, None, str(error)) from None
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None


def supported() -> str:
    """The supported suffixes, for messages."""
    return f"{', '.join(SUFFIXES)}, also with {', '.join(COMPRESSIONS)}"


def files_in_folder(folder: str) -> list[str]:
    """Paths of the supported files in a folder (not in folders below it), sorted by name.

    Hidden files, README and LICENSE are not data; nor are JSON documents if there are other files, nor is a compressed
    file beside the same file unpacked.

    Raises:
        UserError: there are none.
    """
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_file() and _is_data(entry.name))
    # What describes the stories is often JSON, and an archive is often beside what was unpacked.
    tables = [name for name in names if PurePath(name).suffix.lower() not in (".json", ".ipynb")]
    names = [name for name in tables or names if split_compression(name)[0] not in {*names} - {name}]
    if not names:
        raise UserError(f"{folder}: no file of stories in this folder; supported are {supported()}")
    return [os.path.join(folder, name) for name in names]


def _is_data(name: str) -> bool:
    plain = PurePath(split_compression(name)[0])
    return plain.suffix.lower() in SUFFIXES and name[0] not in "._" and plain.stem.lower() not in _NOT_DATA


def _check_path(path: str, file_format: str) -> None:
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
    """The kind of a path that is neither a file nor a folder, in words. None for a file, a folder or a missing path."""
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
