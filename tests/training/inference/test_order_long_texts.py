"""`order` on texts that the encoder does not hold: answered, beside others, and what was cut is said."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from modeling_sentence_ordering import SentenceOrderingPipeline
from tests.training.conftest import Command, Trained, done_ordering, run_command
from tests.training.made_up import made_up_stories, write_jsonl
from training.models.trained_model import load_trained_model

LONG = [sentence for story in made_up_stories(20, seed=8) for sentence in story]
SHORT = made_up_stories(2, shortest=3, longest=3, seed=9)
TOO_LONG = f"Tom baked {'a cake and ' * 200} left."
Order = Callable[..., Command]


@pytest.fixture(scope="module")
def folder(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that holds 120 tokens."""
    target = tmp_path_factory.mktemp("short model")
    model, tokenizer = load_trained_model(str(trained.folder))
    model.config.max_input_tokens = 120
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> SentenceOrderingPipeline:
    model, tokenizer = load_trained_model(str(folder))
    return SentenceOrderingPipeline(model=model, tokenizer=tokenizer)


@pytest.mark.parametrize("flags", [(), ("--num_permutations", "2", "--batch_size", "1")])
def test_it_answers_what_the_pipeline_answers(
    flags: tuple[str, ...], folder: Path, pipeline: SentenceOrderingPipeline, tmp_path: Path
) -> None:
    texts = [SHORT[0], LONG, SHORT[1], LONG[::-1]]
    result = run_command("order", "--model", folder, write_jsonl(tmp_path / "texts.jsonl", texts), *flags)
    assert (result.code, result.err) == (0, done_ordering(4))
    found = [json.loads(line) for line in result.out.splitlines()]
    for one, text in zip(found, texts, strict=True):
        answer = pipeline(text, num_permutations=2 if flags else 1)
        assert one["sentences"] == answer["sentences"]
        assert one["scores"] == pytest.approx(answer["scores"], abs=1e-4)
        assert one["confidence"] == pytest.approx(answer["confidence"], abs=1e-3)
        assert "truncated" not in one
    assert found[1]["sentences"] == found[3]["sentences"], "whatever order they come in"


def test_fixed_points_of_a_long_text(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "text.jsonl"
    source.write_text(json.dumps({"sentences": LONG, "first": 40, "last": 0, "before": [[50, 3]]}) + "\n")
    result = run_command("order", "--model", folder, source)
    order = json.loads(result.out)["order"]
    assert (order[0], order[-1]) == (40, 0) and order.index(50) < order.index(3)


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".parquet"])
def test_sentences_that_are_cut_are_named_and_it_is_no_failure(suffix: str, folder: Path, tmp_path: Path) -> None:
    texts = [SHORT[0], [*LONG, TOO_LONG], [TOO_LONG, "It rained.", TOO_LONG + " Again."]]
    target = tmp_path / f"ordered{suffix}"
    source = write_jsonl(tmp_path / "texts.jsonl", texts)
    result = run_command("order", "--model", folder, source, "--output", target)
    assert result.code == 0
    assert result.err == (
        "sentence-ordering: note: 3 sentences, in 2 of 3 stories, were truncated: they are too long for this model\n"
    )
    rows: list[dict[str, Any]]
    if suffix == ".txt":
        assert target.read_text(encoding="utf-8").count(TOO_LONG) == 3, "whole in the answer"
        return
    if suffix == ".csv":
        with open(target, newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        assert [row["truncated"] for row in rows] == ["", f"[{len(LONG)}]", "[0, 2]"]
        return
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    else:
        rows = pq.read_table(target).to_pylist()
    assert [row.get("truncated") for row in rows] == [None, [len(LONG)], [0, 2]]
    assert sorted(rows[2]["sentences"]) == sorted(texts[2])
