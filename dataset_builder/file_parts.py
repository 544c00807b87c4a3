"""Parts of story files that can be read independently of each other, by several processes or after an interruption.

JSON Lines are divided at line ends and Parquet at rows. A file of any other format, or a compressed one, is one part.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from .errors import UserError
from .line_formats import Lines, Records, jsonl_records
from .parquet_format import open_parquet, parquet_records
from .sentence_splitting import splitter_of
from .story import BadRecord, Story, story_from_record
from .story_files import format_of_file, open_bytes, read_records
from .unpacking import split_compression

_Bounds = tuple[tuple[int, int], tuple[int, int] | None]
_PARTS_OF_ROW_GROUP = 64
"""The most parts of a row group: for each of them the rows before it are decoded as well."""


@dataclass(frozen=True)
class FilePart:
    """Consecutive records of a file.

    Attributes:
        path: of the file.
        name: of the file, for messages and ids.
        version: size and time of the last change, in nanoseconds, when the parts were planned.
        rows: first row, counted from 1 (in JSON Lines: line), and last row, inclusive; None: the whole file.
        span: first byte and number of bytes; JSON Lines only.
    """

    path: str
    name: str
    version: tuple[int, int]
    rows: tuple[int, int] | None = None
    span: tuple[int, int] | None = None


def plan_parts(
    path: str, rows: int, *, name: str | None = None, split_sentences: str | None = None
) -> tuple[str, list[FilePart]]:
    """The SHA-256 of a file's content, and its parts, which together have all of its records.

    Args:
        path: of the file.
        rows: lines or rows in a part; parts of large row groups are larger.
        name: see `FilePart`; the path by default.
        split_sentences: as in `read_stories`.

    Raises:
        UserError: the file cannot be read, or its format is unknown.
    """
    name = name or path
    version = _version(path)
    file_format = None if split_compression(name)[1] else format_of_file(name, path)
    with open_bytes(path) as stream:
        if file_format == "jsonl":
            digest, bounds = _lines(stream, rows)
        else:
            digest, bounds = hashlib.file_digest(stream, "sha256").hexdigest(), []  # type: ignore[arg-type]
        if file_format == "parquet":
            bounds = [(part, None) for part in _rows(stream, name, rows, prose=split_sentences is not None)]
    parts = [FilePart(os.path.abspath(path), name, version, *bound) for bound in bounds]
    return digest, parts or [FilePart(os.path.abspath(path), name, version)]


def read_part(part: FilePart, *, split_sentences: str | None = None) -> Iterator[Story | BadRecord]:
    """The stories of a part in the order of the file, and its bad records at their positions.

    Args:
        part: from `plan_parts`.
        split_sentences: as in `read_stories`.

    Raises:
        UserError: the file has changed since the parts were planned.
    """
    splitter = splitter_of(split_sentences)
    for item in _records(part, prose=splitter is not None):
        if isinstance(item, BadRecord):
            yield item
            continue
        try:
            yield story_from_record(item[1], file=part.name, row=item[0], as_given=True, splitter=splitter)
        except BadRecord as error:
            yield error
    if _version(part.path) != part.version:
        raise UserError(f"{part.name}: the file has changed while it was read: start again")


def _records(part: FilePart, *, prose: bool) -> Records:
    if part.rows is None:
        yield from read_records(part.path, part.name, prose=prose)
        return
    first, last = part.rows
    with open_bytes(part.path) as stream:
        if part.span is None:
            yield from parquet_records(stream, part.name, prose=prose, rows=part.rows)
            return
        start, size = part.span
        stream.seek(start)
        yield from jsonl_records(Lines(io.BytesIO(stream.read(size)), part.name, before=(first - 1, start)))


def _version(path: str) -> tuple[int, int]:
    try:
        there = os.stat(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    return there.st_size, there.st_mtime_ns


def _lines(stream: IO[bytes], rows: int) -> tuple[str, list[_Bounds]]:
    """SHA-256, and rows and bytes of each part; no parts if lines end with CR alone, which only `Lines` recognizes."""
    digest = hashlib.sha256()
    bounds: list[_Bounds] = []
    number = start = offset = 0
    only_cr = False
    for line in stream:
        only_cr = only_cr or (number == 0 and b"\r" in line.rstrip(b"\r\n"))
        digest.update(line)
        number, offset = number + 1, offset + len(line)
        if number % rows == 0:
            bounds.append(((number - rows + 1, number), (start, offset - start)))
            start = offset
    if offset > start:
        bounds.append(((number - number % rows + 1, number), (start, offset - start)))
    return digest.hexdigest(), [] if only_cr else bounds


def _rows(stream: IO[bytes], name: str, rows: int, *, prose: bool) -> list[tuple[int, int]]:
    """First and last row of each part of a Parquet file; empty if the file is damaged, which reading it will report."""
    try:
        metadata = open_parquet(stream, name, prose=prose)[0].metadata
    except BadRecord:
        return []
    bounds: list[tuple[int, int]] = []
    before = 0
    for group in range(metadata.num_row_groups):
        end = before + metadata.row_group(group).num_rows
        size = max(rows, -(-(end - before) // _PARTS_OF_ROW_GROUP))
        if bounds and end - bounds[-1][0] < rows:  # small row groups share a part
            bounds[-1] = (bounds[-1][0], end)
        else:
            bounds += [(first + 1, min(first + size, end)) for first in range(before, end, size)]
        before = end
    return bounds
