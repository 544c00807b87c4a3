"""One run at a time in a folder."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import CommandFailed

_TAKEN = (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
_held: set[int] = set()


class FolderInUse(CommandFailed):
    """Another run writes to the folder."""


@contextmanager
def only_run_in(flag: str, folder: Path) -> Iterator[None]:
    """Creates and locks a folder; at the end it is removed if it is empty.

    The operating system releases the lock when the process ends or is killed. On network file systems without locks,
    the folder is not locked.

    Args:
        flag: the flag that names the folder, for messages.
        folder: the folder.

    Raises:
        FolderInUse: if another run has locked it.
        OSError: if the folder cannot be created.
    """
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    handle = _open(folder)
    try:
        try:
            _lock(handle)
        except OSError as error:
            if error.errno in _TAKEN:
                raise FolderInUse(
                    f"another run writes to {flag} {folder}: wait for it, or choose another folder"
                ) from None
        _held.add(handle)
        yield
    finally:
        _held.discard(handle)
        os.close(handle)
        with suppress(OSError):
            for empty in made:
                empty.rmdir()


def _open(folder: Path) -> int:
    if os.name != "nt":
        return os.open(folder, os.O_RDONLY)
    name = hashlib.sha256(os.path.normcase(os.path.realpath(folder)).encode()).hexdigest()[:32]
    return os.open(Path(tempfile.gettempdir()) / f"sentence-ordering-{name}.lock", os.O_RDWR | os.O_CREAT)


def _lock(handle: int) -> None:
    if os.name != "nt":
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]


def _close_in_child() -> None:
    """Closes the lock in a forked worker, which may outlive a killed run."""
    for handle in list(_held):
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
