"""The file formats: each reader turns an open file into `(row, fields)` pairs, one record at a time.

A reader never raises for bad content: it yields a `BadRecord` in the place of the record, so that whoever wants
to can go on with the next one. Nothing but the end of a line is ever cut off a sentence.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

from .lines import Lines, is_blank
from .parquet_limits import ROWS_AT_ONCE, TooLarge, bounded, repeated_columns
from .records import did_you_mean_column, sentence_columns
from .story import BadRecord
from .tables import Record, csv_records, tsv_records


def jsonl_records(lines: Lines) -> Iterator[Record | BadRecord]:
    """JSON Lines: `{"sentences": [...]}`, with `labels` if shuffled, or ReBART's `shuf_sents` and `orig_sents`."""
    for row, line in lines.without_ends():
        if isinstance(line, BadRecord):
            yield line
            continue
        if is_blank(line):
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
        elif not is_blank(line):
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
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        return BadRecord(file, None, f"the file has the column {twice[0]!r} twice; rename or remove one of them")
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
    if isinstance(stream, io.IOBase) and not isinstance(stream, (io.RawIOBase, io.BufferedIOBase, io.TextIOBase)):
        stream = io.BufferedReader(cast(io.RawIOBase, stream))  # a file of fsspec, whose `readline` takes no size
    return LINE_FORMATS[file_format](Lines(stream, file))
