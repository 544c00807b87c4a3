"""Stories cached on disk: Arrow files that are memory-mapped, so that data larger than memory can be split."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from glob import escape as glob_escape
from glob import glob
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .file_writing import settle, staged
from .json_formats import has_notebook_orders, notebooks_folder
from .parquet_format import record_batches
from .sentence_splitting import splitter_of
from .story import Story, story_hash
from .story_files import OnError, Skipped, format_of_file, read_stories

if TYPE_CHECKING:
    from datasets import Dataset

# Part of the key of every cached table: increase it when a reader's result changes.
TABLE_VERSION = 3

logger = logging.getLogger(__name__)


def story_table(
    files: Sequence[tuple[str, str]],
    *,
    split_sentences: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """The stories of some files, joined, as a memory-mapped data set in file order.

    Args:
        files: `(name, path)` pairs; the name is for messages, the suffix and made-up ids.
        split_sentences: as in `read_stories`.
        cache_dir: as in `datasets`.

    Returns:
        A data set with `storyid`, `storytitle`, `sentences` (true order) and `text_hash` (uint64, the first half of
        `story_hash`). It is read again only when the name or the content of a file changes.

    Raises:
        BadRecord: as `read_stories`; but a record of a single sentence is skipped.
    """
    key = [file_key(name, path, split_sentences) for name, path in files]
    names = [name for name, _ in files]
    return cached_table(
        lambda skipped: stories_of_files(files, split_sentences, skipped), key, names, cache_dir=cache_dir
    )


def file_key(name: str, path: str, split_sentences: str | None = None) -> tuple[Any, ...]:
    """What a file's stories depend on: its content, and its name, which decides the format and made-up ids."""
    splitter = splitter_of(split_sentences)
    key: tuple[Any, ...] = (os.path.basename(name), content_hash(path), *(splitter.key if splitter else ()))
    folder = notebooks_folder(name)
    if format_of_file(name, path) == "csv" and os.path.isdir(folder) and has_notebook_orders(path):
        key += (folder_hash(folder),)
    return key


def stories_of_files(
    files: Iterable[tuple[str, str]], split_sentences: str | None = None, on_error: OnError | None = None
) -> Iterator[Story]:
    """The stories of `(name, path)` pairs, one file after the other; without records of a single sentence."""
    for name, path in files:
        yield from read_stories(
            path, name=name, on_error=Skipped() if on_error is None else on_error, split_sentences=split_sentences
        )


def cached_table(
    read: Callable[[Skipped], Iterable[Story]],
    key: Any,
    names: Sequence[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """The stories that `read` returns, from the cache if they were written there under the same key.

    A cached table that cannot be read, or whose content has changed since it was written, is written again.

    Args:
        read: called only if the cache has no valid table; its argument is the `on_error` that skips single sentences.
        key: a value whose `repr` identifies the content.
        names: the sources, for messages.
        cache_dir: folder of the cache, by default that of `datasets`.
    """
    digest = hashlib.sha256(repr((TABLE_VERSION, key)).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    folders = _cache_folders(cache_dir)
    found = (path for folder in folders for path in sorted(glob(_path(glob_escape(folder), digest, "*", "*"))))
    opened = next((opened for path in found if (opened := _open_valid(path)) is not None), None)
    table, skipped = opened or _open(_write(folders[-1], digest, read))
    if skipped:
        records = "1 record" if skipped == 1 else f"{skipped:,} records"
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        logger.warning("%s: skipped %s of a single sentence", shown, records)
    return table


def _path(folder: str, digest: str, skipped: int | str, checksum: str) -> str:
    return os.path.join(folder, f"stories-{digest}-{skipped}-{checksum}.arrow")


def _open_valid(path: str) -> tuple[Dataset, int] | None:
    """A cached table and the number of skipped records; None if the file is damaged or may not be read."""
    checksum = os.path.basename(path).removesuffix(".arrow").rpartition("-")[2]
    try:
        return _open(path) if content_hash(path) == checksum else None
    except ValueError:
        return None


def _open(path: str) -> tuple[Dataset, int]:
    import datasets

    return datasets.Dataset.from_file(path), int(os.path.basename(path).split("-")[2])


def _write(folder: str, digest: str, read: Callable[[Skipped], Iterable[Story]]) -> str:
    import pyarrow as pa
    from tqdm import tqdm

    text = pa.string()
    columns = {"storyid": text, "storytitle": text, "sentences": pa.list_(text), "text_hash": pa.uint64()}
    schema = pa.schema(list(columns.items()))
    skipped = Skipped()
    rows = (_row(story) for story in tqdm(read(skipped), desc="Reading stories", unit="", disable=None, delay=2))
    with staged(folder) as staging:
        unfinished = os.path.join(staging, "stories.arrow")
        # Plain Arrow, without the features metadata of `datasets`: versions 3 and 5 cannot read each other's.
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


def content_hash(path: str | os.PathLike[str]) -> str:
    """A hash of the bytes of a file: 32 hexadecimal digits. Name, size and time do not identify a file.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise UserError(f"{os.fspath(path)}: cannot be read: {error.strerror}") from None


def folder_hash(folder: str | os.PathLike[str]) -> str:
    """A hash of the names and contents of all files in a folder and below it, except hidden ones."""
    digest = hashlib.blake2b(digest_size=16)
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = os.path.join(parent, name)
            digest.update(f"{os.path.relpath(path, folder)}\0{content_hash(path)}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def writable_cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> str:
    """A folder for cached tables; a temporary one, with a warning, if the cache of `datasets` is not writable.

    Args:
        cache_dir: as in `datasets`, whose cache is the default.
    """
    return _cache_folders(cache_dir)[-1]


def _cache_folders(cache_dir: str | os.PathLike[str] | None) -> Sequence[str]:
    """Folders in which cached tables may be; the last one is writable."""
    import datasets

    folder = os.path.join(cache_dir or datasets.config.HF_DATASETS_CACHE, "sentence_ordering")
    return [folder] if is_writable(folder) else [folder, _temporary_folder(folder)]


def is_writable(folder: str) -> bool:
    """Whether files can be created in a folder, which is created if it does not exist."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@cache
def _temporary_folder(instead_of: str) -> str:
    folder = tempfile.mkdtemp(prefix="sentence-ordering-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    logger.warning(
        "%s is not writable: stories are cached in %s until this process ends. Set HF_HOME to a writable folder.",
        instead_of,
        folder,
    )
    return folder
