"""Ordering in shards: the answers of one file, cut up; shared by processes, and gone on with where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dataset_builder import BadRecord, Story
from tests.training.conftest import Command, Trained, run_command
from tests.training.made_up import made_up_stories
from training.inference.ordering import OrderedStory
from training.inference.sharding import open_shards, order_in_shards
from training.system.processes import Processes

STORIES = made_up_stories(23, shortest=2, longest=6, seed=11)


def write_stories(path: Path, stories: list[list[str]], first: int = 0) -> Path:
    lines = [json.dumps({"storyid": f"story-{first + i}", "sentences": story}) for i, story in enumerate(stories)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """23 stories in three files."""
    source = tmp_path / "stories"
    source.mkdir()
    for name, (start, end) in {"a": (0, 9), "b": (9, 10), "c": (10, 23)}.items():
        write_stories(source / f"{name}.jsonl", STORIES[start:end], start)
    return source


@pytest.fixture
def expected(trained: Trained, tmp_path: Path) -> list[dict[str, Any]]:
    """What the command writes of the same stories to one file."""
    output = tmp_path / "all.jsonl"
    assert order(trained, write_stories(tmp_path / "all_stories.jsonl", STORIES), "--output", output).code == 0
    return read([output])


def order(trained: Trained, *arguments: Any) -> Command:
    return run_command("order", "--model", trained.folder, *map(str, arguments))


def read(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Stories and orders; scores may differ in the last digits, since batches do."""
    records = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    return [{key: record[key] for key in ("storyid", "sentences", "order")} for record in records]


def shards(output: Path) -> list[Path]:
    return sorted(output.glob("part-*"))


def test_the_shards_of_a_folder_are_the_answers_of_one_file(
    trained: Trained, folder: Path, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    output = tmp_path / "new" / "ordered"
    done = order(trained, folder, "--output", output, "--shard_size", 5)
    assert done.code == 0, done.err
    assert [path.name for path in shards(output)] == [f"part-0000{i}.jsonl" for i in range(5)]
    assert [len(read([path])) for path in shards(output)] == [5, 5, 5, 5, 3]
    assert read(shards(output)) == expected
    assert "23 stories in 5 shards" in done.out
    assert not [path for path in output.iterdir() if "unfinished" in path.name]


def test_a_single_file_in_parquet_shards(
    trained: Trained, expected: list[dict[str, Any]], folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "ordered"
    options = ["--shard_size", 8, "--output_format", "parquet"]
    assert order(trained, tmp_path / "all_stories.jsonl", "--output", output, *options).code == 0
    rows = [row for path in shards(output) for row in pq.read_table(path).to_pylist()]
    assert [row["order"] for row in rows] == [record["order"] for record in expected]


def test_the_same_command_makes_only_what_is_missing(
    trained: Trained, folder: Path, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    output = tmp_path / "ordered"
    arguments = (folder, "--output", output, "--shard_size", 5)
    order(trained, *arguments)
    shards(output)[1].unlink()
    (output / ".part-00001.jsonl.unfinished-4711").write_text("half of a li", encoding="utf-8")
    before = {path.name: path.stat().st_mtime_ns for path in shards(output)}
    again = order(trained, *arguments)
    assert again.code == 0
    assert "4 of which were there already" in again.out
    assert {path.name: path.stat().st_mtime_ns for path in shards(output) if path.name in before} == before
    assert read(shards(output)) == expected
    assert not list(output.glob(".part*"))


def test_processes_share_the_shards(
    trained: Trained,
    folder: Path,
    expected: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "ordered"
    monkeypatch.setenv("WORLD_SIZE", "2")
    made = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        assert order(trained, folder, "--output", output, "--shard_size", 5).code == 0
        made.append(len(shards(output)))
    assert made == [3, 5]
    assert read(shards(output)) == expected


@pytest.mark.parametrize(
    ("options", "named"), [(["--num_permutations", 2], "num_permutations"), (["--shard_size", 6], "shard_size")]
)
def test_shards_of_another_run_are_left_alone(
    options: list[Any], named: str, trained: Trained, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "ordered"
    order(trained, folder, "--output", output, "--shard_size", 5)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    refused = order(trained, folder, "--output", output, "--shard_size", 5, *options)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert named in refused.err
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_a_folder_in_which_something_else_is_is_refused(trained: Trained, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"cat")
    refused = order(trained, folder, "--output", tmp_path / "photos")
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.png"]
    assert order(trained, folder).code == 2  # where to?


def test_what_another_process_is_writing_in_the_same_moment_is_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".order.json.unfinished-4711").write_text("{", encoding="utf-8")
    open_shards(tmp_path, {"shard_size": 5})
    open_shards(tmp_path, {"shard_size": 5})
    with pytest.raises(ValueError, match="shard_size is 5 there and 6 here"):
        open_shards(tmp_path, {"shard_size": 6})


def test_a_record_that_is_no_story_stands_in_its_place(trained: Trained, folder: Path, tmp_path: Path) -> None:
    with (folder / "b.jsonl").open("a", encoding="utf-8") as file:
        file.write("no JSON\n")
    done = order(trained, folder, "--output", tmp_path / "ordered", "--shard_size", 5)
    assert done.code == 1
    assert "1 of 24 records could not be ordered" in done.err
    records = [json.loads(line) for path in shards(tmp_path / "ordered") for line in path.open(encoding="utf-8")]
    assert [i for i, record in enumerate(records) if "error" in record] == [10]


def test_a_shard_is_written_before_more_is_read(tmp_path: Path) -> None:
    """Memory does not grow with the input."""
    taken = 0

    def records() -> Iterator[Story]:
        nonlocal taken
        for taken in range(1, 31):
            yield Story(("One.", "Two."), str(taken))

    def answer(some: Iterable[Story | BadRecord]) -> Iterator[OrderedStory]:
        for story in some:
            assert isinstance(story, Story)
            yield OrderedStory(story, list(story.sentences), [0, 1], [0.0, 1.0])

    seen = []
    for path, count, _ in order_in_shards(records(), answer, tmp_path, shard_size=10, processes=Processes(1, 2)):
        seen.append((path.name, count, taken))
    assert seen == [("part-00001.jsonl", 10, 20)]
