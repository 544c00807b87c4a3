"""What `sentence-ordering order` adds to the order: layers, the probabilities of pairs, and moves."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.training.conftest import Trained, run_command
from tests.training.made_up import made_up_stories
from training.inference.answers import text_lines
from training.inference.ordering import OrderedStory

STORIES = made_up_stories(4, shortest=3, longest=6, seed=4)
FLAGS = ("--ties", "0.8", "--pairwise", "--show_moves")


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    path = tmp_path / "stories.jsonl"
    path.write_text("".join(json.dumps({"sentences": story}) + "\n" for story in STORIES), encoding="utf-8")
    return path


def answers(trained: Trained, *arguments: Any) -> list[dict[str, Any]]:
    command = run_command("order", "--model", trained.folder, *arguments)
    assert command.code == 0, command.err
    return [json.loads(line) for line in command.out.splitlines()]


def test_layers_pairs_and_moves_in_every_format(trained: Trained, stories: Path, tmp_path: Path) -> None:
    found = answers(trained, stories, *FLAGS)
    plain = answers(trained, stories)
    for answer, without, story in zip(found, plain, STORIES, strict=True):
        assert list(answer) == [*without, "pairwise", "layers", "moved"]
        assert [index for layer in answer["layers"] for index in layer] == answer["order"] == without["order"]
        assert len(answer["pairwise"]) == len(story)
        stays = [index for index in answer["order"] if index not in answer["moved"]]
        assert stays == sorted(stays)
    for name in ("answers.jsonl", "answers.csv", "answers.parquet"):
        command = run_command("order", "--model", trained.folder, stories, "--output", tmp_path / name, *FLAGS)
        assert command.code == 0, command.err
    assert [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text("utf-8").splitlines()] == found
    with open(tmp_path / "answers.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    table = pq.read_table(tmp_path / "answers.parquet").to_pylist()
    for key in ("pairwise", "layers", "moved"):
        assert [json.loads(row[key]) for row in rows] == [row[key] for row in table] == [row[key] for row in found]


def test_text_shows_layers_and_moves() -> None:
    answer = OrderedStory(None, ["b", "d", "a", "c"], [1, 3, 0, 2], layers=[[1], [3, 0, 2]], moved=[3])
    assert text_lines(answer) == ["    b", "┌ ↑ d  (was line 4)", "│   a", "└   c"]
    assert text_lines(OrderedStory(None, ["b\r\nb"], [0])) == ["b b"]


def test_text_output(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text("\n".join(STORIES[0]) + "\n", encoding="utf-8")
    command = run_command("order", "--model", trained.folder, tmp_path / "story.txt", "--ties", "1")
    first, *_, last = command.out.splitlines()
    assert first.startswith("┌ ") and last.startswith("└ ") and len(command.out.splitlines()) == len(STORIES[0])


def test_a_matrix_is_not_text(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text("\n".join(STORIES[0]) + "\n", encoding="utf-8")
    command = run_command("order", "--model", trained.folder, tmp_path / "story.txt", "--pairwise")
    assert command.code == 2 and "--pairwise" in command.err and command.out == ""


@pytest.mark.parametrize("value", ["0.5", "1.1", "sure"])
def test_ties_are_a_probability(trained: Trained, stories: Path, value: str) -> None:
    command = run_command("order", "--model", trained.folder, stories, "--ties", value)
    assert command.code == 2 and "--ties" in command.err and value in command.err
