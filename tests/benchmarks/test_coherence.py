"""The accuracy of originals against copies: what chance is, and that a perfect judge is always right."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import coherence
from benchmarks.measuring import run_script
from modeling_sentence_ordering import SentenceOrderingModel, SentenceOrderingPipeline, StoryScores, save_tokenizer
from tests.modeling_sentence_ordering.small_encoders import word_tokenizer
from tests.training.made_up import made_up_stories, write_jsonl

TEXT = ["a", "b", "c", "b"]


@pytest.mark.parametrize("kind", coherence.KINDS)
def test_copies_are_other_texts(kind: str) -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        order = coherence.disturbed(TEXT, kind, generator)
        assert order is not None and sorted(order) == [0, 1, 2, 3]
        assert [TEXT[index] for index in order] != TEXT
        if kind == "swapped":
            assert sum(place != index for place, index in enumerate(order)) == 2
    assert coherence.disturbed(["a", "a"], kind, generator) is None


@pytest.mark.parametrize(("scores", "accuracy"), [([0.0, 1.0, 2.0], 1.0), ([2.0, 1.0, 0.0], 0.0), ([1.0] * 3, 0.5)])
def test_who_is_preferred(scores: list[float], accuracy: float) -> None:
    found = StoryScores(list(scores))
    original, copy = (coherence.log_probability(["a", "b", "c"], found, order, 1.0) for order in ([0, 1, 2], [2, 1, 0]))
    assert coherence.preferred(original, copy) == accuracy


def test_the_script_from_flags_to_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_jsonl(tmp_path / "stories.jsonl", made_up_stories(12, shortest=2, longest=4))
    tokenizer = word_tokenizer()
    fields: dict[str, Any] = {"confidence_temperature": 1.0}
    SentenceOrderingModel.from_encoder("cnn", tokenizer=tokenizer, **fields).save_pretrained(tmp_path / "model")
    save_tokenizer(tokenizer, tmp_path / "model")
    flags = ["--model", f"{tmp_path / 'model'}", "--data", f"{data}", "--split", "all", "--copies", "2"]
    monkeypatch.setattr(sys, "argv", ["coherence", *flags, "--results", f"{tmp_path / 'results.json'}"])
    assert run_script(coherence.main) == 0
    found = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert found["texts"] == 12 and [row["sentences"] for row in found["by_sentences"]] == [2, 3, 4]
    assert str(tmp_path) not in (tmp_path / "results.json").read_text("utf-8")
    for kind in coherence.KINDS:
        of_rows = [row[kind]["accuracy"] * row[kind]["texts"] for row in found["by_sentences"]]
        assert found["all"][kind]["accuracy"] == pytest.approx(sum(of_rows) / found["all"][kind]["texts"])


def test_scores_of_copies_are_those_of_the_pipeline() -> None:
    tokenizer = word_tokenizer()
    fields: dict[str, Any] = {"confidence_temperature": 1.0, "head": "pairs", "objective": "pairwise"}
    model: Any = SentenceOrderingModel.from_encoder("cnn", tokenizer=tokenizer, **fields)
    order = SentenceOrderingPipeline(model=model, tokenizer=tokenizer)
    (text,) = made_up_stories(1, shortest=5, longest=5)
    matrix = np.array(order(text, pairwise=True)["pairwise"])

    found = StoryScores(order(text)["scores"], torch.from_numpy(np.log(matrix / (1 - matrix))))
    copy = [3, 1, 0, 4, 2]
    expected = order([text[index] for index in copy], score=True)["coherence"]["log_probability"]
    assert coherence.log_probability(text, found, copy, 1.0) == pytest.approx(expected, abs=1e-5)
