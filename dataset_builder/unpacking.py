"""Compressed files of stories, within bounds: a small file may unpack to gigabytes."""

from __future__ import annotations

import errno
import gzip
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import IO, Any, cast

from .errors import UserError

COMPRESSIONS = (".gz", ".zst", ".zip")
FREE_BYTES = 2**26
"""Any file may unpack to 64 MiB; a larger one is read as long as it is not compressed more than `MOST_COMPRESSED`."""
MOST_COMPRESSED = 100
"""Maximum ratio of unpacked to compressed size; text is compressed to a third or a tenth."""
_DAMAGED = (
    EOFError, OSError, ValueError, RuntimeError, LookupError, ArithmeticError, struct.error, zlib.error, lzma.LZMAError,
    zipfile.BadZipFile,
)  # fmt: skip


class UnpackingError(UserError):
    """A compressed file that is damaged, unpacks to more than the limit, or is an archive of several files."""


def split_compression(name: str) -> tuple[str, str]:
    """A file's name without the suffix of its compression, and that suffix, empty if there is none."""
    suffix = PurePath(name).suffix
    return (name.removesuffix(suffix), suffix.lower()) if suffix.lower() in COMPRESSIONS else (name, "")


def unpacked(stream: IO[bytes], compression: str) -> IO[bytes]:
    """The content of a compressed file, unpacked while it is read; `seek(0)` returns to the beginning.

    Args:
        stream: the compressed bytes.
        compression: one of `COMPRESSIONS`.

    Raises:
        UnpackingError: now or while reading.
    """
    return io.BufferedReader(_Unpacked(stream, compression), 1 << 16)


def zip_member(stream: IO[bytes]) -> str:
    """The name of the file in a ZIP archive of one file; folders and hidden files are ignored.

    Raises:
        UnpackingError: it is damaged or does not have one file.
    """
    with _errors(), zipfile.ZipFile(stream) as archive:
        names = [name for name in archive.namelist() if not _is_ignored(name)]
    if len(names) != 1:
        found = ", ".join(names[:3]) + (", …" if len(names) > 3 else "") or "nothing"
        raise UnpackingError(f"an archive of {len(names)} files ({found}), not of one: unpack it and name the files")
    return names[0]


def _is_ignored(name: str) -> bool:
    return name.endswith("/") or name.startswith("__MACOSX/") or PurePath(name).name.startswith(".")


class _Unpacked(io.RawIOBase):
    def __init__(self, packed: IO[bytes], compression: str) -> None:
        if not packed.seekable():
            raise UnpackingError("a compressed file in a pipe: unpack it before the pipe")
        self._packed = packed
        self._compression = compression
        self._opened: list[IO[bytes]] = []  # kept, because Arrow's stream closes the file when it is released
        self._limit = FREE_BYTES + MOST_COMPRESSED * packed.seek(0, io.SEEK_END)
        self.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        if (offset, whence) != (0, 0):
            raise io.UnsupportedOperation("a compressed file is read from the beginning")
        self._packed.seek(0)
        self._position = 0
        with _errors():
            self._opened.append(_decompressor(self._packed, self._compression))
        return 0

    def readinto(self, buffer: Any) -> int:
        with _errors():
            content = self._opened[-1].read(len(buffer))
        buffer[: len(content)] = content
        self._position += len(content)
        if self._position > self._limit:
            raise UnpackingError(
                f"it unpacks to over {self._limit:,} bytes, more than {MOST_COMPRESSED} times its size; if that is "
                "right, unpack it and name the unpacked file"
            )
        return len(content)


def _decompressor(packed: IO[bytes], compression: str) -> IO[bytes]:
    if compression == ".gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=packed))
    if compression == ".zst":  # by Arrow: other readers of Python stop at the end of the first frame
        import pyarrow as pa

        return cast(IO[bytes], pa.CompressedInputStream(pa.PythonFile(packed, "r"), "zstd"))
    return zipfile.ZipFile(packed).open(zip_member(packed))


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (UnpackingError, io.UnsupportedOperation):
        raise
    except _DAMAGED as error:
        if getattr(error, "errno", None) not in (None, errno.EINVAL):  # the disk; EINVAL is a position in a ZIP archive
            raise
        raise UnpackingError(f"damaged, cut off or encrypted ({error}): download it again, or unpack it") from None
