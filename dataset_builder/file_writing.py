"""The one way in which files are written here: a name never stands for half of a file.

A file is written under a temporary name in the folder of its target, flushed to the disk, and renamed. Links are
followed, an existing file keeps its mode, and a device, a FIFO or a socket is written to instead of being replaced.
What is unfinished is removed after an exception, SIGTERM and SIGHUP. A full disk is an `OSError` that names the target
and the space, whichever library met it.

Every package may import this module, and it imports none of them.
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
"""Is in the name of everything that is being written."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
# What libraries say that do not raise an OSError: those in Rust, and torch, which writes its archives in C++.
_FULL_WORDS = ("No space left on device", "os error 28", "Disk quota exceeded", "os error 122")
_ENDING_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
_to_remove: dict[Path, int] = {}  # what is unfinished, and the process that writes it


def write_text(path: StrPath, text: str) -> None:
    """Writes a text file as UTF-8, line ends as they are."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: StrPath, content: bytes) -> None:
    """Writes a file."""
    with new_file(path) as unfinished:
        unfinished.write_bytes(content)


@contextmanager
def new_file(path: StrPath) -> Iterator[Path]:
    """Gives an empty file to write to; it becomes `path` in the end, and is removed after an exception.

    Raises:
        OSError: about `path`, whatever the file was called meanwhile.
    """
    target = Path(os.path.realpath(path))
    with errors_about(path):
        special = _special(path)
        unfinished = _create(target.parent if special is None else Path(tempfile.gettempdir()), target)
    with _removed_in_the_end(unfinished), errors_about(path):
        mode = stat.S_IMODE(os.stat(unfinished).st_mode)
        yield unfinished
        if special is None:
            os.chmod(unfinished, mode)  # safetensors makes a new file, which nobody else may read
            settle(unfinished, target)
        else:
            _write_through(unfinished, path, special)


@contextmanager
def staged(folder: StrPath) -> Iterator[Path]:
    """Gives a new folder inside of this one, for files that `settle` moves; it is gone in the end.

    Raises:
        OSError: about `folder`.
    """
    folder = Path(folder)
    with errors_about(folder):
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=folder, prefix=f".{UNFINISHED}-"))
    with _removed_in_the_end(staging), errors_about(folder):
        yield staging


@contextmanager
def new_folder(folder: StrPath, *, replaces: bool = False) -> Iterator[Path]:
    """Gives an empty folder to fill; it becomes `folder` in the end, unless it is removed.

    Args:
        folder: its parents are made; without `replaces` it must be missing or empty.
        replaces: whether what is there is removed, when the new folder is whole.

    Raises:
        OSError: about `folder`.
    """
    whole = Path(os.path.realpath(folder))
    with errors_about(folder):
        whole.parent.mkdir(parents=True, exist_ok=True)
        staging = whole.parent / _temporary_name(whole)
        staging.mkdir()
        old = whole.parent / _temporary_name(whole)
    with _removed_in_the_end(old), _removed_in_the_end(staging), errors_about(folder):
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
    """Moves a finished file to its name: links are followed, a file that is there is replaced and its mode kept."""
    target = Path(os.path.realpath(path))
    if _special(target) is not None or not _same_disk(made, target.parent):
        with new_file(target) as unfinished:
            shutil.copyfile(made, unfinished)
        return
    with suppress(FileNotFoundError):
        there = os.stat(target)
        os.chmod(made, stat.S_IMODE(there.st_mode))
        if hasattr(os, "chown"):
            with suppress(OSError):  # only the administrator may give a file away
                os.chown(made, there.st_uid, there.st_gid)
    _flush(made)
    os.replace(made, target)
    _flush(target.parent)


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an exception, or one that led to it, reports that the disk is full."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if getattr(error, "errno", None) in _FULL or any(words in str(error) for words in _FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def no_space(path: StrPath) -> OSError:
    """The error of a full disk: names the path, and the space where it is or was to be."""
    folder = Path(os.path.realpath(path))
    while not folder.exists():
        folder = folder.parent
    with suppress(OSError):
        usage = shutil.disk_usage(folder)
        space = f" ({_in_words(usage.free)} of {_in_words(usage.total)} are free)"
        return OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}{space}", os.fspath(path))
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))


def _in_words(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


@contextmanager
def errors_about(path: StrPath) -> Iterator[None]:
    """Errors name what was to be written: nobody knows the temporary name, and some do not even name that."""
    try:
        yield
    except Exception as error:
        name = getattr(error, "filename", None)
        is_known = isinstance(name, (str, os.PathLike)) and UNFINISHED not in os.fspath(name)
        if not is_known and disk_is_full(error):
            raise no_space(path) from error
        # torch fails to close its archive, and tells only of that; what has led to it says why.
        reason = error.__context__ if type(error) is RuntimeError else error
        if not is_known and isinstance(reason, OSError) and reason.strerror:
            raise OSError(reason.errno, reason.strerror, os.fspath(path)) from error
        raise


def _special(path: StrPath) -> int | str | None:
    """How to write to what is not to be replaced: a device, a FIFO, or what standard output or error go to.

    None for a regular file, and for what is not there.

    Raises:
        IsADirectoryError: if it is a folder.
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


def _write_through(made: Path, path: StrPath, special: int | str) -> None:
    if isinstance(special, int):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        special = os.dup(special)
    with open(made, "rb") as source, open(special, "wb", opener=_open_existing) as sink:
        shutil.copyfileobj(source, sink)


def _open_existing(path: str, _: int) -> int:
    return os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))


def _temporary_name(target: Path) -> str:
    name = os.fsencode(target.name)[:100].decode("utf-8", "ignore")  # a file system has a limit for names
    return f".{name}.{UNFINISHED}-{secrets.token_hex(6)}"


def _create(folder: Path, target: Path) -> Path:
    """A new file that nobody had before, no link that somebody has laid out; with the mode that new files have here."""
    unfinished = folder / f"{_temporary_name(target)}{target.suffix[:20]}"
    os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if target.exists() else 0o666))
    return unfinished


def _same_disk(one: StrPath, other: StrPath) -> bool:
    return os.stat(one).st_dev == os.stat(other).st_dev


def _flush(path: StrPath) -> None:
    """To the disk; some file systems, and Windows for folders, do not offer it."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _removed_in_the_end(path: Path) -> Iterator[None]:
    """Removes what is still there in the end, whether by an exception or by a signal that ends the process."""
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
        if process == os.getpid():  # one that was forked meanwhile has nothing to remove
            _remove(path)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
