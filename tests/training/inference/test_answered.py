"""Answered, with exit code 0: whatever is text, in whatever quantity. Nothing of it is changed on its way."""

from __future__ import annotations

import csv
import json
import sys
from functools import partial
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from tests.training.conftest import Trained, done_ordering, run_command
from tests.training.hostile_text import STORIES
from tests.training.made_up import made_up_stories, write_jsonl

SEVERAL = [story for story in STORIES.values() if len(story) > 1]


def write(path: Path, stories: list[list[str]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"sentences": stories}), path)
        return path
    return write_jsonl(path, stories)


def assert_in_some_order(answers: list[dict[str, list[str]]], stories: list[list[str]]) -> None:
    """Each answer is a permutation of its story, letter by letter."""
    for answer, story in zip(answers, stories, strict=True):
        assert sorted(answer["order"]) == list(range(len(story)))
        assert answer["sentences"] == [story[int(place)] for place in answer["order"]]


@pytest.mark.parametrize("source", [".jsonl", ".parquet"])
@pytest.mark.parametrize("target", ["", ".jsonl", ".csv", ".parquet"])
def test_order_changes_no_letter(
    source: str, target: str, trained: Trained, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    stories = list(STORIES.values())
    path, answer = write(tmp_path / f"in{source}", stories), tmp_path / f"out{target}"
    result = run_command("order", "--model", trained.folder, path, *(["--output", str(answer)] if target else []))
    assert result.code == 0, result.err
    assert result.err.startswith("sentence-ordering: note:"), "long sentences were cut"
    if target == ".csv":
        request.addfinalizer(partial(csv.field_size_limit, csv.field_size_limit(1 << 20)))
        with open(answer, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row, story in zip(rows, stories, strict=True):
            expected = [story[place] for place in json.loads(row["order"])]
            assert [row[f"sentence{place}"] for place in range(1, len(story) + 1)] == expected
        return
    lines = result.out if not target else answer.read_text(encoding="utf-8") if target == ".jsonl" else ""
    answers = [json.loads(line) for line in lines.split("\n")[:-1]] or pq.read_table(answer).to_pylist()
    assert_in_some_order(answers, stories)


def test_order_changes_no_byte_of_text(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    stories = [story for name, story in STORIES.items() if name != "invisible"]
    raw = "\n".join("".join(f"{sentence}\n" for sentence in story) for story in stories)
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(raw.encode()), encoding="utf-8"))
    result = run_command("order", "--model", trained.folder)
    assert result.code == 0, result.err
    answers = [block.removesuffix("\n").split("\n") for block in result.out.split("\n\n")]
    assert [sorted(answer) for answer in answers] == [sorted(story) for story in stories]


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_text_of_many_sentences(count: int, trained: Trained, tmp_path: Path) -> None:
    text = [f"Tom baked cake {number}." for number in range(count)]
    result = run_command("order", "--model", trained.folder, write_jsonl(tmp_path / "long.jsonl", [text]))
    assert (result.code, result.err) == (0, done_ordering(1))
    assert_in_some_order([json.loads(result.out)], [text])


@pytest.mark.slow
def test_a_file_of_many_stories(trained: Trained, tmp_path: Path) -> None:
    stories = made_up_stories(20_000, shortest=2, longest=3)
    path, answer = write_jsonl(tmp_path / "many.jsonl", stories), tmp_path / "out.jsonl"
    assert run_command("order", "--model", trained.folder, path, "--output", answer).code == 0
    with open(answer, encoding="utf-8") as file:
        assert_in_some_order([json.loads(line) for line in file], stories)


def test_strange_text_can_be_evaluated_on_and_built_of(trained: Trained, tmp_path: Path) -> None:
    path, built = write(tmp_path / "strange.jsonl", SEVERAL), tmp_path / "built"
    result = run_command("evaluate", "--model", trained.folder, "--data", path, "--split", "all")
    assert result.code == 0, result.err
    result = run_command("build", "--data", path, "--output_dir", built, "--language", "en")
    assert (result.code, result.err) == (0, "")
    rows = [row for split in load_dataset(str(built), "shuffled").values() for row in split]
    in_order = [[sentence for _, sentence in sorted(zip(row["labels"], row["sentences"], strict=True))] for row in rows]
    assert sorted(in_order) == sorted(SEVERAL)


@pytest.mark.parametrize("encoder", ["tiny-bert", "cnn"])
def test_strange_text_can_be_trained_on(encoder: str, trained: Trained, tmp_path: Path) -> None:
    path, out = write(tmp_path / "strange.jsonl", SEVERAL * 2), tmp_path / "out"
    name = trained.home / encoder if encoder == "tiny-bert" else encoder
    result = run_command(
        *("train", "--encoder", name, "--data", path, "--output_dir", out, "--max_steps", "1", "--bf16", "false")
    )
    assert result.code == 0, result.err
    assert (out / "model.safetensors").is_file()
