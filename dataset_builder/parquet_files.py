"""Rows to Parquet, in as many files as it takes, with one batch in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .file_writing import settle
from .story_table import record_batches

if TYPE_CHECKING:
    import pyarrow as pa

# The Hub's advice for files that are quick to load; bytes in memory, before compression.
SHARD_BYTES = 500 * 2**20


@dataclass(frozen=True)
class WrittenSplit:
    """What a split takes.

    Attributes:
        rows: their number.
        memory_bytes: as Arrow.
        file_bytes: of the Parquet files.
    """

    rows: int
    memory_bytes: int
    file_bytes: int


def write_split(folder: Path, split: str, rows: Iterator[Mapping[str, Any]], schema: pa.Schema) -> WrittenSplit:
    """Write rows as `<split>-00000-of-00001.parquet`, or as several such files of about `SHARD_BYTES` in memory each.

    There has to be at least one row.
    """
    import pyarrow.parquet as pq

    written: list[Path] = []
    count = size = left = 0
    writer = None
    try:
        for batch in record_batches(rows, schema):
            if writer is None or left <= 0:
                if writer is not None:
                    writer.close()
                # How many there will be is known at the end.
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
