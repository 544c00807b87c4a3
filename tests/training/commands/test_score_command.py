"""`sentence-ordering score`: texts and groups, in every input and output."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder import read_stories
from modeling_sentence_ordering import SentenceOrderingModel, SentenceOrderingPipeline, load_tokenizer
from tests.training.conftest import Trained, run_command
from tests.training.made_up import made_up_stories

TEXTS = [*made_up_stories(6, shortest=3, longest=6, seed=4), ["It rained."]]
GENRES = ["crime", "love", "crime", "love", "love", "crime", "love"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    rows = zip(TEXTS, GENRES, strict=True)
    path.write_text("".join(json.dumps({"sentences": text, "genre": genre}) + "\n" for text, genre in rows), "utf-8")
    return path


def test_texts_have_what_the_pipeline_says_and_groups_their_means(
    trained: Trained, texts: Path, tmp_path: Path
) -> None:
    files = {name: tmp_path / name for name in ("scores.jsonl", "scores.csv", "means.json", "genres.png")}
    command = run_command(
        "score", "--model", trained.folder, texts, "--group_by", "genre", "--output", files["scores.jsonl"],
        "--output_json", files["means.json"], "--plot", files["genres.png"],
    )  # fmt: skip
    assert command.code == 0, command.err
    model: Any = SentenceOrderingModel.from_pretrained(trained.folder)
    order = SentenceOrderingPipeline(model=model, tokenizer=load_tokenizer(str(trained.folder)))
    found = [json.loads(line) for line in files["scores.jsonl"].read_text("utf-8").splitlines()]
    assert [one["group"] for one in found] == GENRES and [one["sentences"] for one in found] == list(map(len, TEXTS))
    for one, text in zip(found, TEXTS, strict=True):
        expected = order(text, score=True)["coherence"]
        assert one["joints"] == pytest.approx(expected["joints"], abs=1e-5)
        assert one["log_probability"] == pytest.approx(expected["log_probability"], abs=1e-5)
        assert [joint["index"] for joint in one["weakest_joints"]] == [
            joint["index"] for joint in expected["weakest_joints"]
        ]
    means = json.loads(files["means.json"].read_text("utf-8"))
    assert means["group_by"] == "genre" and means["all"]["texts"] == 6, "one text has no pair"
    for genre, group in means["groups"].items():
        values = [one["log_probability"] for one in found[:-1] if one["group"] == genre]
        assert group["texts"] == len(values)
        assert group["log_probability"] == pytest.approx(sum(values) / len(values))
        low, high = group["intervals"]["log_probability"]
        assert min(values) <= low <= group["log_probability"] <= high <= max(values)
        assert f"genre: {genre}, {len(values)} texts" in command.out
    assert files["genres.png"].read_bytes().startswith(b"\x89PNG")
    assert run_command("score", "--model", trained.folder, texts, "--output", files["scores.csv"]).code == 0
    with open(files["scores.csv"], encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [json.loads(row["joints"]) for row in rows] == [one["joints"] for one in found]
    assert rows[-1]["log_probability"] == ""


def test_text_from_standard_input(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n\n".join("\n".join(text) for text in TEXTS[:2])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))
    command = run_command("score", "--model", trained.folder)
    first, second, _, last = command.out.splitlines()
    assert command.code == 0 and "weakest joint" in first and "weakest joint" in second and "2 texts" in last


def write(path: Path) -> Path:
    """Two texts with the column `Main_genre`."""
    two = TEXTS[:2]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"sentences": two, "Main_genre": ["a", None]}), path)
    elif path.suffix == ".jsonl":
        rows: list[dict[str, Any]] = [{"sentences": two[0], "Main_genre": "a"}, {"sentences": two[1], "Main_genre": ""}]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerow([f"sentence{number}" for number in range(1, 7)] + ["Main_genre"])
            for text, genre in zip(two, ["a", ""], strict=True):
                writer.writerow([*text, *[""] * (6 - len(text)), genre])
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_the_group_is_read_from_every_table(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"texts{suffix}")
    found = list(read_stories(path, as_given=True, group_by="Main_genre"))
    assert [story.group for story in found] == ["a", ""] and [list(story.sentences) for story in found] == TEXTS[:2]
    assert [story.group for story in read_stories(path, as_given=True)] == ["", ""]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_column_that_is_missing_is_named(trained: Trained, suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"texts{suffix}")
    command = run_command("score", "--model", trained.folder, path, "--group_by", "Main_genres")
    assert command.code == 2 and "'Main_genres' is missing" in command.err and path.name in command.err
    assert command.out == ""


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--plot", "plot.png"], "--group_by"),
        (["--output", "scores.parquet"], "--output"),
        (["--plot", "plot.pdf", "--group_by", "genre"], "--plot"),
    ],
)
def test_flags_that_cannot_be_followed(trained: Trained, texts: Path, flags: list[str], named: str) -> None:
    command = run_command("score", "--model", trained.folder, texts, *flags)
    assert command.code == 2 and named in command.err and not (texts.parent / flags[1]).exists()


def test_a_bad_record_is_kept_as_an_error(trained: Trained, texts: Path, tmp_path: Path) -> None:
    with open(texts, "a", encoding="utf-8") as file:
        file.write('{"sentences": ["It rained.", 3]}\n')
    command = run_command("score", "--model", trained.folder, texts, "--output", tmp_path / "scores.jsonl")
    *_, last = (tmp_path / "scores.jsonl").read_text("utf-8").splitlines()
    assert command.code == 1 and "row 8" in command.err and "row 8" in json.loads(last)["error"]


def test_a_model_that_is_not_calibrated_is_refused(trained: Trained, texts: Path, tmp_path: Path) -> None:
    model = SentenceOrderingModel.from_pretrained(trained.folder)
    model.config.confidence_temperature = None
    model.save_pretrained(tmp_path / "model")
    load_tokenizer(str(trained.folder)).save_pretrained(tmp_path / "model")
    for arguments in (["score"], ["order", "--ties", "0.8"], ["order", "--pairwise"]):
        command = run_command(*arguments, "--model", tmp_path / "model", texts)
        assert command.code == 2 and "not calibrated" in command.err and command.out == ""
