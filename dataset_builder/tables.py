"""CSV and TSV: one story in each row."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import chain, zip_longest

from .json_formats import NOTEBOOK_ORDERS, notebook_records
from .line_formats import Lines, Record, Records
from .story import (
    CLOZE_COLUMNS,
    CLOZE_SENTENCES,
    ROC_SENTENCES,
    TEXT_COLUMNS,
    BadRecord,
    hint_at_splitting,
    is_blank,
    missing_sentence_columns,
    plain_name,
    sentence_columns,
    similar_column,
    text_column,
    without_blank_end,
)

Rows = Iterator[tuple[int, list[str]] | BadRecord]
ROC_HEADER = ",".join(("storyid", "storytitle", *ROC_SENTENCES))
_LONGEST_RECORD = 1 << 17  # characters; the csv module has the same limit for a field
_ENCLOSED = r'"(?:[^"]++|"")*+"'
_FIELD = rf'(?:{_ENCLOSED}|[^"\t]*+)'
_QUOTED_RECORD = re.compile(rf"{_FIELD}(?:\t{_FIELD})*+")
_ENCLOSED_RECORD = re.compile(rf"{_ENCLOSED}(?:\t{_ENCLOSED})*+")
_DOUBLED = re.compile(r'"[^"]*+""(?:[^"]++|"")*+"')
_DOUBLED_FIELD = re.compile(rf"(?:^|\t){_DOUBLED.pattern}(?=\t|$)")


def csv_records(lines: Lines, *, prose: bool = False, group_by: str | None = None) -> Records:
    """ROCStories CSV of winter 2017 or spring 2016, or any columns sentence1 … sentenceN; and as `story_from_record`.

    Args:
        lines: the lines of the file.
        prose: whether a column of prose is split into sentences.
        group_by: a column to keep in addition, if there is one of this name.
    """
    return _table_records(lines.file, _csv_rows(lines), prose, group_by)


def tsv_records(lines: Lines, *, prose: bool = False, group_by: str | None = None) -> Records:
    """Ordered sentences, one story in each line; or, with a header row, the same columns as in CSV.

    Args:
        lines: the lines of the file.
        prose: whether a single field is a text to split into sentences.
        group_by: as in `csv_records`.
    """
    quoted = _is_quoted(lines)
    rows = _csv_rows(lines, delimiter="\t") if quoted else _tsv_rows(lines)
    first = next(rows, None)
    if first is None:
        return
    if not isinstance(first, BadRecord) and _looks_like_header(first[1]):
        yield from _table_records(lines.file, chain([first], rows), prose, group_by)
        return
    for item in chain([first], rows):
        if isinstance(item, BadRecord):
            yield item
        elif not all(map(is_blank, item[1])):
            fields = without_blank_end(item[1])
            yield item[0], {"text": fields[0]} if prose and len(fields) == 1 else {"sentences": fields}


def _csv_rows(lines: Lines, delimiter: str = ",") -> Rows:
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
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


def _tsv_rows(lines: Lines) -> Rows:
    for row, line in lines.without_ends():
        if isinstance(line, BadRecord):
            yield line
        elif not is_blank(line):
            fields = line.split("\t")
            yield row, [_without_quotes(field) for field in fields] if '""' in line else fields


def _without_quotes(field: str) -> str:
    """Pandas and spreadsheets write `He said "no".` as `"He said ""no""."`; any other field stays as it is."""
    return field[1:-1].replace('""', '"') if _DOUBLED.fullmatch(field) else field


def _is_quoted(lines: Lines) -> bool:
    """Whether a TSV file is quoted like CSV. The whole file decides, because a single field can be read both ways.

    Each field that contains a quotation mark must be enclosed in them and double its own, and either some field has
    doubled ones or all fields are enclosed. Plain text with dialogue fails the first condition (`"Go," he said.`) or
    has no doubled marks.
    """
    ahead = lines.look_ahead()
    if ahead is None:
        return False
    try:
        return _follows_quoting(ahead)
    finally:
        lines.rewind()


def _follows_quoting(lines: Lines) -> bool:
    doubled, all_enclosed, record = False, True, ""
    for _, line in lines.without_ends():
        if isinstance(line, BadRecord) or not (record or line):
            continue
        record = f"{record}\n{line}" if record else line
        if record.count('"') % 2 and len(record) < _LONGEST_RECORD:
            continue  # a field that goes on in the next line
        if '"' in record:
            if not _QUOTED_RECORD.fullmatch(record):
                return False
            doubled = doubled or _DOUBLED_FIELD.search(record) is not None
        all_enclosed = all_enclosed and _ENCLOSED_RECORD.fullmatch(record) is not None
        record = ""
    return not record and (doubled or all_enclosed)


def _looks_like_header(fields: list[str]) -> bool:
    columns = set(map(plain_name, fields))
    known = columns.intersection({"storyid", "storytitle", *TEXT_COLUMNS, *CLOZE_COLUMNS})
    return len(known.union(sentence_columns(columns))) >= 2


def _table_records(file: str, rows: Rows, prose: bool, group_by: str | None) -> Records:
    header = next(rows, None)
    if header is None:
        yield BadRecord(file, None, f"the file is empty; its first row should be the header {ROC_HEADER}")
        return
    if isinstance(header, BadRecord):
        yield header
        return
    columns = [plain_name(field) for field in header[1]]
    if columns == NOTEBOOK_ORDERS:
        yield from notebook_records(rows, file)
        return
    wrong = _what_is_wrong_with(header[1], columns, prose)
    if wrong:
        yield BadRecord(file, header[0], wrong)
        return
    names, group = sentence_columns(columns), plain_name(group_by or "")
    for item in rows:
        if isinstance(item, BadRecord):
            yield item
        elif not all(map(is_blank, item[1])) and not _is_header_again(item[1], columns):
            record = _record_of_row(file, *item, columns, names)
            if names and group in columns and not isinstance(record, BadRecord):
                record[1].setdefault(group, "".join(item[1][columns.index(group) :][:1]))
            yield record


def _is_header_again(fields: list[str], columns: list[str]) -> bool:
    """Whether this is the header of a second file, concatenated to the first."""
    return plain_name(fields[0]) == columns[0] and [plain_name(field) for field in fields] == columns


def _record_of_row(file: str, row: int, fields: list[str], columns: list[str], names: list[str]) -> Record | BadRecord:
    """A row as a record. Missing cells at the end of a row count as empty, and empty cells there end the story."""
    if not all(map(is_blank, fields[len(columns) :])):
        return BadRecord(file, row, f"{len(fields)} fields, but the header has {len(columns)}")
    cells = dict(zip_longest(columns, fields[: len(columns)], fillvalue=""))
    if not names:
        return row, cells
    sentences = without_blank_end([cells[name] for name in names])
    for name, sentence in zip(names, sentences, strict=False):
        if is_blank(sentence):
            return BadRecord(file, row, f"column '{name}' is empty")
    return row, {"storyid": cells.get("storyid"), "storytitle": cells.get("storytitle"), "sentences": sentences}


def _what_is_wrong_with(header: list[str], columns: list[str], prose: bool) -> str:
    """Why the first row cannot be the header; empty if it can."""
    known = {"storyid", "storytitle", *sentence_columns(columns), *TEXT_COLUMNS, *CLOZE_COLUMNS}.intersection(columns)
    twice = [name for name in sorted(known) if columns.count(name) > 1]
    if twice:
        return f"the header names {' and '.join(map(repr, twice))} twice; rename or remove one of the columns"
    missing = missing_sentence_columns(columns)
    if not missing or set(CLOZE_SENTENCES) <= known:
        return ""
    text = None if sentence_columns(columns) else text_column(columns)
    if text is not None:
        return "" if prose else f"column(s) missing: {', '.join(missing)}{hint_at_splitting(text)}"
    # Without a header the first story would be lost: a message of its own instead of "column missing".
    if not known and sum(" " in field.strip() for field in header) >= 3:
        return f"the header row is missing, the first row is a story; insert {ROC_HEADER} above it"
    if len(header) == 1 and ("\t" in header[0] or ";" in header[0]):
        return f"no commas in the first row ({ROC_HEADER} is expected); with tabs between fields, name the file .tsv"
    found = ", ".join(field if len(field) <= 30 else field[:30] + "…" for field in header[:10])
    hint = similar_column(missing[0], [column for column in columns if column not in known])
    return f"column(s) missing: {', '.join(missing)} (the first row has: {found}){hint}"
