"""What a SRC on the command line means: `sample`, a file, a folder, or the id of a data set on the Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .cache import folder_hash, writable_cache_folder
from .card_files import check_card_files, check_saved_files
from .errors import UserError
from .formats import SUFFIXES
from .readers import read_records, read_stories
from .records import sentence_columns, story_from_record
from .story import BadRecord, Story
from .story_files import did_you_mean, files_in_folder, format_of_name, special_file, split_of_name, supported
from .story_table import file_key

if TYPE_CHECKING:
    from datasets import Dataset

SAMPLE = "sample"
SAMPLE_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sample", "sample_stories.csv")
_KINDS = {"csv": "CSV", "tsv": "TSV", "jsonl": "JSON Lines", "parquet": "Parquet", "text": "text"}
OnError = Callable[[BadRecord], None]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Part:
    """A stretch of stories that belongs to one split, or to none: a file, or a split of a data set.

    Attributes:
        name: for messages.
        title: for cards: the name of the file or the id on the Hub, and never the path to it.
        kind: for cards: the format, or where a data set is.
        split: `train`, `validation`, `test`, or None if the source brings no split.
        key: gives what tells the content apart from every other, for the cache; it reads a file once.
        read: gives the stories, in order; what cannot be read is handed to its argument.
        records: gives what the stories are read from, field by field, without the records that cannot be read.
    """

    name: str
    title: str
    kind: str
    split: str | None
    key: Callable[[], Any]
    read: Callable[[OnError], Iterator[Story]]
    records: Callable[[], Iterator[Mapping[str, Any]]]


def is_sample(source: str) -> bool:
    """Whether a source is the bundled stories, under their name or as the file."""
    return source == SAMPLE or (os.path.isfile(source) and os.path.samefile(source, SAMPLE_FILE))


def as_list(sources: Sequence[str] | str | os.PathLike[str]) -> list[str]:
    """Several sources, or one that is given by itself: `"sample"` means `["sample"]`.

    Raises:
        TypeError: a source is not a name, for example stories in memory.
    """
    several = [sources] if isinstance(sources, (str, os.PathLike, Mapping)) else sources
    for source in several:
        if not isinstance(source, (str, os.PathLike)):
            raise TypeError(
                f"a source is the name of a file, a folder or a data set on the Hub, not {type(source).__name__}. "
                'Stories in memory: save datasets.Dataset.from_dict({"sentences": stories}) with to_parquet'
            )
    return [os.fspath(source) for source in several]


def resolve_sources(sources: Sequence[str] | str) -> list[Part]:
    """The parts of some sources, in their order.

    A folder or a data set on the Hub brings splits if one of its names speaks of `validation` or `test`; so do the
    files that are named one by one, which count as if they lay in one folder. Otherwise no part has a split.

    Raises:
        UserError: a source is nothing that can be read; the message says what was tried.
    """
    sources = as_list(sources)
    if not sources:
        raise UserError("no data: name at least one source")
    found = [(source, _parts(source)) for source in sources]
    files = [part for source, parts in found if os.path.isfile(source) for part in parts]
    return [
        part if _bring_splits(files if os.path.isfile(source) else parts) else replace(part, split=None)
        for source, parts in found
        for part in parts
    ]


def _bring_splits(parts: Sequence[Part]) -> bool:
    return any(part.split not in (None, "train") for part in parts)


def _parts(source: str) -> list[Part]:
    if source == SAMPLE:
        return [_file_part(SAMPLE_FILE, "sample_stories.csv")]
    if os.path.isfile(source):
        return [_file_part(source)]
    if os.path.isdir(source):
        return _folder_parts(source)
    check_hub_id(source)
    return _dataset_parts(source, saved=False)


def _file_part(path: str, name: str | None = None) -> Part:
    name = name or path
    return Part(
        name=name,
        title=os.path.basename(name),
        kind=_KINDS[format_of_name(name)],
        split=split_of_name(name),
        key=lambda: file_key(name, path),
        read=lambda on_error: read_stories(path, name=name, on_error=on_error),
        records=partial(_records_of_file, path, name),
    )


def _records_of_file(path: str, name: str) -> Iterator[Mapping[str, Any]]:
    return (item[1] for item in read_records(path, name) if not isinstance(item, BadRecord))


def _folder_parts(folder: str) -> list[Part]:
    saved = any(os.path.isfile(os.path.join(folder, name)) for name in ("dataset_dict.json", "state.json"))
    if saved or has_configurations(os.path.join(folder, "README.md")):
        return _dataset_parts(folder, saved)
    return [_file_part(path) for path in files_in_folder(folder)]


def has_configurations(card: str) -> bool:
    """Whether this is the card of a data set that says itself where its files are, as `build` writes it."""
    if not os.path.isfile(card):
        return False
    with open(card, encoding="utf-8", errors="replace") as file:
        return re.match(r"---\n(?:(?!---\n).*\n)*?configs:", file.read()) is not None


def check_hub_id(source: str) -> None:
    """Refuses what is neither a file nor a folder here and cannot be the id of a data set either.

    Raises:
        UserError: it says what was looked for.
    """
    if (special := special_file(source)) is not None:
        raise UserError(f"{source}: {special}; these stories are read more than once: write them to a file first")
    hint = did_you_mean(source)
    if os.path.splitext(source)[1].lower() in SUFFIXES:
        raise UserError(f"{source}: no such file{hint}")
    if not _HUB_ID.fullmatch(source):
        raise UserError(
            f"{source}: no such data: it is not 'sample', there is no file ({supported()}) or folder of this name, "
            f"and a data set on the Hub is called user/name{hint}"
        )


def as_location(source: str) -> str:
    """A data set as `datasets` finds it: a folder called `parquet` or `csv` would be one of its own readers to it."""
    return os.path.abspath(source) if os.path.isdir(source) else source


def _dataset_parts(source: str, saved: bool) -> list[Part]:
    """The splits of a data set on the Hub, of a local copy of one, or of one that `save_to_disk` wrote."""
    import datasets

    # `datasets` takes local files with the same time for the same: another content gets a cache of its own.
    digest = folder_hash(source) if os.path.isdir(source) else None
    cached = {"cache_dir": os.path.join(writable_cache_folder(), digest)} if digest and not saved else {}
    try:
        # Never code out of a repository, and no question whether to run it.
        where = as_location(source)
        (check_saved_files if saved else check_card_files)(source)
        loaded = (
            datasets.load_from_disk(where) if saved else datasets.load_dataset(where, trust_remote_code=False, **cached)
        )
    except datasets.exceptions.DatasetNotFoundError:
        hint = did_you_mean(source)
        raise UserError(f"{source}: no file or folder here and no data set on the Hub has this name{hint}") from None
    splits = loaded.items() if isinstance(loaded, dict) else [("train", loaded)]
    title, kind = source, "data set on the Hub"
    if os.path.isdir(source):
        title, kind = os.path.basename(os.path.abspath(source)), "data set"
    return [
        Part(
            name=f"{source} ({split})",
            title=f"{title} ({split})",
            kind=kind,
            split=split_of_name(str(split)),
            key=partial(tuple, (source, str(split), digest or dataset._fingerprint)),
            read=partial(_stories_of_dataset, dataset, f"{source} ({split})"),
            records=partial(_records_of_dataset, dataset),
        )
        for split, dataset in splits
    ]


def _records_of_dataset(dataset: Dataset) -> Iterator[Mapping[str, Any]]:
    fields = {"storyid", "storytitle", "sentences", "labels", "shuf_sents", "orig_sents"}
    columns = [
        column for column in dataset.column_names if column in fields.union(sentence_columns(dataset.column_names))
    ]
    return iter(dataset.with_format(None).select_columns(columns))


def _stories_of_dataset(dataset: Dataset, name: str, on_error: OnError) -> Iterator[Story]:
    for row, record in enumerate(_records_of_dataset(dataset), start=1):
        try:
            story = story_from_record(record, file=name, row=row)
        except BadRecord as error:
            on_error(error)
        else:
            yield story
