"""Stories as data sets, from sources or from rows in memory. Existing splits are kept, the rest is split in three."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .sentence_splitting import SentenceSplitter, splitter_of
from .sources import Part, resolve_sources, resolve_streamed_sources
from .splitting import Portion, split_table, warn_of_shared_stories, whole_table
from .story import (
    CLOZE_COLUMNS,
    STORY_FIELDS,
    TEXT_COLUMNS,
    BadRecord,
    plain_name,
    sentence_columns,
    story_columns,
    story_from_record,
)
from .story_cache import cached_table
from .story_files import SPLITS, Skipped
from .streaming import StoryStream

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

Splits = dict[str, list[Portion]]
_ROWS_VERSION = "stories-of-rows-1"  # part of the fingerprint of cached rows


def load_stories(
    sources: Sequence[str] | str,
    *,
    validation_sources: Sequence[str] | str | None = None,
    seed: int = 42,
    test_size: float | int = 0.2,
    validation_size: float | int = 0.3,
    split_sentences: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> DatasetDict:
    """The stories of some sources by split, in true order.

    A source has splits if the names of its files, or of its splits, contain `validation` or `test`; these are kept.
    Everything else, including a source that has `train` alone, is joined in the order of the sources and split in three
    (see `split_rows`). With `validation_sources`, all of `sources` is `train` and there is no `test`.

    Stories that occur in more than one split are counted in one warning.

    Args:
        sources: each `sample`, a file, a folder or the id of a data set on the Hub; a string is one source.
        validation_sources: the same, to choose the best model with.
        seed, test_size, validation_size: of the three-way split.
        split_sentences: language of prose to split into sentences, such as `en`; see `read_stories`.
        cache_dir: folder for the memory-mapped tables, by default the cache of `datasets`.

    Returns:
        Splits out of `train`, `validation`, `test` with the columns `storyid`, `storytitle` and `sentences`.

    Raises:
        UserError: a source cannot be read (as `BadRecord`: a record in it), or there are too few stories to split.
    """
    if validation_sources:
        train, validation = (
            _joined(resolve_sources(some, split_sentences), cache_dir) for some in (sources, validation_sources)
        )
        splits = {"train": [whole_table(train)], "validation": [whole_table(validation)]}
    else:
        splits = plan_splits(
            resolve_sources(sources, split_sentences),
            seed=seed,
            test_size=test_size,
            validation_size=validation_size,
            cache_dir=cache_dir,
        )
    warn_of_shared_stories(splits)
    return _as_dataset_dict(splits)


def load_all(
    sources: Sequence[str] | str,
    *,
    split_sentences: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """All stories of some sources, in any split, joined in the order of the sources.

    Arguments, columns and errors are those of `load_stories`.
    """
    return _dataset([whole_table(_joined(resolve_sources(sources, split_sentences), cache_dir))])


def stream_stories(
    sources: Sequence[str] | str,
    *,
    validation_sources: Sequence[str] | str | None = None,
    split_sentences: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> tuple[StoryStream, DatasetDict]:
    """The training stories of some sources as a stream, and their validation and test stories in tables.

    A source has splits as in `load_stories`. One without splits is used for training as a whole, because splitting it
    would require reading all of it. With `validation_sources`, all of `sources` is used for training.

    Args:
        sources: each a Parquet file, a folder of them, or the id of a data set on the Hub that consists of them.
        validation_sources: as in `load_stories`, of any format.
        split_sentences: as in `load_stories`.
        cache_dir: folder for the tables of the validation and test stories.

    Returns:
        The stream, and splits out of `validation` and `test` as from `load_stories`, possibly none.

    Raises:
        UserError: a source is not Parquet, cannot be read, or there are no training stories.
    """
    parts = resolve_streamed_sources(sources)
    by_split: dict[str, list[tuple[str, str]]] = {}
    for part in parts:
        by_split.setdefault("train" if validation_sources else part.split or "train", []).append((part.name, part.path))
    if "train" not in by_split:
        raise UserError(f"there are no training stories in {', '.join(part.name for part in parts)}")
    if validation_sources:
        others = {"validation": load_all(validation_sources, split_sentences=split_sentences, cache_dir=cache_dir)}
    else:
        others = {
            split: _dataset([whole_table(_streamed_table(by_split[split], split_sentences, cache_dir))])
            for split in SPLITS[1:]
            if split in by_split
        }
    from datasets import DatasetDict

    return StoryStream(by_split["train"], split_sentences=split_sentences), DatasetDict(others)


def _streamed_table(
    files: Sequence[tuple[str, str]], split_sentences: str | None, cache_dir: str | os.PathLike[str] | None
) -> Dataset:
    stream = StoryStream(files, split_sentences=split_sentences)
    return cached_table(
        lambda skipped: (story for _, story in stream.read(stream.order(), on_error=skipped)),
        (files, stream.digest()),
        [name for name, _ in files],
        cache_dir=cache_dir,
    )


def plan_splits(
    parts: Sequence[Part],
    *,
    seed: int,
    test_size: float | int,
    validation_size: float | int,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Splits:
    """The rows of each split, by table; tables are in file order."""
    by_split: dict[str | None, list[Part]] = {}
    for part in parts:
        by_split.setdefault(part.split, []).append(part)
    splits: Splits = {
        split: [whole_table(_joined(by_split[split], cache_dir))] for split in SPLITS if split in by_split
    }
    if None in by_split:
        table = _joined(by_split[None], cache_dir)
        portions = split_table(table, seed=seed, test_size=test_size, validation_size=validation_size)
        for split, portion in portions.items():
            splits.setdefault(split, []).append(portion)
    return {split: splits[split] for split in SPLITS if split in splits}


def _as_dataset_dict(splits: Splits) -> DatasetDict:
    from datasets import DatasetDict

    return DatasetDict({split: _dataset(portions) for split, portions in splits.items()})


def _dataset(portions: Sequence[Portion]) -> Dataset:
    """Portions as one data set; the stories stay in their memory-mapped tables."""
    from datasets import concatenate_datasets

    selected = [portion.stories.remove_columns("text_hash").select(portion.rows) for portion in portions]
    return selected[0] if len(selected) == 1 else concatenate_datasets(selected)


def _joined(parts: Sequence[Part], cache_dir: str | os.PathLike[str] | None) -> Dataset:
    names = [part.name for part in parts]
    table = cached_table(
        lambda skipped: (story for part in parts for story in part.read(skipped)),
        [part.key() for part in parts],
        names,
        cache_dir=cache_dir,
    )
    if not len(table):
        raise UserError(f"no stories in {', '.join(names)}")
    return table


def stories_of_rows(rows: Any, name: str = "rows", *, split_sentences: str | None = None) -> Dataset:
    """Stories in true order, from the rows of one split.

    Shuffled rows are sorted by their `labels` (or `orig_sents`); the columns `sentence1`, `sentence2`, … are in order.
    Rows of a single sentence are left out. A data set that is in order already is returned unchanged.

    Args:
        rows: a `Dataset`, a pandas or Arrow table, a dict of columns, or an iterable of dicts, such as a streamed
            data set.
        name: for messages and the ids of stories that have none.
        split_sentences: as in `load_stories`.

    Returns:
        A data set with the columns `storyid`, `storytitle` and `sentences`.

    Raises:
        UserError: several splits were given, there are no sentences, or a row is not a story (as `BadRecord`).
    """
    dataset = _as_dataset(rows)
    splitter = splitter_of(split_sentences)
    columns = story_columns(dataset.column_names, name, prose=splitter is not None)
    if {"storyid", "sentences"} <= set(columns) and not {"labels", "shuf_sents", "orig_sents"} & set(columns):
        return dataset
    return _in_true_order(dataset.with_format(None).select_columns(columns), name, splitter)


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
    # Not `from_list`, which uses the columns of the first row for all.
    names = dict.fromkeys(name for row in plain for name in row)
    return datasets.Dataset.from_dict({name: [row.get(name) for row in plain] for name in names})


def _plain_row(row: Any) -> dict[str, Any]:
    """The fields of a story, with lists for the arrays of pandas and numpy, and None for NaN."""
    if not isinstance(row, Mapping):
        raise UserError(f"a row is a dict with 'sentences', not {type(row).__name__}")
    known = {*STORY_FIELDS, *TEXT_COLUMNS, *sentence_columns(map(str, row))}
    return {key: _plain(value) for key, value in row.items() if key in known or plain_name(str(key)) in CLOZE_COLUMNS}


def _plain(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    return None if isinstance(value, float) and isnan(value) else value


def _in_true_order(dataset: Dataset, name: str, splitter: SentenceSplitter | None) -> Dataset:
    from datasets import Features, Sequence, Value
    from datasets.fingerprint import Hasher

    def convert(batch: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        skipped = Skipped()
        stories = []
        for index, *values in zip(indices, *batch.values(), strict=True):
            try:
                record = dict(zip(batch, values, strict=True))
                stories.append(story_from_record(record, file=name, row=index + 1, splitter=splitter))
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
        new_fingerprint=Hasher.hash([dataset._fingerprint, name, _ROWS_VERSION, *(splitter.key if splitter else ())]),
        desc="Putting stories in order",
    )
