"""Writes ordered stories as text, JSONL, CSV or Parquet."""

from __future__ import annotations

import csv
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from dataset_builder import UserError
from dataset_builder.file_writing import new_file
from training.system.console import for_terminal, shortened
from training.system.output_names import check_file_name

from .ordering import OrderedStory

_LISTS = ("order", "scores", "confidence", "truncated")
OPTIONAL = ("pairwise", "layers", "moved", "coherence")
"""Keys of an answer that are written only if they are asked for."""
SUFFIXES = {".txt": "text", ".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}


def format_of(path: str) -> str:
    """The output format for a file name, by its suffix.

    Raises:
        UserError: for an unknown suffix or an impossible file name.
    """
    check_file_name("--output", path)
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"--output {path}: cannot write {suffix or 'a file without a suffix'}; choose from "
                        f"{', '.join(SUFFIXES)}")  # fmt: skip
    return SUFFIXES[suffix]


def record(answer: OrderedStory) -> dict[str, Any]:
    """An answer as JSON values: the ordered story, or `error`."""
    values: dict[str, Any] = {}
    if answer.story is not None:
        values = {"storyid": answer.story.storyid, "storytitle": answer.story.title}
    if answer.error is not None:
        return {**values, "error": shortened(answer.error)}
    values |= {"sentences": answer.sentences, "order": answer.order, "scores": answer.scores}
    if answer.confidence is not None:
        values["confidence"] = answer.confidence
    if answer.truncated:
        values["truncated"] = answer.truncated
    return values | {name: value for name in OPTIONAL if (value := getattr(answer, name)) is not None}


def write_stream(answers: Iterable[OrderedStory], stream: IO[str], output_format: str) -> None:
    """Writes each answer immediately, as text (a sentence a line, a blank line between stories) or JSONL.

    For a terminal, control characters in the sentences are escaped; files and pipes get every byte.
    """
    show = for_terminal if stream.isatty() else str
    for count, answer in enumerate(answers):
        if output_format == "jsonl":
            stream.write(show(json.dumps(record(answer), ensure_ascii=False)) + "\n")
        else:
            lines = text_lines(answer) if answer.error is None else [f"[error] {shortened(answer.error)}"]
            stream.write(("\n" if count else "") + "".join(f"{show(line)}\n" for line in lines))
        stream.flush()


def text_lines(answer: OrderedStory) -> list[str]:
    """The lines of an answer in text.

    With layers, the sentences of a layer of several are bracketed (`┌`, `│`, `└`). With moves, a sentence that moved
    is marked `↑` or `↓`, and the line it came from is stated behind it.
    """
    # In CSV, JSONL and Parquet a sentence may contain line ends.
    lines = [re.sub(r"[\r\n]+", " ", sentence) for sentence in answer.sentences]
    if answer.moved is not None:
        signs = ["  "] * len(lines)
        for position, index in enumerate(answer.order):
            if index in answer.moved:
                signs[position] = "↑ " if position < index else "↓ " if position > index else "↕ "
                lines[position] += f"  (was line {index + 1})"
        lines = [sign + line for sign, line in zip(signs, lines, strict=True)]
    if answer.layers is not None:
        brackets = [
            " " if len(layer) == 1 else "┌" if place == 0 else "└" if place == len(layer) - 1 else "│"
            for layer in answer.layers
            for place in range(len(layer))
        ]
        lines = [f"{bracket} {line}" for bracket, line in zip(brackets, lines, strict=True)]
    return lines


def write_file(answers: Iterable[OrderedStory], path: str, optional: Sequence[str] = ()) -> None:
    """Writes answers to a file in the format of its suffix, with a temporary name until it is complete.

    CSV has the columns `storyid`, `storytitle`, `sentence1` …, `order`, `scores`, `confidence`, `truncated`, the
    optional ones and `error`; the lists are JSON.

    Args:
        answers: to write.
        path: the file.
        optional: the keys of `OPTIONAL` that get columns in CSV and Parquet.
    """
    output_format = format_of(path)
    with new_file(path) as unfinished:
        if output_format == "csv":
            _write_csv(answers, str(unfinished), [*_LISTS, *optional])
        elif output_format == "parquet":
            _write_parquet(map(record, answers), str(unfinished), optional)
        else:
            with open(unfinished, "w", encoding="utf-8", newline="\n") as sink:
                write_stream(answers, sink, output_format)


def _write_csv(answers: Iterable[OrderedStory], path: str, lists: Sequence[str]) -> None:
    # The number of columns is known only at the end: until then the answers are in a temporary file.
    with tempfile.TemporaryFile("w+", encoding="utf-8", dir=os.path.dirname(path)) as buffer:
        width = 0
        for answer in answers:
            width = max(width, len(answer.sentences))
            buffer.write(json.dumps(record(answer), ensure_ascii=False) + "\n")
        buffer.seek(0)
        columns = [f"sentence{position}" for position in range(1, width + 1)]
        with open(path, "w", encoding="utf-8", newline="") as sink:
            writer = csv.DictWriter(sink, ["storyid", "storytitle", *columns, *lists, "error"], lineterminator="\n")
            writer.writeheader()
            for line in buffer:
                writer.writerow(_csv_row(json.loads(line), columns, lists))


def _csv_row(values: dict[str, Any], columns: list[str], lists: Sequence[str]) -> dict[str, Any]:
    sentences = values.pop("sentences", [])
    cells: dict[str, Any] = {key: json.dumps(values.pop(key)) for key in lists if key in values}
    return {**values, **dict(zip(columns, sentences, strict=False)), **cells}


def write_rows(rows: Iterable[Mapping[str, Any]], path: str, optional: Sequence[str] = ()) -> None:
    """Writes records with `file`, the name of their input file, and `row`, their row in it, as JSONL or Parquet."""
    with new_file(path) as unfinished:
        if format_of(path) == "parquet":
            _write_parquet(rows, str(unfinished), optional, located=True)
            return
        with open(unfinished, "w", encoding="utf-8", newline="\n") as sink:
            sink.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_parquet(
    rows: Iterable[Mapping[str, Any]], path: str, optional: Sequence[str], *, located: bool = False
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        "pairwise": pa.list_(pa.list_(pa.float64())),
        "layers": pa.list_(pa.list_(pa.int64())),
        "moved": pa.list_(pa.int64()),
    }
    schema = pa.schema(
        [
            *([("file", pa.string()), ("row", pa.int64())] if located else []),
            ("storyid", pa.string()),
            ("storytitle", pa.string()),
            ("sentences", pa.list_(pa.string())),
            ("order", pa.list_(pa.int64())),
            ("scores", pa.list_(pa.float64())),
            ("confidence", pa.list_(pa.float64())),
            ("truncated", pa.list_(pa.int64())),
            *((name, types[name]) for name in optional),
            ("error", pa.string()),
        ]
    )
    records = iter(rows)
    with pq.ParquetWriter(path, schema) as writer:
        while some := list(islice(records, 1000)):
            writer.write_batch(pa.RecordBatch.from_pylist(some, schema=schema))
