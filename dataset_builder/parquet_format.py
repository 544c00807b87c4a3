"""Parquet: reading records within memory bounds, and writing rows as files of limited size.

A small Parquet file can unpack to gigabytes: a column may be compressed by any factor, and a value that is stored once
in a dictionary may be repeated in millions of rows for a few bytes each. The footer shows the first, which is refused.
For the second, the dictionary is kept as it is, so that the size of each story is known before it is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .file_writing import settle
from .line_formats import Records
from .story import BadRecord, story_columns

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ROWS_AT_ONCE = 64
"""Rows decoded at once: small batches are not slower, and 64 large stories fit into memory."""
LARGEST_STORY = 2**28
"""Maximum size of a story's sentences, in bytes."""
SHARD_BYTES = 500 * 2**20
"""Size of a written file in memory, before compression; the Hub recommends it for files that load quickly."""
_ROWS_WRITTEN_AT_ONCE = 1000
_SMALL = 2**24  # bytes; reading dictionaries takes five times as long, so larger files are read without
_MOST_COMPRESSED = 1000  # text is compressed to a third or a tenth


class TooLarge(ValueError):
    """The size to which a file would unpack exceeds the limit; the message states it."""


@dataclass(frozen=True)
class WrittenSplit:
    """Size of a split.

    Attributes:
        rows: number of rows.
        memory_bytes: as Arrow.
        file_bytes: of the Parquet files.
    """

    rows: int
    memory_bytes: int
    file_bytes: int


def parquet_records(
    stream: IO[bytes],
    file: str,
    *,
    prose: bool = False,
    group_by: str | None = None,
    rows: tuple[int, int] | None = None,
) -> Records:
    """The rows of an open file, with the columns from which a story is read.

    Args:
        stream, file, prose, group_by: as in `open_parquet`.
        rows: first row, counted from 1, and last row, inclusive; None: all.
    """
    row = 0
    try:
        table, columns = open_parquet(stream, file, prose=prose, group_by=group_by)
        for row, batch in _batches(table, columns, rows or (1, table.metadata.num_rows)):  # noqa: B007, for the error
            for part in bounded(batch):
                for record in part.to_pylist():
                    row += 1
                    yield row, record
    except Exception as error:
        yield bad_parquet(error, file, row + 1 if row else None)


def _batches(table: pq.ParquetFile, columns: list[str], rows: tuple[int, int]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows from the first to the last, in batches: the number of rows before each, and the batch."""
    first, last = rows
    sizes = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
    before = [0, *accumulate(sizes)]
    groups = [group for group in range(len(sizes)) if before[group] < last and before[group + 1] >= first]
    row = before[groups[0]] if groups else 0
    for batch in table.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=groups, columns=columns):
        skipped = max(0, first - 1 - row)
        if skipped < batch.num_rows:
            yield row + skipped, batch.slice(skipped, last - row - skipped)
        row += batch.num_rows
        if row >= last:
            return


def open_parquet(
    stream: IO[bytes], file: str, *, prose: bool = False, remote: bool = False, group_by: str | None = None
) -> tuple[pq.ParquetFile, list[str]]:
    """An open file, and its columns from which a story is read.

    Args:
        stream: the file's bytes.
        file: its name, for messages.
        prose: whether a column of prose is split into sentences.
        remote: request a row group's columns at once, instead of reading a part after the other as from a disk.
        group_by: a column to read in addition, if there is one of this name.

    Raises:
        BadRecord: it is not Parquet, unpacks to more than the limit, or has no column of sentences.
    """
    import pyarrow.parquet as pq

    # Without a buffer and with pre-buffering, a file written as one row group would be read whole.
    options: dict[str, Any] = {"pre_buffer": True} if remote else {"pre_buffer": False, "buffer_size": 1 << 16}
    try:
        table = pq.ParquetFile(stream, **options)
        names = table.schema_arrow.names
        columns = story_columns(names, file, prose=prose)
        columns += [name for name in names if name == group_by and name not in columns]
        if repeated := repeated_columns(table.metadata, columns):
            table = pq.ParquetFile(stream, **options, read_dictionary=repeated)
    except Exception as error:
        raise bad_parquet(error, file, None) from None
    return table, columns


def bad_parquet(error: Exception, file: str, row: int | None) -> BadRecord:
    """The error of a file or row with bad content. Errors of the disk or the network are raised unchanged.

    Args:
        error: what Arrow raised; it raises a bare OSError for content.
        file, row: as in `BadRecord`.
    """
    import pyarrow as pa

    if isinstance(error, BadRecord):
        return error
    if isinstance(error, TooLarge):
        return BadRecord(file, row, str(error))
    is_content = isinstance(error, (pa.ArrowException, UnicodeDecodeError)) or type(error) is OSError
    if not is_content or getattr(error, "errno", None):
        raise error
    return BadRecord(file, row, f"not readable as Parquet: {error}")


def repeated_columns(metadata: pq.FileMetaData, columns: Sequence[str]) -> list[str]:
    """Paths of columns in which a few large values may be repeated very often, to read them as dictionaries.

    Empty for files larger than 16 MiB.

    Args:
        metadata: of the file.
        columns: names of the columns to read.

    Raises:
        TooLarge: a column is compressed more than text can be.
    """
    paths, file_size = set(), 0
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(number)
            if chunk.path_in_schema.partition(".")[0] not in columns:
                continue
            size = chunk.total_uncompressed_size
            if size > _SMALL and size > _MOST_COMPRESSED * chunk.total_compressed_size:
                raise TooLarge(f"column {chunk.path_in_schema!r} would unpack to {size:,} bytes")
            file_size += chunk.total_compressed_size
            is_text = chunk.has_dictionary_page and chunk.physical_type == "BYTE_ARRAY"
            if is_text and size * chunk.num_values > LARGEST_STORY:
                paths.add(chunk.path_in_schema)
    return sorted(paths) if file_size <= _SMALL else []


def bounded(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch without dictionaries; its rows one by one where dictionaries (see `repeated_columns`) make it large.

    Raises:
        TooLarge: the sentences of one row exceed `LARGEST_STORY`.
    """
    if _text_bytes(batch) <= LARGEST_STORY:
        yield _plain(batch)
        return
    for row in range(batch.num_rows):
        size = _text_bytes(batch.slice(row, 1))
        if size > LARGEST_STORY:
            raise TooLarge(f"a story of {size:,} bytes; at most {LARGEST_STORY:,} are read")
        yield _plain(batch.slice(row, 1))


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Text instead of dictionaries, which `to_pylist` would convert as a whole for each batch."""
    import pyarrow as pa

    types = [_plain_type(field.type) for field in batch.schema]
    if types == [field.type for field in batch.schema]:
        return batch
    batch = batch.take(pa.array(range(batch.num_rows)))  # `cast` would convert the whole of what a slice is from
    columns = [column.cast(plain) for column, plain in zip(batch.columns, types, strict=True)]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _plain_type(kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_plain_type(kind.value_type))
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _text_bytes(batch: pa.RecordBatch) -> int:
    """Bytes to which the dictionaries in a batch unpack."""
    return sum(_unpacked(column) for column in batch.columns)


def _unpacked(column: Any) -> int:
    import pyarrow as pa
    import pyarrow.compute as pc

    while pa.types.is_nested(column.type) and hasattr(column, "flatten"):
        column = column.flatten()
        if isinstance(column, list):  # a struct, from which no story is read
            return 0
    if not pa.types.is_dictionary(column.type) or not column.dictionary:
        return 0
    return int(pc.sum(pc.take(pc.binary_length(column.dictionary), column.indices)).as_py() or 0)


def record_batches(rows: Iterator[Mapping[str, Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Rows in batches of 1,000, with one batch in memory at a time."""
    import pyarrow as pa

    while batch := list(islice(rows, _ROWS_WRITTEN_AT_ONCE)):
        yield pa.RecordBatch.from_pylist(batch, schema=schema)


def write_split(folder: Path, split: str, rows: Iterator[Mapping[str, Any]], schema: pa.Schema) -> WrittenSplit:
    """Write at least one row as `<split>-00000-of-00001.parquet`, or as several files of `SHARD_BYTES` each."""
    import pyarrow.parquet as pq

    written: list[Path] = []
    count = size = left = 0
    writer = None
    try:
        for batch in record_batches(rows, schema):
            if writer is None or left <= 0:
                if writer is not None:
                    writer.close()
                # The number of files, part of their names, is known at the end.
                written.append(folder / f"{split}-{len(written):05d}.unfinished")
                writer, left = pq.ParquetWriter(written[-1], schema), SHARD_BYTES
            writer.write_batch(batch)
            count, size, left = count + batch.num_rows, size + batch.nbytes, left - batch.nbytes
    finally:
        if writer is not None:
            writer.close()
    for shard, path in enumerate(written):
        written[shard] = folder / f"{split}-{shard:05d}-of-{len(written):05d}.parquet"
        settle(path, written[shard])
    return WrittenSplit(count, size, sum(path.stat().st_size for path in written))
