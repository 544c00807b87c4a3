"""Stories that stay in their Parquet files, on disk or on the Hub, and are read in ranges of rows, in any order.

`datasets` streams too, but forward only: the state of its shuffle buffer cannot be restored, and each process reads
everything unless the number of processes divides the number of files. Here the footers of the files give the row
counts, so that each process reads only its own rows and a resumed run starts where it stopped.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import UserError
from .parquet_format import ROWS_AT_ONCE, bad_parquet, bounded, open_parquet
from .sentence_splitting import splitter_of
from .story import BadRecord, SingleSentence, Story, story_from_record
from .story_cache import content_hash
from .story_files import open_bytes

if TYPE_CHECKING:
    import pyarrow.parquet as pq

logger = logging.getLogger(__name__)
_FOOTERS_AT_ONCE = 8  # each is one or two requests to the Hub


@dataclass(frozen=True)
class StreamedFile:
    """The footer of a Parquet file.

    Attributes:
        name: for messages and made-up ids.
        path: a path, or an fsspec URL such as `hf://datasets/user/name@commit/train.parquet`.
        columns: the columns from which a story is read.
        groups: number of rows of each row group.
    """

    name: str
    path: str
    columns: tuple[str, ...]
    groups: tuple[int, ...]


@dataclass(frozen=True)
class ReadingOrder:
    """The row groups of a stream in reading order.

    Attributes:
        files, groups: (n,) int, index of the file, and of the row group in it.
        ends: (n,) int, cumulative number of rows.
    """

    files: np.ndarray
    groups: np.ndarray
    ends: np.ndarray


class StoryStream:
    """The stories of some Parquet files, with one batch of rows in memory.

    Args:
        files: `(name, path)` pairs.
        split_sentences: language of the prose to split into sentences, as in `read_stories`.

    Raises:
        BadRecord: a file is not Parquet, or has no column of sentences.
        UserError: a file may not be read, or none has a story.
        OSError: the Hub cannot be reached.
    """

    def __init__(self, files: Sequence[tuple[str, str]], *, split_sentences: str | None = None) -> None:
        self._warned = False
        self._splitter = splitter_of(split_sentences)
        with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
            self.files = list(pool.map(lambda file: _read_footer(file[0], file[1], self._splitter is not None), files))
        if not sum(map(sum, (file.groups for file in self.files))):
            raise UserError(f"no stories in {', '.join(name for name, _ in files)}")
        sizes = [rows for file in self.files for rows in file.groups]
        self._first_rows = np.cumsum([0, *sizes])[:-1]
        self._first_groups = np.cumsum([0, *(len(file.groups) for file in self.files)])

    def __len__(self) -> int:
        """Number of stories."""
        return sum(sum(file.groups) for file in self.files)

    def digest(self) -> str:
        """A hash of the content of the files, which are read for it; the path of a file on the Hub has its commit."""
        files: list[Any] = [
            (file.path, file.groups) if "://" in file.path else content_hash(file.path) for file in self.files
        ]
        if self._splitter is not None:
            files.append(self._splitter.key)
        return hashlib.sha256(repr(files).encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def order(self, seed: int | None = None, epoch: int = 0) -> ReadingOrder:
        """A random order of the files and of the row groups in each; without a seed, the order of the files.

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
        """The stories from `start` to `stop` in an order, each with its index in the order of the files.

        Rows before `start` in its row group are skipped without decoding; no other row group is read.

        Args:
            order: of the row groups.
            start, stop: rows in this order.
            on_error: called with each bad record, after which reading continues. Without it, a record of a single
                sentence is a story like any other, because batches were planned before it was read; the first one
                is logged as a warning.

        Raises:
            BadRecord: a record is not a story, or the file is damaged.
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
                    file = self.files[number]
                    stream = opened.enter_context(open_bytes(file.path))
                    prose = self._splitter is not None
                    table = open_parquet(stream, file.name, prose=prose, remote="://" in file.path)[0]
                assert table is not None
                group = int(order.groups[chunk])
                begin = end - self.files[number].groups[group]
                rows = start - begin, min(stop, end) - begin
                yield from self._read_group(table, number, group, rows, on_error or self._keep_single_sentence)
                start, chunk = end, chunk + 1

    def rows_of(self, file: int, group: int) -> range:
        """The rows of a row group, as indices in the order of the files."""
        first = int(self._first_rows[self._first_groups[file] + group])
        return range(first, first + self.files[file].groups[group])

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
        first = self.rows_of(file, group).start
        before = sum(self.files[file].groups[:group])
        for row, record in _records(table, self.files[file], group, before, *rows):
            try:
                story: Story | None = story_from_record(
                    record, file=self.files[file].name, row=before + row + 1, splitter=self._splitter
                )
            except BadRecord as error:
                story = on_error(error)
            if story is not None:
                yield first + row, story

    def _keep_single_sentence(self, error: BadRecord) -> Story:
        if not isinstance(error, SingleSentence) or error.story is None:
            raise error
        if not self._warned:
            self._warned = True
            logger.warning("%s; this and similar records are not trained on", error)
        return error.story


def _records(
    table: pq.ParquetFile, file: StreamedFile, group: int, before: int, start: int, stop: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows from `start` to `stop` of a row group, with their index in it."""
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
    except Exception as error:
        raise bad_parquet(error, file.name, before + done + 1) from None


def _read_footer(name: str, path: str, prose: bool) -> StreamedFile:
    with open_bytes(path) as stream:
        table, columns = open_parquet(stream, name, prose=prose, remote="://" in path)
        metadata = table.metadata
        groups = tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
    return StreamedFile(name, path, tuple(columns), groups)
