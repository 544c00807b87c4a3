"""A small Parquet file that unpacks to gigabytes is refused, or read within bounds of memory."""

from __future__ import annotations

import resource
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder import BadRecord, read_stories


@pytest.mark.parametrize(
    ("sentences", "encoding"),
    [
        ([["x" * 10**6] * 5] * 10**4, {}),  # 50 GB in 20 kB
        ([["x" * 10**6] * 10**5], {}),  # 100 GB in one story
        ([["a", "b"], ["x" * 10**6] * 3000, ["c", "d"]], {}),
        ([["x" * 10**8, "b"]], {"use_dictionary": False, "compression": "zstd"}),
    ],
)
def test_a_small_parquet_file_does_not_unpack_to_gigabytes(
    sentences: list[list[str]], encoding: dict[str, Any], tmp_path: Path
) -> None:
    values = sorted({sentence for story in sentences for sentence in story})
    indices = pa.array([values.index(sentence) for story in sentences for sentence in story], pa.int32())
    flat = pa.DictionaryArray.from_arrays(indices, values)
    offsets = np.cumsum([0, *map(len, sentences)]).astype("int32")
    column = pa.ListArray.from_arrays(pa.array(offsets), flat)
    path = tmp_path / "s.parquet"
    pq.write_table(pa.table({"sentences": column}), path, **encoding)
    assert path.stat().st_size < 60_000
    before, found = peak_memory(), list[int]()
    try:
        found.extend(len(story.sentences) for story in islice(read_stories(path), 20))
    except BadRecord as error:
        assert "bytes" in str(error) and "s.parquet" in str(error)
        assert len(sentences) < 10 and found in ([], [2])
    else:
        assert found == [5] * 20
    assert peak_memory() - before < 700 * 2**20


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
