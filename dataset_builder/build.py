"""Writes the data set as Parquet with its card: a folder that `load_dataset` loads without a script."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import rights
from .configurations import CONFIGURATIONS, Configuration
from .dataset_card import BuiltStories, CardMarkup, dataset_card
from .errors import UserError
from .file_writing import new_folder
from .loading import Splits, plan_splits
from .parquet_format import WrittenSplit, write_split
from .sources import resolve_sources, source_names
from .splitting import warn_of_shared_stories

if TYPE_CHECKING:
    import numpy as np

_EXAMPLES = 3  # of the first split: training data, so that the card does not show test stories


@dataclass(frozen=True)
class BuiltDataset:
    """The data set that `build_dataset` wrote.

    Attributes:
        output_dir: the folder.
        stories: number of stories by split.
        sentences: number of sentences by split.
        configurations: "shuffled", and "guide" if every story has five sentences.
        shared_stories: number of stories that are in more than one split.
    """

    output_dir: Path
    stories: Mapping[str, int]
    sentences: Mapping[str, int]
    configurations: tuple[str, ...]
    shared_stories: int


def build_dataset(
    sources: Sequence[str] | str,
    output_dir: str | os.PathLike[str],
    *,
    seed: int = 42,
    test_size: float | int = 0.2,
    validation_size: float | int = 0.3,
    split_sentences: str | None = None,
    license: str | None = None,
    language: Sequence[str] = (),
    allow_rocstories: bool = False,
    repo_id: str | None = None,
    markup: CardMarkup | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> BuiltDataset:
    """Write the shuffled stories of some sources to `output_dir`, as Parquet by configuration and split.

    The rows and their order are those of the loading script. The files are written to a temporary folder beside
    `output_dir`, which is renamed when it is complete. Nothing is uploaded.

    Args:
        sources, seed, test_size, validation_size, split_sentences, cache_dir: as in `load_stories`.
        output_dir: must not exist, or be empty; with `repo_id` it may also contain this same data set, from a build
            that could not be pushed.
        license: id of the licence of the stories, for the card, which quotes stories only with a licence; the sample's
            is known.
        language: codes of the languages of the stories, such as `en`; the sample's is known.
        allow_rocstories: whether the card may quote stories that look like ROCStories (see `may_be_quoted`).
        repo_id: id of the data set's repository on the Hub; the card shows how to load it from there.
        markup: how the card is formatted and written; plain Markdown by default.

    Raises:
        UserError: `output_dir` is not empty; or as in `load_stories`.
    """
    markup = markup or CardMarkup()
    sources = source_names(sources)
    output_dir = Path(output_dir)
    in_use = output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir()))
    taken = UserError(f"{output_dir}: already exists and is not an empty folder; choose another output_dir")
    if in_use and (repo_id is None or not (output_dir / "README.md").is_file()):
        raise taken
    parts = resolve_sources(sources, split_sentences)
    splits = plan_splits(parts, seed=seed, test_size=test_size, validation_size=validation_size, cache_dir=cache_dir)
    shared = warn_of_shared_stories(splits)
    lengths = {split: _lengths(splits, split) for split in splits}
    configurations = [
        configuration
        for configuration in CONFIGURATIONS.values()
        if configuration.sentences is None or all((some == configuration.sentences).all() for some in lengths.values())
    ]
    built = BuiltDataset(
        output_dir=output_dir,
        stories={split: len(some) for split, some in lengths.items()},
        sentences={split: int(some.sum()) for split, some in lengths.items()},
        configurations=tuple(configuration.name for configuration in configurations),
        shared_stories=shared,
    )
    is_sample, first = rights.all_sample(sources), next(iter(splits))
    quoted = rights.may_be_quoted(sources, license=license, allow_rocstories=allow_rocstories)
    with new_folder(output_dir) as unfinished:
        described = BuiltStories(
            sources=[(part.title, part.kind, part.split) for part in parts],
            lengths={split: dict(sorted(Counter(some.tolist()).items())) for split, some in lengths.items()},
            shared_stories=shared,
            files={
                configuration.name: _write_configuration(unfinished / configuration.name, configuration, splits, seed)
                for configuration in configurations
            },
            seed=seed,
            test_size=test_size,
            validation_size=validation_size,
            is_sample=is_sample,
            rocstories=rights.in_rocstories_layout(sources),
            license=license or (rights.SAMPLE_LICENSE if is_sample else None),
            language=list(language) or ([rights.SAMPLE_LANGUAGE] if is_sample else []),
            examples=list(islice(_rows(CONFIGURATIONS["shuffled"], splits, first, seed), _EXAMPLES)) if quoted else [],
            repo_id=repo_id,
            markup=markup,
        )
        markup.write(unfinished / "README.md", dataset_card(described))
        if in_use:
            if not _same_files(unfinished, output_dir):
                raise taken
            shutil.rmtree(unfinished)
    return built


def _same_files(one: Path, other: Path) -> bool:
    names, others = ({str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()} for top in (one, other))
    return names == others and not any(filecmp.cmpfiles(one, other, names, shallow=False)[1:])


def _lengths(splits: Splits, split: str) -> np.ndarray:
    """Number of sentences of each story of a split."""
    import numpy as np
    import pyarrow.compute as pc

    return np.concatenate(
        [
            pc.list_value_length(portion.stories.data.column("sentences")).to_numpy()[portion.rows]
            for portion in splits[split]
        ]
    )


def _rows(configuration: Configuration, splits: Splits, split: str, seed: int) -> Iterator[dict[str, Any]]:
    return (row for portion in splits[split] for row in configuration.rows_of_portion(portion, seed))


def _write_configuration(
    folder: Path, configuration: Configuration, splits: Splits, seed: int
) -> dict[str, WrittenSplit]:
    from tqdm import tqdm

    folder.mkdir()
    # Without the features metadata of `datasets`: version 3 cannot read that of version 5.
    schema = configuration.features.arrow_schema.remove_metadata()
    written = {}
    for split, portions in splits.items():
        rows = tqdm(
            _rows(configuration, splits, split, seed),
            desc=f"Writing {configuration.name}/{split}",
            total=sum(len(portion.rows) for portion in portions),
            unit="",
            disable=None,
            delay=2,
        )
        written[split] = write_split(folder, split, iter(rows), schema)
    return written
