"""`sentence-ordering order` keeps what a record of JSON Lines says of its order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataset_builder import read_stories
from modeling_sentence_ordering import SentenceOrderingPipeline
from tests.training.conftest import Trained, done_ordering, run_command
from tests.training.made_up import made_up_stories
from training.models.trained_model import load_trained_model

STORIES = made_up_stories(4, shortest=5, longest=5, seed=11)
RECORDS: list[dict[str, Any]] = [
    {"sentences": STORIES[0], "first": 4},
    {"sentences": STORIES[1]},
    {"sentences": STORIES[2], "last": 0, "before": [[3, 1], [2, 3]]},
    {"shuf_sents": STORIES[3], "first": None, "before": [[4, 0]]},
]


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_each_record_has_its_own(trained: Trained, tmp_path: Path) -> None:
    model, tokenizer = load_trained_model(str(trained.folder))
    order = SentenceOrderingPipeline(model=model, tokenizer=tokenizer)
    as_stories = [{"sentences": story, **record} for story, record in zip(STORIES, RECORDS, strict=True)]
    expected = order(as_stories)
    assert [answer["order"] for answer in expected] != [answer["order"] for answer in order(STORIES)]
    result = run_command("order", "--model", trained.folder, write(tmp_path / "stories.jsonl", RECORDS))
    assert (result.code, result.err) == (0, done_ordering(len(RECORDS)))
    for line, answer in zip(result.out.splitlines(), expected, strict=True):
        found = json.loads(line)
        assert list(found) == ["storyid", "storytitle", "sentences", "order", "scores", "confidence"]
        assert found["order"] == answer["order"]
        assert found["confidence"] == pytest.approx(answer["confidence"], abs=1e-4)


def test_a_contradiction_is_a_record_that_could_not_be_ordered(trained: Trained, tmp_path: Path) -> None:
    records = [RECORDS[0], {"sentences": STORIES[1], "before": [[0, 1], [1, 0]]}, {"sentences": STORIES[2], "last": 5}]
    source = write(tmp_path / "stories.jsonl", records)
    result = run_command("order", "--model", trained.folder, source)
    assert result.code == 1
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert lines[0]["order"][0] == 4
    assert lines[1]["error"].startswith(f"{source}, row 2: ") and " → " in lines[1]["error"]
    assert lines[2]["error"].startswith(f"{source}, row 3: last ") and lines[2]["error"].endswith("0 to 4, got 5")
    assert "2 of 3 records could not be ordered" in result.err


def test_they_are_read_where_stories_are_to_be_ordered_and_nowhere_else(tmp_path: Path) -> None:
    path = write(tmp_path / "stories.jsonl", RECORDS[:3])
    assert [story.fixed_points for story in read_stories(path, as_given=True)] == [
        {"first": 4}, {}, {"last": 0, "before": [[3, 1], [2, 3]]},
    ]  # fmt: skip
    assert [story.fixed_points for story in read_stories(path)] == [{}, {}, {}]
    table = tmp_path / "stories.csv"
    table.write_text("storyid,first,sentence1,sentence2,sentence3,sentence4,sentence5\na,x,A.,B.,C.,D.,E.\n")
    (story,) = read_stories(table, as_given=True)
    assert story.fixed_points == {} and hash(story)
