"""A full disk in one line, whichever library met it."""

from __future__ import annotations

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


def full_disk_in_words(error: BaseException, arguments: Iterable[str]) -> str | None:
    """The path that was to be written and the space there; None for an error that is not of a full disk.

    Libraries often do not say what they wrote. Then it is one of the command's paths, a cache or the folder for
    temporary files: the first whose disk is full.

    Args:
        error: what ended the command.
        arguments: the command's.
    """
    if not disk_is_full(error):
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
    return os.strerror(28)


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
