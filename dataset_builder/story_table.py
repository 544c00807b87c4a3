"""Stories on disk: an Arrow file in the cache, memory-mapped, so that data larger than memory can be split."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from glob import escape as glob_escape
from glob import glob
from itertools import islice
from typing import TYPE_CHECKING, Any

from .cache import cache_folders, content_hash
from .file_writing import settle, staged
from .readers import Skipped, read_stories
from .story import BadRecord, Story, story_hash

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

# Part of the key of every cached table: count it up when a reader reads something differently.
TABLE_VERSION = 2
BATCH = 1000

logger = logging.getLogger(__name__)


def story_table(files: Sequence[tuple[str, str]], *, cache_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """The stories of some files, joined, as a memory-mapped data set in file order.

    Args:
        files: `(name, path)` pairs; the name is for messages, the suffix and made-up ids.
        cache_dir: as in `datasets`.

    Returns:
        A data set with `storyid`, `storytitle`, `sentences` (true order) and `text_hash` (uint64, the first half of
        `story_hash`). It is read again only when the name or the content of a file is another.

    Raises:
        BadRecord: as `read_stories`; but a record of a single sentence is skipped.
    """
    key = [file_key(name, path) for name, path in files]
    names = [name for name, _ in files]
    return cached_table(lambda skipped: stories_of_files(files, skipped), key, names, cache_dir=cache_dir)


def file_key(name: str, path: str) -> tuple[str, str]:
    """What a file's stories depend on: its content, and its name, which is the reader's and part of made-up ids."""
    return os.path.basename(name), content_hash(path)


def stories_of_files(
    files: Iterable[tuple[str, str]], on_error: Callable[[BadRecord], None] | None = None
) -> Iterator[Story]:
    """The stories of `(name, path)` pairs, one file after the other; without records of a single sentence."""
    for name, path in files:
        yield from read_stories(path, name=name, on_error=Skipped() if on_error is None else on_error)


def cached_table(
    read: Callable[[Skipped], Iterable[Story]],
    key: Any,
    names: Sequence[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """The stories that `read` gives, from the cache if they were written there under the same key.

    A cached table whose content is not what was written, or that cannot be read, is written again.

    Args:
        read: called only if the cache has no such table; given the `on_error` that skips records of one sentence.
        key: anything whose `repr` tells the content apart from every other.
        names: what is read, for messages.
        cache_dir: folder of the cache, by default that of `datasets`.
    """
    digest = hashlib.sha256(repr((TABLE_VERSION, key)).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    folders = cache_folders(cache_dir)
    found = (path for folder in folders for path in sorted(glob(_path(glob_escape(folder), digest, "*", "*"))))
    opened = next((opened for path in found if (opened := _open(path)) is not None), None)
    table, skipped = opened or _open_written(_write(folders[-1], digest, read))
    if skipped:
        records = "1 record" if skipped == 1 else f"{skipped:,} records"
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        logger.warning("%s: skipped %s of a single sentence", shown, records)
    return table


def _path(folder: str, digest: str, skipped: int | str, checksum: str) -> str:
    return os.path.join(folder, f"stories-{digest}-{skipped}-{checksum}.arrow")


def _open(path: str) -> tuple[Dataset, int] | None:
    """A cached table and how many records were skipped; None if the file is damaged or may not be read."""
    skipped, checksum = os.path.basename(path).removesuffix(".arrow").split("-")[2:]
    try:
        return _open_written(path) if content_hash(path) == checksum else None
    except ValueError:
        return None


def _open_written(path: str) -> tuple[Dataset, int]:
    import datasets

    return datasets.Dataset.from_file(path), int(os.path.basename(path).split("-")[2])


def _write(folder: str, digest: str, read: Callable[[Skipped], Iterable[Story]]) -> str:
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
    skipped = Skipped()
    rows = (_row(story) for story in tqdm(read(skipped), desc="Reading stories", unit="", disable=None, delay=2))
    with staged(folder) as staging:
        unfinished = os.path.join(staging, "stories.arrow")
        # Plain Arrow, without the features that `datasets` writes: its versions 3 and 5 do not read each other's.
        with open(unfinished, "xb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for batch in record_batches(rows, schema):
                writer.write_batch(batch)
        path = _path(folder, digest, skipped.count, content_hash(unfinished))
        settle(unfinished, path)
    return path


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
