"""Rows in any layout, as they are in memory, to a data set of stories in true order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isnan
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .readers import Skipped
from .records import sentence_columns, story_from_record
from .story import BadRecord

if TYPE_CHECKING:
    from datasets import Dataset

_FIELDS = ("storyid", "storytitle", "sentences", "labels", "shuf_sents", "orig_sents")
_VERSION = "stories-of-rows-1"  # part of the fingerprint of what is cached


def stories_of_rows(rows: Any, name: str = "rows") -> Dataset:
    """Stories in true order, from rows of one split.

    Shuffled rows are put in order by their `labels` (or `orig_sents`); the columns `sentence1`, `sentence2`, … are in
    order. A row of a single sentence is left out. A data set that is in order already stays as it is.

    Args:
        rows: a `Dataset` (also a streamed one), a pandas or Arrow table, a dict of columns, or a list of dicts.
        name: for messages and the ids of stories that have none.

    Returns:
        A data set with the columns `storyid`, `storytitle` and `sentences`.

    Raises:
        UserError: several splits were given, there are no sentences, or a row is not a story (as `BadRecord`).
    """
    dataset = _as_dataset(rows)
    columns = story_columns(dataset.column_names, name)
    if {"storyid", "sentences"} <= set(columns) and not {"labels", "shuf_sents", "orig_sents"} & set(columns):
        return dataset
    return _in_true_order(dataset.with_format(None).select_columns(columns), name)


def story_columns(names: Iterable[str], name: str = "rows") -> list[str]:
    """The columns that a story is read from.

    Raises:
        UserError: none of them has sentences.
    """
    names = list(names)
    columns = [column for column in names if column in {*_FIELDS, *sentence_columns(names)}]
    if not set(columns).difference({"storyid", "storytitle", "labels", "orig_sents"}):
        raise UserError(f"{name}: there is no column 'sentences'; it has {', '.join(names) or 'none'}")
    return columns


def _as_dataset(rows: Any) -> Dataset:
    import datasets

    if isinstance(rows, datasets.Dataset):
        return rows
    if isinstance(rows, (datasets.DatasetDict, datasets.IterableDatasetDict)):
        raise UserError(f"these are the rows of several splits: choose one of {', '.join(map(repr, rows))}")
    if isinstance(rows, Mapping):
        return datasets.Dataset.from_dict(dict(rows))
    if hasattr(rows, "to_pylist"):  # an Arrow table
        rows = rows.to_pylist()
    elif hasattr(rows, "to_dict") and hasattr(rows, "columns"):  # of pandas
        rows = rows.to_dict("records")
    if isinstance(rows, (str, bytes)) or not isinstance(rows, Iterable):
        raise UserError(f"rows are a data set, a table or a list of dicts, not {type(rows).__name__}")
    plain = [_plain_row(row) for row in rows]
    # Not `from_list`, which takes the columns of the first row for those of all.
    names = dict.fromkeys(name for row in plain for name in row)
    return datasets.Dataset.from_dict({name: [row.get(name) for row in plain] for name in names})


def _plain_row(row: Any) -> dict[str, Any]:
    """What a story is read from, with lists where pandas and numpy have arrays, and None where pandas has NaN."""
    if not isinstance(row, Mapping):
        raise UserError(f"a row is a dict with 'sentences', not {type(row).__name__}")
    known = {*_FIELDS, *sentence_columns(map(str, row))}
    return {key: _plain(value) for key, value in row.items() if key in known}


def _plain(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    return None if isinstance(value, float) and isnan(value) else value


def _in_true_order(dataset: Dataset, name: str) -> Dataset:
    from datasets import Features, Sequence, Value
    from datasets.fingerprint import Hasher

    def convert(batch: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        skipped = Skipped()
        stories = []
        for index, *values in zip(indices, *batch.values(), strict=True):
            try:
                stories.append(story_from_record(dict(zip(batch, values, strict=True)), file=name, row=index + 1))
            except BadRecord as error:
                skipped(error)
        return {
            "storyid": [story.storyid for story in stories],
            "storytitle": [story.title for story in stories],
            "sentences": [list(story.sentences) for story in stories],
        }

    text = Value("string")
    return dataset.map(
        convert,
        batched=True,
        with_indices=True,
        remove_columns=dataset.column_names,
        features=Features({"storyid": text, "storytitle": text, "sentences": Sequence(text)}),
        new_fingerprint=Hasher.hash([dataset._fingerprint, name, _VERSION]),
        desc="Putting stories in order",
    )
