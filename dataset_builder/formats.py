"""The file formats: each reader turns an open file into `(row, fields)` pairs, one record at a time.

A reader never raises for bad content: it yields a `BadRecord` in the place of the record, so that whoever wants
to can go on with the next one. Nothing but the end of a line is ever cut off a sentence.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import IO, Any

from .parquet_limits import ROWS_AT_ONCE, TooLarge, bounded, repeated_columns
from .records import ROC_SENTENCES, did_you_mean_column, missing_sentence_columns, sentence_columns
from .story import BadRecord

Record = tuple[int, dict[str, Any]]
ROC_HEADER = ",".join(("storyid", "storytitle", *ROC_SENTENCES))


class Lines:
    """The lines of an open file, decoded one by one: a byte that is no UTF-8 costs its line, not the file.

    Not a generator, because a generator ends with the first exception it raises.
    """

    def __init__(self, stream: IO[Any], file: str) -> None:
        self.file = file
        self.number = 0
        self._stream = stream
        self._offset = 0

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline()
        if not line:
            raise StopIteration
        self.number += 1
        start, self._offset = self._offset, self._offset + len(line)
        if isinstance(line, bytes):
            try:
                line = line.decode("utf-8")
            except UnicodeDecodeError as error:
                reason = f"not UTF-8: byte 0x{line[error.start]:02x} at offset {start + error.start} of the file"
                raise BadRecord(self.file, self.number, f"{reason}; save the file as UTF-8") from None
        return line.removeprefix("\ufeff") if self.number == 1 else line

    def without_ends(self) -> Iterator[tuple[int, str | BadRecord]]:
        """Row and text of each line without its line end, or the error in its place."""
        while True:
            try:
                line = next(self)
            except StopIteration:
                return
            except BadRecord as error:
                yield self.number, error
                continue
            yield self.number, line.removesuffix("\n").removesuffix("\r")


def csv_records(lines: Lines) -> Iterator[Record | BadRecord]:
    """ROCStories CSV, winter 2017 and spring 2016 alike: storyid, storytitle, sentence1 … sentence5."""
    return _table_records(lines.file, _csv_rows(lines))


def _csv_rows(lines: Lines) -> Iterator[tuple[int, list[str]] | BadRecord]:
    reader = csv.reader(lines, strict=True)
    while True:
        row = lines.number + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except BadRecord as error:
            yield error
        except csv.Error as error:
            yield BadRecord(lines.file, row, f"not valid CSV: {error}; is a quotation mark open or not doubled?")
        else:
            if fields:
                yield row, fields


def tsv_records(lines: Lines) -> Iterator[Record | BadRecord]:
    """Ordered sentences, one story a line; or, with a header row, the ROCStories layout. Quotes are plain text."""
    rows = _tsv_rows(lines)
    first = next(rows, None)
    if first is None:
        return
    if not isinstance(first, BadRecord) and _looks_like_header(first[1]):
        yield from _table_records(lines.file, chain([first], rows))
        return
    for item in chain([first], rows):
        yield item if isinstance(item, BadRecord) else (item[0], {"sentences": item[1]})


def _looks_like_header(fields: list[str]) -> bool:
    columns = set(map(_column_name, fields))
    return len(columns.intersection({"storyid", "storytitle"}).union(sentence_columns(columns))) >= 2


def _tsv_rows(lines: Lines) -> Iterator[tuple[int, list[str]] | BadRecord]:
    for row, line in lines.without_ends():
        if isinstance(line, BadRecord):
            yield line
        elif line.strip():
            yield row, line.split("\t")


def _column_name(field: str) -> str:
    """`Sentence 1`, `sentence_1` and `sentence1` are the same column."""
    return re.sub(r"[\s_-]+", "", field).lower()


def _table_records(file: str, rows: Iterator[tuple[int, list[str]] | BadRecord]) -> Iterator[Record | BadRecord]:
    header = next(rows, None)
    if header is None:
        yield BadRecord(file, None, f"the file is empty; its first row should be the header {ROC_HEADER}")
        return
    if isinstance(header, BadRecord):
        yield header
        return
    columns = [_column_name(field) for field in header[1]]
    missing = missing_sentence_columns(columns)
    if missing:
        yield BadRecord(file, header[0], _what_is_wrong_with(header[1], columns, missing))
        return
    names = sentence_columns(columns)
    for item in rows:
        if isinstance(item, BadRecord):
            yield item
            continue
        row, fields = item
        if len(fields) != len(columns):
            yield BadRecord(file, row, f"{len(fields)} fields, where the header has {len(columns)}")
            continue
        cells = dict(zip(columns, fields, strict=True))
        blank = next((name for name in names if not cells[name].strip()), None)
        if blank:
            yield BadRecord(file, row, f"column '{blank}' is empty")
            continue
        record: dict[str, Any] = {name: cells.get(name) for name in ("storyid", "storytitle")}
        record["sentences"] = [cells[name] for name in names]
        yield row, record


def _what_is_wrong_with(header: list[str], columns: list[str], missing: list[str]) -> str:
    """A header that is not there at all silently costs the first story: say so rather than «column missing»."""
    known = {"storyid", "storytitle", *ROC_SENTENCES}.intersection(columns)
    if not known and sum(" " in field.strip() for field in header) >= 3:
        return f"the header row is missing, the first row is already a story; put {ROC_HEADER} above it"
    if len(header) == 1 and ("\t" in header[0] or ";" in header[0]):
        return f"no commas in the first row ({ROC_HEADER} is expected); with tabs between fields, name the file .tsv"
    found = ", ".join(field if len(field) <= 30 else field[:30] + "…" for field in header[:10])
    hint = did_you_mean_column(missing[0], [column for column in columns if column not in ROC_SENTENCES])
    return f"column(s) missing: {', '.join(missing)} (the first row has: {found}){hint}"


def jsonl_records(lines: Lines) -> Iterator[Record | BadRecord]:
    """JSON Lines: `{"sentences": [...]}`, with `labels` if shuffled, or ReBART's `shuf_sents` and `orig_sents`."""
    for row, line in lines.without_ends():
        if isinstance(line, BadRecord):
            yield line
            continue
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield BadRecord(lines.file, row, f"not a line of JSON: {error}")
            continue
        if isinstance(record, dict):
            yield row, record
        else:
            yield BadRecord(lines.file, row, 'not a JSON object; {"sentences": [...]} is expected on each line')


def text_records(lines: Lines) -> Iterator[Record | BadRecord]:
    """Plain text: a sentence a line, a blank line between stories. A bad line costs its whole story."""
    sentences: list[str] = []
    start, broken = 0, False
    for row, line in lines.without_ends():
        if isinstance(line, BadRecord):
            yield line
            broken = True
        elif line.strip():
            start = start if sentences else row
            sentences.append(line)
        else:
            if sentences and not broken:
                yield start, {"sentences": sentences}
            sentences, broken = [], False
    if sentences and not broken:
        yield start, {"sentences": sentences}


def parquet_records(stream: IO[bytes], file: str) -> Iterator[Record | BadRecord]:
    """Parquet: `sentences` in true order, or shuffled with `labels` beside; the columns of JSON Lines serve too."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        # A buffer, and no pre-buffering: otherwise a file written as one row group is read whole.
        table = pq.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 16)
        columns = parquet_columns(table.schema_arrow.names, file)
        if isinstance(columns, BadRecord):
            yield columns
            return
        if repeated := repeated_columns(table.metadata, columns):
            table = pq.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 16, read_dictionary=repeated)
        for batch in table.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns):
            for part in bounded(batch):
                for record in part.to_pylist():
                    row += 1
                    yield row, record
    except TooLarge as error:
        yield BadRecord(file, row + 1 if row else None, str(error))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if getattr(error, "errno", None):  # the disk, not the content
            raise
        yield BadRecord(file, row + 1 if row else None, f"not readable as Parquet: {error}")


def parquet_columns(names: list[str], file: str) -> list[str] | BadRecord:
    """The columns, of those that there are, which a story is read from; or what is wrong if none has sentences."""
    known = {"storyid", "storytitle", "sentences", "labels", "shuf_sents", "orig_sents", *sentence_columns(names)}
    columns = [name for name in names if name in known]
    if known.difference({"storyid", "storytitle", "labels", "orig_sents"}).intersection(columns):
        return columns
    hint = did_you_mean_column("sentences", names)
    return BadRecord(file, None, f"column 'sentences' is missing (found: {', '.join(names)}){hint}")


LINE_FORMATS: dict[str, Callable[[Lines], Iterator[Record | BadRecord]]] = {
    "csv": csv_records,
    "tsv": tsv_records,
    "jsonl": jsonl_records,
    "text": text_records,
}
SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".parquet": "parquet", ".txt": "text"}


def records_of(stream: IO[Any], file: str, file_format: str) -> Iterator[Record | BadRecord]:
    """The records of an open file in one of the formats that `SUFFIXES` names."""
    if file_format == "parquet":
        return parquet_records(stream, file)
    return LINE_FORMATS[file_format](Lines(stream, file))
