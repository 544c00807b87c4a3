"""The parts of a file together have the records of the file, with their rows and errors."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder import BadRecord, Story, UserError, read_stories
from dataset_builder.file_parts import plan_parts, read_part

LINES = [json.dumps({"storyid": f"id-{i}", "sentences": [f"{i}.", "End."]}) for i in range(11)]


def whole(path: Path) -> list[Story | BadRecord]:
    """The records of the file, bad ones in their places."""
    records: list[Story | BadRecord] = []
    errors: list[BadRecord] = []
    for story in read_stories(path, as_given=True, on_error=errors.append):
        records += [*errors, story]
        errors.clear()
    return [*records, *errors]


def in_parts(path: Path, rows: int) -> list[list[Story | BadRecord]]:
    return [list(read_part(part)) for part in plan_parts(str(path), rows)[1]]


def plain(records: list[Story | BadRecord]) -> list[str]:
    return [str(record) if isinstance(record, BadRecord) else repr(record) for record in records]


@pytest.mark.parametrize("rows", [1, 3, 4, 100])
@pytest.mark.parametrize(
    "content",
    [
        "\n".join(LINES).encode(),
        "\r\n".join(LINES).encode() + b"\r\n",
        "\r".join(LINES).encode(),
        "\n\n".join(LINES).encode() + b"\n\n\n",
        b"\xef\xbb\xbf" + "\n".join([*LINES[:4], "no JSON", *LINES[4:8], '{"x": 1}', *LINES[8:]]).encode(),
        "\n".join([*LINES[:2], LINES[2].removesuffix("}")]).encode() + b'\n{"sentences": ["\xff", "b"]}\n',
        "\n".join('{"sentences": ["a", "b"]}' for _ in range(9)).encode(),  # ids are made of the rows
    ],
)
def test_parts_of_json_lines(content: bytes, rows: int, tmp_path: Path) -> None:
    path = tmp_path / "stories.jsonl"
    path.write_bytes(content)
    parts = in_parts(path, rows)
    assert plain([record for part in parts for record in part]) == plain(whole(path))
    assert b"\n" not in content or max(map(len, parts)) <= rows


@pytest.mark.parametrize("rows", [1, 4, 100])
@pytest.mark.parametrize("row_group_size", [1, 10, 200])
def test_parts_of_parquet(row_group_size: int, rows: int, tmp_path: Path) -> None:
    table = pa.table({"sentences": [[f"{i}.", "End." if i % 7 else ""] for i in range(200)], "n": list(range(200))})
    pq.write_table(table, path := tmp_path / "stories.parquet", row_group_size=row_group_size)
    parts = in_parts(path, rows)
    assert plain([record for part in parts for record in part]) == plain(whole(path))
    assert max(map(len, parts)) <= max(rows, 4)  # 200 rows of a group in at most 64 parts


def test_other_files_are_one_part(tmp_path: Path) -> None:
    (tmp_path / "stories.txt").write_text("a\nb\n\nc\nd\n", encoding="utf-8")
    (tmp_path / "stories.jsonl.gz").write_bytes(gzip.compress("\n".join(LINES).encode()))
    (tmp_path / "stories.parquet").write_bytes(b"PAR1 damaged")
    for path in tmp_path.iterdir():
        (part,) = in_parts(path, 2)
        assert plain(part) == plain(whole(path))


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.csv"):
        (tmp_path / name).write_bytes(b"x\ny\n")
        assert plan_parts(str(tmp_path / name), 1)[0] == hashlib.sha256(b"x\ny\n").hexdigest()


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "stories.jsonl"
    path.write_text("\n".join(LINES), encoding="utf-8")
    parts = plan_parts(str(path), 4)[1]
    path.write_text("\n".join(reversed(LINES)), encoding="utf-8")
    os.utime(path, ns=(1, 1))
    with pytest.raises(UserError, match="stories.jsonl"):
        list(read_part(parts[0]))
