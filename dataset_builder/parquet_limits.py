"""Keeps a small Parquet file from unpacking to gigabytes in memory.

A column may be compressed by any factor, and a value that is stored once in a dictionary may be repeated in millions
of rows for a few bytes each. The first is refused by what the file's footer says; in the second case the dictionary is
kept as it is, and the size of each story is known before it is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ROWS_AT_ONCE = 64
"""Small batches are not slower, and 64 large stories fit into memory."""
LARGEST_STORY = 2**28
"""Bytes of a story's sentences at most."""
_SMALL = 2**24  # bytes; reading dictionaries takes five times as long, so larger files are read without
_MOST_COMPRESSED = 1000  # text is compressed to a third or a tenth


class TooLarge(ValueError):
    """What a file would unpack to; the message says how much."""


def repeated_columns(metadata: pq.FileMetaData, columns: Sequence[str]) -> list[str]:
    """Paths of the columns that might repeat a few large values very often, to be read as dictionaries; of small files.

    Args:
        metadata: of the file.
        columns: names of the columns that are read.

    Raises:
        TooLarge: for a column that is compressed as no text is.
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
    """A batch, or where `repeated_columns` of it are dictionaries, its rows one by one if they are large together.

    Raises:
        TooLarge: if the sentences of one row are larger than `LARGEST_STORY`.
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
    """Text instead of dictionaries: those would be turned to Python's strings as a whole for each batch."""
    import pyarrow as pa

    types = [_plain_type(field.type) for field in batch.schema]
    if types == [field.type for field in batch.schema]:
        return batch
    batch = batch.take(pa.array(range(batch.num_rows)))  # of a slice, `cast` would turn the whole
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
    """What the dictionaries in a batch unpack to."""
    return sum(_unpacked(column) for column in batch.columns)


def _unpacked(column: Any) -> int:
    import pyarrow as pa
    import pyarrow.compute as pc

    while pa.types.is_nested(column.type) and hasattr(column, "flatten"):
        column = column.flatten()
        if isinstance(column, list):  # of a struct, which no story is
            return 0
    if not pa.types.is_dictionary(column.type) or not column.dictionary:
        return 0
    return int(pc.sum(pc.take(pc.binary_length(column.dictionary), column.indices)).as_py() or 0)
