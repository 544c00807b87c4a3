"""Stories that stay in their Parquet files, on disk or on the Hub, and are read a stretch at a time, in any order.

`datasets` streams as well, but forward only: its shuffle buffer cannot be put back to where it stood, and processes
that do not divide the number of files read everything. The footers of the files say how many rows there are and where;
with them, each process reads its own rows and no others, and a run that is resumed begins where it stopped.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from .cache import content_hash
from .errors import UserError
from .formats import parquet_columns
from .parquet_limits import ROWS_AT_ONCE, TooLarge, bounded, repeated_columns
from .readers import open_bytes
from .records import story_from_record
from .story import BadRecord, SingleSentence, Story

if TYPE_CHECKING:
    import pyarrow.parquet as pq

logger = logging.getLogger(__name__)
_FOOTERS_AT_ONCE = 8  # each is a question or two to the Hub


@dataclass(frozen=True)
class StreamedFile:
    """A Parquet file of which only the footer has been read.

    Attributes:
        name: for messages and made-up ids.
        path: where it is: a path, or an fsspec URL such as `hf://datasets/user/name@commit/train.parquet`.
        columns: those that a story is read from.
        groups: rows of each of its row groups.
    """

    name: str
    path: str
    columns: tuple[str, ...]
    groups: tuple[int, ...]


@dataclass(frozen=True)
class ReadingOrder:
    """The row groups of a stream in the order in which they are read.

    Attributes:
        files, groups: (n,) int, which row group of which file.
        ends: (n,) int, rows up to the end of each.
    """

    files: np.ndarray
    groups: np.ndarray
    ends: np.ndarray


class StoryStream:
    """The stories of some Parquet files, in no more memory than a batch of rows takes.

    Args:
        files: `(name, path)` pairs.

    Raises:
        BadRecord: one is no Parquet, or has no column of sentences.
        UserError: one may not be read, or there is no story in any.
        OSError: the Hub cannot be reached.
    """

    def __init__(self, files: Sequence[tuple[str, str]]) -> None:
        self._warned = False
        with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
            self.files = list(pool.map(lambda file: _read_footer(*file), files))
        if not sum(map(sum, (file.groups for file in self.files))):
            raise UserError(f"no stories in {', '.join(name for name, _ in files)}")
        sizes = [rows for file in self.files for rows in file.groups]
        self._first_rows = np.cumsum([0, *sizes])[:-1]
        self._first_groups = np.cumsum([0, *(len(file.groups) for file in self.files)])

    def __len__(self) -> int:
        """Stories."""
        return sum(sum(file.groups) for file in self.files)

    def digest(self) -> str:
        """A hash of the content of the files, which are read for it; of a file on the Hub the path names the commit."""
        files = [(file.path, file.groups) if "://" in file.path else content_hash(file.path) for file in self.files]
        return hashlib.sha256(repr(files).encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def order(self, seed: int | None = None, epoch: int = 0) -> ReadingOrder:
        """An order to read in: of the files and of the row groups in each, at random; that of the files without a seed.

        The row groups of a file stay together, so that it is opened once.
        """
        generator = None if seed is None else np.random.default_rng([seed, epoch])
        shuffled = np.arange if generator is None else generator.permutation
        order = [(file, group) for file in shuffled(len(self.files)) for group in shuffled(self._groups(int(file)))]
        files, groups = np.array(order).T
        return ReadingOrder(files, groups, np.cumsum([self.files[file].groups[group] for file, group in order]))

    def read(
        self,
        order: ReadingOrder,
        start: int = 0,
        stop: int | None = None,
        *,
        on_error: Callable[[BadRecord], Story | None] | None = None,
    ) -> Iterator[tuple[int, Story]]:
        """The stories from `start` to `stop` in an order, each with its number in the order of the files.

        What stands before `start` in its row group is passed over undecoded; no other row group is touched.

        Args:
            order: of the row groups.
            start, stop: positions in it.
            on_error: is given each bad record, and reading goes on. Without it, a record of a single sentence is a
                story like any other, because batches were planned before it was read; the first one is warned of.

        Raises:
            BadRecord: a record is no story, or the file cannot be read on.
        """
        stop = len(self) if stop is None else stop
        chunk = int(np.searchsorted(order.ends, start, side="right"))
        with ExitStack() as opened:
            number, table = -1, None
            while start < stop:
                end = int(order.ends[chunk])
                if number != order.files[chunk]:
                    opened.close()
                    number = int(order.files[chunk])
                    table = _parquet(opened.enter_context(open_bytes(self.files[number].path)), self.files[number])
                assert table is not None
                group = int(order.groups[chunk])
                begin = end - self.files[number].groups[group]
                rows = start - begin, min(stop, end) - begin
                yield from self._read_group(table, number, group, rows, on_error or self._keep_single_sentence)
                start, chunk = end, chunk + 1

    def _groups(self, file: int) -> int:
        return len(self.files[file].groups)

    def _read_group(
        self,
        table: pq.ParquetFile,
        file: int,
        group: int,
        rows: tuple[int, int],
        on_error: Callable[[BadRecord], Story | None],
    ) -> Iterator[tuple[int, Story]]:
        first = int(self._first_rows[self._first_groups[file] + group])
        before = sum(self.files[file].groups[:group])
        for row, record in _records(table, self.files[file], group, before, *rows):
            try:
                story: Story | None = story_from_record(record, file=self.files[file].name, row=before + row + 1)
            except BadRecord as error:
                story = on_error(error)
            if story is not None:
                yield first + row, story

    def _keep_single_sentence(self, error: BadRecord) -> Story:
        if not isinstance(error, SingleSentence) or error.story is None:
            raise error
        if not self._warned:
            self._warned = True
            logger.warning("%s; it is not trained on, nor are other such records", error)
        return error.story


def _records(
    table: pq.ParquetFile, file: StreamedFile, group: int, before: int, start: int, stop: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows from `start` to `stop` of a row group, counted in it."""
    import pyarrow as pa

    done = 0
    try:
        for batch in table.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=[group], columns=list(file.columns)):
            first, last = max(start - done, 0), min(stop - done, batch.num_rows)
            if first < last:
                number = done + first
                for part in bounded(batch.slice(first, last - first)):
                    yield from enumerate(part.to_pylist(), number)
                    number += part.num_rows
            done += batch.num_rows
            if done >= stop:
                return
    except TooLarge as error:
        raise BadRecord(file.name, before + done + 1, str(error)) from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if _is_outside(error):
            raise
        raise BadRecord(file.name, before + done + 1, f"not readable as Parquet: {error}") from None


def _read_footer(name: str, path: str) -> StreamedFile:
    with open_bytes(path) as stream:
        table = _parquet(stream, StreamedFile(name, path, (), ()))
        columns = parquet_columns(table.schema_arrow.names, name)
        if isinstance(columns, BadRecord):
            raise columns
        metadata = table.metadata
        groups = tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
    return StreamedFile(name, path, tuple(columns), groups)


def _parquet(stream: IO[bytes], file: StreamedFile) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # A row group's columns in one request, not in many that hop between them; on disk as `parquet_records`.
    options = {"pre_buffer": True} if "://" in file.path else {"pre_buffer": False, "buffer_size": 1 << 16}
    try:
        table = pq.ParquetFile(stream, **options)
        repeated = repeated_columns(table.metadata, file.columns)
        return pq.ParquetFile(stream, **options, read_dictionary=repeated) if repeated else table
    except TooLarge as error:
        raise BadRecord(file.name, None, str(error)) from None
    except (pa.ArrowException, OSError) as error:
        if _is_outside(error):
            raise
        raise BadRecord(file.name, None, f"not readable as Parquet: {error}") from None


def _is_outside(error: Exception) -> bool:
    """Whether it is the disk or the network that failed, and not the content: of that, Arrow makes a bare OSError."""
    return isinstance(error, OSError) and (type(error) is not OSError or bool(error.errno))
