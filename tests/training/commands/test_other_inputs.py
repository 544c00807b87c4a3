"""Prose and compressed files in each command that reads stories."""

from __future__ import annotations

import gzip
import json
import sys
import zipfile
from pathlib import Path

import pytest

from tests.training.conftest import Trained, run_command
from tests.training.made_up import made_up_stories

STORIES = made_up_stories(20, shortest=3, longest=5)


@pytest.fixture
def prose(tmp_path: Path) -> Path:
    """A story in each line."""
    (tmp_path / "prose.txt").write_text("".join(" ".join(story) + "\n" for story in STORIES))
    return tmp_path / "prose.txt"


def test_evaluate_and_build_split_prose(trained: Trained, prose: Path, tmp_path: Path) -> None:
    evaluate = ("evaluate", "--model", trained.folder, "--data", prose, "--split", "all")
    done = run_command(*evaluate, "--split_sentences", "en", "--output_json", tmp_path / "m.json")
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert (metrics["stories"], metrics["sentences"]) == (20, sum(map(len, STORIES)))
    refused = run_command(*evaluate)
    assert refused.code == 2 and "--split_sentences" in refused.err and refused.err.count("\n") == 1
    done = run_command("build", "--data", prose, "--split_sentences", "en", "--output_dir", tmp_path / "built")
    assert done.code == 0, done.err


def test_order_splits_prose(trained: Trained, prose: Path) -> None:
    done = run_command("order", "--model", trained.folder, prose, "--split_sentences", "en")
    assert done.code == 0, done.err
    assert [sorted(block.split("\n")) for block in done.out.strip().split("\n\n")] == list(map(sorted, STORIES))


def test_train_splits_prose(trained: Trained, prose: Path, tmp_path: Path) -> None:
    done = run_command(
        "train", "--encoder", trained.home / "tiny-bert", "--data", prose, "--split_sentences", "en",
        "--output_dir", tmp_path / "model", "--max_steps", "1", "--no_eval_on_start",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "model" / "results.json").read_text())["test"]


@pytest.mark.parametrize("command", ["evaluate", "build", "order", "train"])
def test_unknown_language_and_missing_extra_are_one_line(
    command: str, trained: Trained, prose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_command: dict[str, list[str | Path]] = {
        "evaluate": ["--model", trained.folder, "--data", prose],
        "build": ["--data", prose, "--output_dir", tmp_path / "built"],
        "order": ["--model", trained.folder, prose],
        "train": ["--encoder", "cnn", "--data", prose, "--output_dir", tmp_path / "model"],
    }
    arguments = of_command[command]
    done = run_command(command, *arguments, "--split_sentences", "english")
    assert (done.code, done.err.count("\n")) == (2, 1) and "'english'" in done.err and " en " in done.err
    monkeypatch.setitem(sys.modules, "sentencex", None)
    done = run_command(command, *arguments, "--split_sentences", "en")
    assert (done.code, done.err.count("\n")) == (2, 1) and "sentence-ordering[split]" in done.err


def test_order_reads_compressed_files(trained: Trained, tmp_path: Path) -> None:
    text = "\n".join("".join(f"{sentence}\n" for sentence in story) for story in STORIES)
    (tmp_path / "s.txt").write_text(text)
    (tmp_path / "s.txt.gz").write_bytes(gzip.compress(text.encode()))
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.write(tmp_path / "s.txt", "s.txt")
    answers = [
        run_command("order", "--model", trained.folder, tmp_path / f"s{end}") for end in (".txt", ".txt.gz", ".zip")
    ]
    assert [answer.code for answer in answers] == [0, 0, 0]
    assert answers[0].out == answers[1].out == answers[2].out
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(text.encode())[:-30])
    cut = run_command("order", "--model", trained.folder, tmp_path / "cut.txt.gz", "--output", tmp_path / "a.jsonl")
    assert cut.code != 0 and "cut.txt.gz" in cut.err and "cut off" in cut.err
