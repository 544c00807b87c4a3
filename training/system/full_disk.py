"""Error messages for a full disk."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress

from dataset_builder.file_writing import disk_is_full, no_space

# Caches of the libraries: the variable that moves each, and where it is otherwise.
_CACHES = (
    ("HF_DATASETS_CACHE", "~/.cache/huggingface/datasets"),
    ("HF_HUB_CACHE", "~/.cache/huggingface/hub"),
    ("HF_HOME", "~/.cache/huggingface"),
    ("MPLCONFIGDIR", "~/.config/matplotlib"),
)
_FULL = 2**20  # bytes that are left on a disk when there is no room for the next write


def full_disk_message(error: BaseException, arguments: Iterable[str]) -> str | None:
    """The path that could not be written and the free space there; None if the disk is not the reason.

    If the error has no path, it is the first of the command's paths, the caches and the temporary folder whose disk is
    full.

    Args:
        error: the exception that ended the command.
        arguments: of the command line.
    """
    is_torch = "inline_container.cc" in str(error)  # torch's archive writer does not say why a write failed
    if not is_torch and not disk_is_full(error):
        return None
    cause: BaseException | None = error
    while cause is not None:
        name = getattr(cause, "filename2", None) or getattr(cause, "filename", None)
        if isinstance(name, str):
            known = cause if "are free" in str(cause) else no_space(name)
            return f"{name}: {known.strerror}"  # type: ignore[attr-defined]
        cause = cause.__cause__ or cause.__context__
    for path in _candidates(arguments):
        with suppress(OSError):
            if shutil.disk_usage(_existing(path)).free < _FULL:
                return f"{path}: {no_space(path).strerror}"
    return None if is_torch else os.strerror(errno.ENOSPC)


def _candidates(arguments: Iterable[str]) -> Iterator[str]:
    values = [argument.partition("=")[2] or argument for argument in arguments]
    yield from (value for value in values if not value.startswith("-") and os.path.exists(_existing(value)))
    yield from (os.environ.get(variable) or os.path.expanduser(usual) for variable, usual in _CACHES)
    yield from (tempfile.gettempdir(), os.getcwd())


def _existing(path: str) -> str:
    path = os.path.realpath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path
