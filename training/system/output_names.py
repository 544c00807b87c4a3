"""Checks of output paths before any work is done."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress

from dataset_builder import UserError


def check_file_name(flag: str, path: str) -> None:
    """Refuses the path of a file that cannot be written.

    Raises:
        UserError: if the path is blank or a folder, or its folder does not exist.
        OSError: if the file system does not allow the name.
    """
    if not path.strip():
        raise UserError(f"{flag} {path!r} is not a valid file name")
    with suppress(FileNotFoundError):
        os.lstat(path)
    if os.path.isdir(path):
        raise UserError(f"{flag} {path} is a folder, where a file is to be written")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UserError(f"{flag} {path}: there is no folder {os.path.dirname(path)}")


def check_folder_name(flag: str, path: str) -> None:
    """Refuses a blank path, which would mean the working directory.

    Raises:
        UserError: if it is blank.
    """
    if not path.strip():
        raise UserError(f"{flag} {path!r} is not a valid folder name")


def check_apart(flag: str, output: str, *, data: Iterable[str] = (), models: Iterable[str] = ()) -> None:
    """Refuses an output that would overwrite an input, or be read as a part of it the next time.

    Symbolic and hard links are resolved. Inputs that are not local (ids on the Hub, `sample`) are ignored.

    Args:
        flag: the flag of the output, for messages.
        output: a file or a folder, which need not exist.
        data: files and folders of stories; the output may not be one of them, nor a file in one.
        models: folders of models and encoders; the output may not be one of them, nor within one.

    Raises:
        UserError: naming both.
    """
    for path in data:
        if _is_same(output, path):
            raise UserError(f"{flag} {output} is the input {path} itself: choose another name")
        if (
            os.path.isdir(path)
            and not os.path.isdir(output)
            and os.path.splitext(output)[1]
            and _folder(output) == _real(path)
        ):
            raise UserError(f"{flag} {output} is in {path}, whose files are the input: choose another folder")
    for path in models:
        if os.path.isdir(path) and _is_inside(output, path):
            raise UserError(f"{flag} {output} is in {path}, which holds the model: choose another folder")


def check_not_overwritten(flag: str, output: str, inputs: Iterable[str]) -> None:
    """Refuses inputs within a folder that will be overwritten.

    Raises:
        UserError: naming both.
    """
    for path in inputs:
        if os.path.exists(path) and _is_inside(path, output):
            raise UserError(f"{path} is in {flag} {output}, which is to be replaced: choose another folder")


def _is_same(output: str, path: str) -> bool:
    with suppress(OSError):
        there = os.stat(output)
        is_kept = stat.S_ISREG(there.st_mode) or stat.S_ISDIR(there.st_mode)
        return is_kept and os.path.samestat(there, os.fstat(0) if path == "-" else os.stat(path))
    return False


def _is_inside(path: str, folder: str) -> bool:
    return os.path.commonpath([_real(path), _real(folder)]) == _real(folder)


def _real(path: str) -> str:
    return os.path.normcase(os.path.realpath(path))


def _folder(path: str) -> str:
    return os.path.dirname(_real(path))
