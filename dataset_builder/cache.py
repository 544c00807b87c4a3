"""Where tables of stories are cached, and how a file's content is recognised."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache

from .errors import UserError

logger = logging.getLogger(__name__)


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
    """A hash of the names and contents of all files in a folder, but for hidden ones."""
    digest = hashlib.blake2b(digest_size=16)
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = os.path.join(parent, name)
            digest.update(f"{os.path.relpath(path, folder)}\0{content_hash(path)}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def cache_folders(cache_dir: str | os.PathLike[str] | None = None) -> Sequence[str]:
    """Folders to look for cached tables in: the one in the cache of `datasets`, and a temporary one if it is in use."""
    folder = _preferred(cache_dir)
    return [folder] if is_writable(folder) else [folder, _temporary_folder(folder)]


def writable_cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> str:
    """A folder to write cached tables to; a temporary one, with a warning, if that of `datasets` cannot be written.

    Args:
        cache_dir: as in `datasets`, whose own it is by default.
    """
    return cache_folders(cache_dir)[-1]


def _preferred(cache_dir: str | os.PathLike[str] | None) -> str:
    import datasets

    return os.path.join(cache_dir or datasets.config.HF_DATASETS_CACHE, "sentence_ordering")


def is_writable(folder: str) -> bool:
    """Whether files can be made in a folder, which is made if it is not there."""
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
        "%s cannot be written: stories are cached in %s until this process ends. Set HF_HOME to a folder that you can "
        "write to.",
        instead_of,
        folder,
    )
    return folder
