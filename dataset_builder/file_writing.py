"""Writes files atomically; all packages write their files with this module, and it imports none of them.

A file is written under a temporary name in the folder of its target, flushed to the disk, and renamed. Symbolic links
are followed, an existing file keeps its mode, and a device, a FIFO or a socket is written to instead of being replaced.
Unfinished files are removed after an exception, SIGTERM and SIGHUP. If the disk is full, the error is an `OSError` that
names the target and the free space, whichever library raised it.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import signal
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

StrPath = str | os.PathLike[str]
UNFINISHED = "unfinished"
"""Part of the name of every unfinished file and folder."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
# Messages of libraries that do not raise an OSError: those in Rust, and torch, which writes its archives in C++.
_FULL_WORDS = ("No space left on device", "os error 28", "Disk quota exceeded", "os error 122")
_ENDING_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
_to_remove: dict[Path, int] = {}  # unfinished path: id of the process that writes it


def write_text(path: StrPath, text: str) -> None:
    """Writes a text file as UTF-8, with the line ends of the text."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: StrPath, content: bytes) -> None:
    """Writes a file from bytes."""
    with new_file(path) as unfinished:
        unfinished.write_bytes(content)


@contextmanager
def new_file(path: StrPath) -> Iterator[Path]:
    """Yields an empty file to write to, which is renamed to `path` at the end, or removed after an exception.

    Raises:
        OSError: naming `path`, not the temporary file.
    """
    target = Path(os.path.realpath(path))
    with errors_about(path):
        special = _special(path)
        unfinished = _create(target.parent if special is None else Path(tempfile.gettempdir()), target)
    with _removed_at_the_end(unfinished), errors_about(path):
        mode = stat.S_IMODE(os.stat(unfinished).st_mode)
        yield unfinished
        if special is None:
            os.chmod(unfinished, mode)  # safetensors makes a new file that other users may not read
            settle(unfinished, target)
        else:
            _write_through(unfinished, special)


@contextmanager
def staged(folder: StrPath) -> Iterator[Path]:
    """Yields a temporary folder inside of `folder`, for files that `settle` moves; it is removed at the end.

    Raises:
        OSError: naming `folder`.
    """
    folder = Path(folder)
    with errors_about(folder):
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=folder, prefix=f".{UNFINISHED}-"))
    with _removed_at_the_end(staging), errors_about(folder):
        yield staging


@contextmanager
def new_folder(folder: StrPath, *, replaces: bool = False) -> Iterator[Path]:
    """Yields an empty folder to fill, which is renamed to `folder` at the end, unless the caller has removed it.

    Args:
        folder: its parents are created; without `replaces` it must not exist, or be empty.
        replaces: whether an existing folder is removed, once the new one is complete.

    Raises:
        OSError: naming `folder`.
    """
    whole = Path(os.path.realpath(folder))
    with errors_about(folder):
        whole.parent.mkdir(parents=True, exist_ok=True)
        staging = whole.parent / _temporary_name(whole)
        staging.mkdir()
        old = whole.parent / _temporary_name(whole)
    with _removed_at_the_end(old), _removed_at_the_end(staging), errors_about(folder):
        yield staging
        if staging.exists():
            for file in staging.rglob("*"):
                if file.is_file():
                    _flush(file)
            if replaces and whole.exists():
                os.replace(whole, old)
            elif whole.exists():
                whole.rmdir()
            os.replace(staging, whole)
            _flush(whole.parent)


def settle(made: StrPath, path: StrPath) -> None:
    """Moves a finished file to `path`: links are followed, an existing file is replaced and its mode kept."""
    target = Path(os.path.realpath(path))
    if _special(target) is not None or not _same_disk(made, target.parent):
        with new_file(target) as unfinished:
            shutil.copyfile(made, unfinished)
        return
    with suppress(FileNotFoundError):
        there = os.stat(target)
        os.chmod(made, stat.S_IMODE(there.st_mode))
        if hasattr(os, "chown"):
            with suppress(OSError):  # only root may change the owner
                os.chown(made, there.st_uid, there.st_gid)
    _flush(made)
    os.replace(made, target)
    _flush(target.parent)


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an exception, or one of its causes, reports a full disk."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if getattr(error, "errno", None) in _FULL or any(words in str(error) for words in _FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def no_space(path: StrPath) -> OSError:
    """The error of a full disk, with the path and the free space there."""
    folder = Path(os.path.realpath(path))
    while not folder.exists():
        folder = folder.parent
    with suppress(OSError):
        usage = shutil.disk_usage(folder)
        space = f" ({usage.free / 1e6:,.1f} of {usage.total / 1e6:,.1f} MB are free)"
        return OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}{space}", os.fspath(path))
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))


@contextmanager
def errors_about(path: StrPath) -> Iterator[None]:
    """Makes errors name the path to be written, instead of a temporary name or none."""
    try:
        yield
    except Exception as error:
        name = getattr(error, "filename", None)
        is_known = isinstance(name, (str, os.PathLike)) and UNFINISHED not in os.fspath(name)
        if not is_known and disk_is_full(error):
            raise no_space(path) from error
        # torch reports only that it could not close its archive; the context of the error has the reason.
        reason = error.__context__ if type(error) is RuntimeError else error
        if not is_known and isinstance(reason, OSError) and reason.strerror:
            raise OSError(reason.errno, reason.strerror, os.fspath(path)) from error
        raise


def _special(path: StrPath) -> int | str | None:
    """The stream number or path of what must not be replaced: a device, a FIFO, or where standard output or error go.

    None for a regular file and for a missing one.

    Raises:
        IsADirectoryError: it is a folder.
    """
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(there.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    for stream in (1, 2):
        with suppress(OSError):
            if os.path.samestat(there, os.fstat(stream)):
                return stream
    return None if stat.S_ISREG(there.st_mode) else os.fspath(path)


def _write_through(made: Path, special: int | str) -> None:
    if isinstance(special, int):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        special = os.dup(special)
    with open(made, "rb") as source, open(special, "wb", opener=_open_existing) as sink:
        shutil.copyfileobj(source, sink)


def _open_existing(path: str, _: int) -> int:
    return os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))


def _temporary_name(target: Path) -> str:
    name = os.fsencode(target.name)[:100].decode("utf-8", "ignore")  # file systems limit the length of names
    return f".{name}.{UNFINISHED}-{secrets.token_hex(6)}"


def _create(folder: Path, target: Path) -> Path:
    """Creates a file that did not exist, nor as a link, with the mode of new files."""
    unfinished = folder / f"{_temporary_name(target)}{target.suffix[:20]}"
    os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if target.exists() else 0o666))
    return unfinished


def _same_disk(one: StrPath, other: StrPath) -> bool:
    return os.stat(one).st_dev == os.stat(other).st_dev


def _flush(path: StrPath) -> None:
    """Flushes to the disk, where the file system supports it."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _removed_at_the_end(path: Path) -> Iterator[None]:
    """Removes the path at the end if it still exists, also after an exception or a signal that ends the process."""
    _to_remove[path] = os.getpid()
    caught = []
    if threading.current_thread() is threading.main_thread():
        caught = [number for number in _ENDING_SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in caught:
        signal.signal(number, _remove_and_end)
    try:
        yield
    finally:
        _remove(path)
        del _to_remove[path]
        for number in caught:
            if signal.getsignal(number) is _remove_and_end:
                signal.signal(number, signal.SIG_DFL)


def _remove_and_end(number: int, _: Any) -> None:
    for path, process in list(_to_remove.items()):
        if process == os.getpid():  # a forked process removes nothing
            _remove(path)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
