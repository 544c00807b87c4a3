"""Stories on disk: an Arrow file in the cache, memory-mapped, so that data larger than memory can be split."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from .file_writing import new_file
from .readers import read_stories
from .story import Story, story_hash

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

# Part of the key of every cached table: count it up when a reader reads something differently.
TABLE_VERSION = 1
BATCH = 1000


def story_table(files: Sequence[tuple[str, str]], *, cache_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """The stories of some files, joined, as a memory-mapped data set in file order.

    Args:
        files: `(name, path)` pairs; the name is for messages, the suffix and made-up ids.
        cache_dir: as in `datasets`.

    Returns:
        A data set with `storyid`, `storytitle`, `sentences` (true order) and `text_hash` (uint64, the first half of
        `story_hash`). It is read again only when a file's name, size or time of change is another.

    Raises:
        BadRecord: as `read_stories`.
    """
    key = [(name, os.stat(path).st_size, os.stat(path).st_mtime_ns) for name, path in files]
    return cached_table(lambda: stories_of_files(files), key, cache_dir=cache_dir)


def stories_of_files(files: Iterable[tuple[str, str]]) -> Iterator[Story]:
    """The stories of `(name, path)` pairs, one file after the other."""
    for name, path in files:
        yield from read_stories(path, name=name)


def cached_table(
    read: Callable[[], Iterable[Story]], key: Any, *, cache_dir: str | os.PathLike[str] | None = None
) -> Dataset:
    """The stories that `read()` gives, from the cache if they were written there under the same key.

    Args:
        read: called only if the cache has no such table.
        key: anything whose `repr` tells the content apart from every other.
        cache_dir: folder of the cache, by default that of `datasets`.
    """
    import datasets

    folder = os.path.join(cache_dir or datasets.config.HF_DATASETS_CACHE, "sentence_ordering")
    digest = hashlib.sha256(repr((TABLE_VERSION, key)).encode("utf-8", "surrogateescape")).hexdigest()
    path = os.path.join(folder, f"stories-{digest[:32]}.arrow")
    if not os.path.exists(path):
        os.makedirs(folder, exist_ok=True)
        _write(path, read())
    return datasets.Dataset.from_file(path)


def _write(path: str, stories: Iterable[Story]) -> None:
    import pyarrow as pa
    from tqdm import tqdm

    schema = pa.schema(
        [
            ("storyid", pa.string()),
            ("storytitle", pa.string()),
            ("sentences", pa.list_(pa.string())),
            ("text_hash", pa.uint64()),
        ]
    )
    rows = (_row(story) for story in tqdm(stories, desc="Reading stories", unit="", disable=None, delay=2))
    # Plain Arrow, without the features that `datasets` writes: its versions 3 and 5 do not read each other's.
    with new_file(path) as unfinished, open(unfinished, "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in record_batches(rows, schema):
            writer.write_batch(batch)


def _row(story: Story) -> dict[str, Any]:
    return {
        "storyid": story.storyid,
        "storytitle": story.title,
        "sentences": list(story.sentences),
        "text_hash": int(story_hash(story.sentences)[:16], 16),
    }


def record_batches(rows: Iterator[Mapping[str, Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Rows in batches of `BATCH`, so that never more than one batch is in memory."""
    import pyarrow as pa

    while batch := list(islice(rows, BATCH)):
        yield pa.RecordBatch.from_pylist(batch, schema=schema)
