"""What a SRC is where stories are streamed: Parquet files, folders of them, and data sets on the Hub made of such."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from .cache import content_hash
from .card_files import check_card_files
from .errors import UserError
from .loading import as_dataset_dict, load_all
from .readers import Skipped
from .sources import as_list, as_location, check_hub_id, has_configurations
from .splitting import whole_table
from .story import Story
from .story_files import SPLITS, did_you_mean, files_in_folder, split_of_name
from .story_table import cached_table
from .streaming import StoryStream

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_INSTEAD = "only Parquet can be streamed, on disk or from the Hub; `sentence-ordering build` writes it"


@dataclass(frozen=True)
class StreamedPart:
    """A Parquet file, and the split that its name or its data set says it belongs to, if any."""

    name: str
    path: str
    split: str | None


def stream_stories(
    sources: Sequence[str] | str,
    *,
    validation_sources: Sequence[str] | str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> tuple[StoryStream, DatasetDict]:
    """The training stories of some sources, to be streamed, and their validation and test stories in tables.

    A source brings splits as in `load_stories`. One that brings none is trained on as a whole: to split it, all of it
    would have to be read. With `validation_sources` all of `sources` is trained on.

    Args:
        sources: each a Parquet file, a folder of such, or the id of a data set on the Hub that consists of such.
        validation_sources: as in `load_stories`, of any format.
        cache_dir: folder for the tables of the stories that are not trained on.

    Returns:
        The stream, and splits out of `validation` and `test` as `load_stories` gives them; none, if there are none.

    Raises:
        UserError: a source is not Parquet, cannot be read, or there are no training stories.
    """
    from datasets import DatasetDict

    sources = as_list(sources)
    parts = _resolve(sources)
    if validation_sources:
        training = parts
        others = DatasetDict({"validation": load_all(validation_sources, cache_dir=cache_dir)})
    else:
        training = [part for part in parts if part.split in (None, "train")]
        others = as_dataset_dict(
            {
                split: [whole_table(_table([part for part in parts if part.split == split], cache_dir))]
                for split in SPLITS[1:]
                if any(part.split == split for part in parts)
            }
        )
    if not training:
        raise UserError(f"there are no training stories in {', '.join(sources)}")
    return StoryStream([(part.name, part.path) for part in training]), others


def _table(parts: Sequence[StreamedPart], cache_dir: str | os.PathLike[str] | None) -> Dataset:
    stream = StoryStream([(part.name, part.path) for part in parts])
    key = [(part.name, part.path, _version(part.path)) for part in parts]

    def read(skipped: Skipped) -> Iterator[Story]:
        return (story for _, story in stream.read(stream.order(), on_error=skipped))

    return cached_table(read, key, [part.name for part in parts], cache_dir=cache_dir)


def _version(path: str) -> Any:
    """What changes with a file's content; of one on the Hub the path names the commit."""
    return None if "://" in path else content_hash(path)


def _resolve(sources: Sequence[str]) -> list[StreamedPart]:
    if not sources:
        raise UserError("no data: name at least one source")
    found = [(source, _parts(source)) for source in map(os.fspath, sources)]
    files = [part for source, parts in found if os.path.isfile(source) for part in parts]
    resolved = []
    for source, parts in found:  # files that are named one by one count as if they lay in one folder
        brings_splits = any(part.split in SPLITS[1:] for part in (files if os.path.isfile(source) else parts))
        resolved += [part if brings_splits else StreamedPart(part.name, part.path, None) for part in parts]
    return resolved


def _parts(source: str) -> list[StreamedPart]:
    if os.path.isfile(source):
        return [_part(source, source, split_of_name(source))]
    if os.path.isdir(source):
        if any(os.path.isfile(os.path.join(source, name)) for name in ("dataset_dict.json", "state.json")):
            raise UserError(f"{source}: a data set that `save_to_disk` wrote; {_INSTEAD}")
        if not has_configurations(os.path.join(source, "README.md")):
            return [_part(path, path, split_of_name(path)) for path in files_in_folder(source)]
    elif source == "sample":
        raise UserError(f"sample: this is CSV; {_INSTEAD}")
    else:
        check_hub_id(source)
    return _dataset_parts(source)


def _dataset_parts(source: str) -> list[StreamedPart]:
    """The files of a data set on the Hub, or of a local copy of one, by what its card says of them."""
    import datasets

    try:
        check_card_files(source)
        builder = datasets.load_dataset_builder(as_location(source), trust_remote_code=False)
    except datasets.exceptions.DatasetNotFoundError:
        hint = did_you_mean(source)
        raise UserError(f"{source}: no file or folder here and no data set on the Hub has this name{hint}") from None
    except datasets.exceptions.DataFilesNotFoundError:
        raise UserError(f"{source}: no file of stories in this data set") from None
    return [
        _part(_name(path), path, split_of_name(str(split)))
        for split, paths in (builder.config.data_files or {}).items()
        for path in map(str, paths)
    ]


def _name(path: str) -> str:
    """A file on the Hub as people call it: `hf://datasets/user/name@commit/a.parquet` is `user/name/a.parquet`."""
    return re.sub(r"^hf://datasets/([^@]+)@[^/]+/", r"\1/", path)


def _part(name: str, path: str, split: str | None) -> StreamedPart:
    if PurePath(name).suffix.lower() != ".parquet":
        raise UserError(f"{name}: this is not Parquet; {_INSTEAD}")
    return StreamedPart(name, path, split)
