"""Names that a person gives to what is to be written, looked at before anything is computed for it."""

from __future__ import annotations

import os
from contextlib import suppress


def check_file_name(flag: str, path: str) -> None:
    """Refuses a file that could not be written.

    Raises:
        ValueError: if the path is blank or a folder, or its folder is not there.
        OSError: if the file system takes no such name.
    """
    if not path.strip():
        raise ValueError(f"{flag} {path!r} is no name of a file")
    with suppress(FileNotFoundError):
        os.lstat(path)
    if os.path.isdir(path):
        raise ValueError(f"{flag} {path} is a folder, where a file is to be written")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise ValueError(f"{flag} {path}: there is no folder {os.path.dirname(path)}")


def check_folder_name(flag: str, path: str) -> None:
    """Refuses a blank one, which would mean the folder that the person is in.

    Raises:
        ValueError: if it is blank.
    """
    if not path.strip():
        raise ValueError(f"{flag} {path!r} is no name of a folder")
