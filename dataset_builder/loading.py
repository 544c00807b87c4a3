"""Sources to data sets: what is split already stays so, the rest is joined and split as the guide did."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .errors import UserError
from .sources import Part, resolve_sources
from .splitting import Portion, split_table, warn_of_shared_stories, whole_table
from .story_files import SPLITS
from .story_table import cached_table

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

Splits = dict[str, list[Portion]]


def load_stories(
    sources: Sequence[str] | str,
    *,
    validation_sources: Sequence[str] | str | None = None,
    seed: int = 42,
    test_size: float | int = 0.2,
    validation_size: float | int = 0.3,
    cache_dir: str | os.PathLike[str] | None = None,
) -> DatasetDict:
    """The stories of some sources by split, in true order.

    A source brings splits if the names of its files, or of its splits, speak of `validation` or `test`; those are
    kept. Everything else, `train` alone included, is joined in the order of the sources and split in three (see
    `split_rows`). With `validation_sources`, all of `sources` is `train` and there is no `test`.

    Stories that stand in more than one split are counted in one warning.

    Args:
        sources: each `sample`, a file, a folder or the id of a data set on the Hub; a string is one source.
        validation_sources: the same, for choosing the best model.
        seed, test_size, validation_size: of the three-way split.
        cache_dir: folder for the tables that are memory-mapped, by default the cache of `datasets`.

    Returns:
        Splits out of `train`, `validation`, `test` with the columns `storyid`, `storytitle` and `sentences`.

    Raises:
        UserError: a source cannot be read (as `BadRecord`: a record in it), or there are too few stories to split.
    """
    if validation_sources:
        train, validation = (_joined(resolve_sources(some), cache_dir) for some in (sources, validation_sources))
        splits = {"train": [whole_table(train)], "validation": [whole_table(validation)]}
    else:
        splits = plan_splits(
            resolve_sources(sources),
            seed=seed,
            test_size=test_size,
            validation_size=validation_size,
            cache_dir=cache_dir,
        )
    warn_of_shared_stories(splits)
    return as_dataset_dict(splits)


def load_all(sources: Sequence[str] | str, *, cache_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """All stories of some sources, whatever splits they bring, joined in the order of the sources.

    Columns and errors are those of `load_stories`.
    """
    return _dataset([whole_table(_joined(resolve_sources(sources), cache_dir))])


def plan_splits(
    parts: Sequence[Part],
    *,
    seed: int,
    test_size: float | int,
    validation_size: float | int,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Splits:
    """Which rows of which tables each split is made of; tables are in file order."""
    kept: dict[str, list[Part]] = {}
    pool: list[Part] = []
    for part in parts:
        if part.split is None:
            pool.append(part)
        else:
            kept.setdefault(part.split, []).append(part)
    splits: Splits = {split: [whole_table(_joined(kept[split], cache_dir))] for split in SPLITS if split in kept}
    if pool:
        table = _joined(pool, cache_dir)
        portions = split_table(table, seed=seed, test_size=test_size, validation_size=validation_size)
        for split, portion in portions.items():
            splits.setdefault(split, []).append(portion)
    return {split: splits[split] for split in SPLITS if split in splits}


def as_dataset_dict(splits: Splits) -> DatasetDict:
    """The splits as data sets; the stories stay in their memory-mapped tables."""
    from datasets import DatasetDict

    return DatasetDict({split: _dataset(portions) for split, portions in splits.items()})


def _dataset(portions: Sequence[Portion]) -> Dataset:
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
