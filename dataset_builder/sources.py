"""The sources of stories that users name: bundled stories, a file, a folder, or the id of a data set on the Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import UserError
from .hub_datasets import check_hub_id, files_by_split, is_dataset, is_saved, load_splits
from .sentence_splitting import SentenceSplitter, splitter_of
from .story import BadRecord, Story, story_columns, story_from_record
from .story_cache import file_key, folder_hash
from .story_files import FORMATS, OnError, files_in_folder, format_of_file, read_records, read_stories, split_of_name

if TYPE_CHECKING:
    from datasets import Dataset

_SAMPLE_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sample")
SAMPLE_FILE = os.path.join(_SAMPLE_FOLDER, "sample_stories.csv")
SAMPLES: Mapping[str, Sequence[str]] = {
    "sample": (SAMPLE_FILE, os.path.join(_SAMPLE_FOLDER, "stories_of_4_to_8_sentences.jsonl")),
    "sample-long": (os.path.join(_SAMPLE_FOLDER, "long_texts.jsonl"),),
}
_INSTEAD = "only Parquet can be streamed, on disk or from the Hub; `sentence-ordering build` writes it"


@dataclass(frozen=True)
class Part:
    """Stories of one split, or of none: a file, or a split of a data set.

    Attributes:
        name: for messages.
        split: `train`, `validation`, `test`, or None if the source has no splits.
        title: for cards: the name of the file or the id on the Hub, never a path.
        kind: for cards: the format, or where a data set is.
        key: returns a value that identifies the content, for the cache; it reads a file once.
        read: yields the stories, in order; its argument is called with bad records.
        records: yields the records from which the stories are read, without bad ones.
    """

    name: str
    split: str | None
    title: str
    kind: str
    key: Callable[[], Any]
    read: Callable[[OnError], Iterator[Story]]
    records: Callable[[], Iterator[Mapping[str, Any]]]


@dataclass(frozen=True)
class StreamedPart:
    """A Parquet file, and the split of its name or its data set, if any.

    Attributes:
        name: for messages.
        split: as in `Part`.
        path: a path, or an fsspec URL.
    """

    name: str
    split: str | None
    path: str


_AnyPart = TypeVar("_AnyPart", Part, StreamedPart)


def is_sample(source: str) -> bool:
    """Whether a source is bundled stories, by their name (a key of `SAMPLES`) or as one of the files."""
    if source in SAMPLES:
        return True
    files = (file for paths in SAMPLES.values() for file in paths)
    return os.path.isfile(source) and any(os.path.samefile(source, file) for file in files)


def source_names(sources: Sequence[str] | str | os.PathLike[str]) -> list[str]:
    """Several sources, or a single one: `"sample"` means `["sample"]`.

    Raises:
        TypeError: a source is not a name, for example stories in memory.
        UserError: there are none.
    """
    several = [sources] if isinstance(sources, (str, os.PathLike, Mapping)) else sources
    for source in several:
        if not isinstance(source, (str, os.PathLike)):
            raise TypeError(
                f"a source is the name of a file, a folder or a data set on the Hub, not {type(source).__name__}. "
                'Stories in memory: save datasets.Dataset.from_dict({"sentences": stories}) with to_parquet'
            )
    names = [os.fspath(source) for source in several]
    if not names:
        raise UserError("no data: name at least one source")
    return names


def resolve_sources(sources: Sequence[str] | str, split_sentences: str | None = None) -> list[Part]:
    """The parts of some sources, in their order.

    A folder or a data set on the Hub has splits if one of its names contains `validation` or `test` (see
    `split_of_name`); so have the files that are named one by one, which count as one folder. Otherwise no part has a
    split.

    Args:
        sources: as in `load_stories`.
        split_sentences: as in `read_stories`.

    Raises:
        UserError: a source cannot be read; the message states what was tried.
    """
    return _with_splits([(source, _parts(source, splitter_of(split_sentences))) for source in source_names(sources)])


def resolve_streamed_sources(sources: Sequence[str] | str) -> list[StreamedPart]:
    """As `resolve_sources`, for stories that are streamed: Parquet files, folders and data sets of them.

    Raises:
        UserError: a source cannot be read, or is not Parquet.
    """
    return _with_splits([(source, _streamed_parts(source)) for source in source_names(sources)])


def _with_splits(found: Sequence[tuple[str, Sequence[_AnyPart]]]) -> list[_AnyPart]:
    files = [part for source, parts in found if os.path.isfile(source) for part in parts]
    resolved: list[_AnyPart] = []
    for source, parts in found:
        together = files if os.path.isfile(source) else parts
        has_splits = any(part.split not in (None, "train") for part in together)
        resolved += parts if has_splits else [replace(part, split=None) for part in parts]
    return resolved


def _parts(source: str, splitter: SentenceSplitter | None) -> list[Part]:
    if source in SAMPLES:
        return [_file_part(path, os.path.basename(path), splitter) for path in SAMPLES[source]]
    if os.path.isfile(source):
        return [_file_part(source, source, splitter)]
    if os.path.isdir(source):
        if not is_saved(source) and not is_dataset(source):
            return [_file_part(path, path, splitter) for path in files_in_folder(source)]
    else:
        check_hub_id(source)
    return _dataset_parts(source, splitter)


def _file_part(path: str, name: str, splitter: SentenceSplitter | None) -> Part:
    language = None if splitter is None else splitter.language
    return Part(
        name=name,
        split=split_of_name(name),
        title=os.path.basename(name),
        kind=FORMATS[format_of_file(name, path)].title,
        key=lambda: file_key(name, path, language),
        read=lambda on_error: read_stories(path, name=name, on_error=on_error, split_sentences=language),
        records=lambda: (item[1] for item in read_records(path, name) if not isinstance(item, BadRecord)),
    )


def _dataset_parts(source: str, splitter: SentenceSplitter | None) -> list[Part]:
    """The splits of a data set on the Hub, of a local copy of one, or of one that `save_to_disk` wrote."""
    digest = folder_hash(source) if os.path.isdir(source) else None
    title, kind = source, "data set on the Hub"
    if digest:
        title, kind = os.path.basename(os.path.abspath(source)), "data set"
    key = splitter.key if splitter else ()
    return [
        Part(
            name=f"{source} ({split})",
            split=split_of_name(str(split)),
            title=f"{title} ({split})",
            kind=kind,
            key=partial(tuple, (source, str(split), digest or dataset._fingerprint, *key)),
            read=partial(_stories_of_dataset, dataset, f"{source} ({split})", splitter),
            records=partial(_records_of_dataset, dataset, f"{source} ({split})"),
        )
        for split, dataset in load_splits(source, digest)
    ]


def _records_of_dataset(dataset: Dataset, name: str, prose: bool = True) -> Iterator[Mapping[str, Any]]:
    columns = story_columns(dataset.column_names, name, prose=prose)
    yield from dataset.with_format(None).select_columns(columns)


def _stories_of_dataset(
    dataset: Dataset, name: str, splitter: SentenceSplitter | None, on_error: OnError
) -> Iterator[Story]:
    for row, record in enumerate(_records_of_dataset(dataset, name, splitter is not None), start=1):
        try:
            story = story_from_record(record, file=name, row=row, splitter=splitter)
        except BadRecord as error:
            on_error(error)
        else:
            yield story


def _streamed_parts(source: str) -> list[StreamedPart]:
    if source in SAMPLES:
        raise UserError(f"{source}: this is not Parquet; {_INSTEAD}")
    if os.path.isfile(source):
        return [_streamed_part(source, source, source)]
    if os.path.isdir(source):
        if is_saved(source):
            raise UserError(f"{source}: a data set that `save_to_disk` wrote; {_INSTEAD}")
        if not is_dataset(source):
            return [_streamed_part(path, path, path) for path in files_in_folder(source)]
    else:
        check_hub_id(source)
    return [
        # hf://datasets/user/name@commit/a.parquet is called user/name/a.parquet
        _streamed_part(re.sub(r"^hf://datasets/([^@]+)@[^/]+/", r"\1/", path), path, split)
        for split, paths in files_by_split(source).items()
        for path in paths
    ]


def _streamed_part(name: str, path: str, split: str) -> StreamedPart:
    if os.path.splitext(name)[1].lower() != ".parquet":
        raise UserError(f"{name}: this is not Parquet; {_INSTEAD}")
    return StreamedPart(name, split_of_name(split), path)
