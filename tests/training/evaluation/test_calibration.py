"""How sure an order is: the temperature against what made the data, and against plain loops."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_sentence_ordering import SentenceOrderingPipeline, confidence
from tests.training.conftest import Trained, run_command
from tests.training.made_up import made_up_stories, write_jsonl
from training.evaluation.calibration import JudgedPairs, calibrated, calibration_error, fit_temperature, neighbours
from training.evaluation.predictions import Predictions
from training.models.trained_model import load_trained_model

STORIES = made_up_stories(5, shortest=2, longest=5, seed=6)


def drawn(temperature: float, count: int = 40_000, seed: int = 0) -> JudgedPairs:
    """Pairs that are right as often as the temperature says."""
    generator = np.random.default_rng(seed)
    differences = generator.exponential(1.5, count)
    return JudgedPairs(differences, generator.random(count) < 1 / (1 + np.exp(-differences / temperature)))


def pairs(*values: tuple[float, bool]) -> JudgedPairs:
    differences, right = zip(*values, strict=True)
    return JudgedPairs(np.array(differences, float), np.array(right, bool))


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0])
def test_the_temperature_that_made_the_pairs_is_found_and_holds(temperature: float) -> None:
    found = fit_temperature(drawn(temperature))
    assert found == pytest.approx(temperature, rel=0.05)
    fresh = drawn(temperature, seed=1)
    assert calibration_error(fresh, found) < 0.01
    assert calibration_error(fresh, 4 * temperature) > 0.03 < calibration_error(fresh, temperature / 4)


def test_no_other_temperature_is_likelier() -> None:
    few = pairs((0.1, False), (0.5, True), (1.2, True), (2.0, False), (3.0, True), (0.7, True), (0.0, False))
    right, wrong = 4, 3

    def likelihood(temperature: float) -> float:
        total = 0.0
        for difference, is_right in zip(few.differences, few.right, strict=True):
            target = (right + 1) / (right + 2) if is_right else 1 / (wrong + 2)
            p = confidence(difference, temperature)
            total += target * math.log(p) + (1 - target) * math.log(1 - p)
        return total

    found = fit_temperature(few)
    assert all(likelihood(found) > likelihood(found * factor) for factor in (0.5, 0.99, 1.01, 2.0))


def test_no_few_stories_make_it_certain_and_none_tell_nothing() -> None:
    assert 0.1 < fit_temperature(pairs((1.0, True), (2.0, True))) < 10
    assert fit_temperature(pairs((1.0, False), (2.0, False), (0.5, True))) == 1e6
    assert fit_temperature(pairs((1e-9, True), (1e-9, True))) == 1e-6
    assert fit_temperature(pairs((0.0, True), (0.0, False))) is None
    assert fit_temperature(JudgedPairs(np.zeros(0), np.zeros(0, bool))) is None
    assert calibration_error(JudgedPairs(np.zeros(0), np.zeros(0, bool)), 1.0) == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 20), st.booleans()), min_size=1, max_size=40), st.floats(0.01, 10))
def test_the_calibration_error_is_its_definition(values: list[tuple[float, bool]], temperature: float) -> None:
    bins: dict[int, list[tuple[float, bool]]] = {}
    for difference, right in values:
        p = 1 / (1 + math.exp(-difference / temperature))
        edges = [0.5 + 0.05 * edge for edge in range(1, 10)]
        if min(abs(p - edge) for edge in edges) < 1e-9:
            return  # which side rounding puts it on is no matter
        bins.setdefault(sum(p > edge for edge in edges), []).append((p, right))
    expected = sum(abs(sum(p - right for p, right in members)) for members in bins.values()) / len(values)
    assert calibration_error(pairs(*values), temperature) == pytest.approx(expected, abs=1e-9)


def test_neighbours_are_those_of_the_order_found() -> None:
    scores = np.array([[3.0, 1.0, 2.0, 9.0], [1.0, -1.0, 7.0, 7.0], [5.0, 7.0, 7.0, 7.0]], np.float32)
    labels = np.array([[1, 0, 2, 3], [0, 1, -100, -100], [0, -100, -100, -100]])
    mask = np.array([[True, True, True, False], [True, True, False, False], [True, False, False, False]])
    found = neighbours(Predictions(scores, labels, mask))
    assert found.differences.tolist() == [1.0, 1.0, 2.0]
    assert found.right.tolist() == [True, False, False]
    assert not len(neighbours(Predictions(scores[2:], labels[2:], mask[2:])).right)


def test_without_validation_stories_there_is_no_temperature() -> None:
    one = Predictions(np.array([[0.0, 1.0]]), np.array([[0, 1]]), np.ones((1, 2), bool))
    assert calibrated({"test": one}) is None
    assert set(calibrated({"test": one, "validation": one})["calibration_error"]) == {"test", "validation"}


@pytest.mark.parametrize(("difference", "expected"), [(0.0, 0.5), (2.0, 1 / (1 + math.exp(-4))), (-1e9, 0), (1e9, 1)])
def test_confidence_is_the_logistic_of_the_difference(difference: float, expected: float) -> None:
    assert confidence(difference, 0.5) == pytest.approx(expected, abs=1e-15)


def test_the_pipeline_says_how_sure_it_is_if_it_knows(trained: Trained) -> None:
    model, tokenizer = load_trained_model(str(trained.folder))
    order = SentenceOrderingPipeline(model=model, tokenizer=tokenizer)
    temperature = model.config.confidence_temperature
    for answer in order([*STORIES, ["It rained."], []], num_permutations=3):
        sorted_scores = sorted(answer["scores"])
        steps = zip(sorted_scores, sorted_scores[1:], strict=False)
        assert list(answer) == ["sentences", "order", "scores", "confidence"]
        assert answer["confidence"] == pytest.approx([1 / (1 + math.exp((a - b) / temperature)) for a, b in steps])
        assert json.loads(json.dumps(answer)) == answer
    model.config.confidence_temperature = None
    assert list(order(STORIES[0])) == ["sentences", "order", "scores"]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_order_writes_it(suffix: str, trained: Trained, tmp_path: Path) -> None:
    model, tokenizer = load_trained_model(str(trained.folder))
    expected = SentenceOrderingPipeline(model=model, tokenizer=tokenizer)(STORIES)
    source, target = write_jsonl(tmp_path / "stories.jsonl", STORIES), tmp_path / f"ordered{suffix}"
    assert run_command("order", "--model", trained.folder, source, "--output", target).code == 0
    rows: list[dict[str, Any]]
    if suffix == ".parquet":
        rows = pq.read_table(target).to_pylist()
    elif suffix == ".csv":
        with open(target, newline="", encoding="utf-8") as stream:
            rows = [{**row, "confidence": json.loads(row["confidence"])} for row in csv.DictReader(stream)]
    else:
        rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    for row, answer in zip(rows, expected, strict=True):
        assert row["confidence"] == pytest.approx(answer["confidence"], abs=1e-4)


def test_evaluate_says_how_far_off_it_is(trained: Trained) -> None:
    result = run_command("evaluate", "--model", trained.folder, "--data", trained.home / "stories.jsonl")
    error = trained.results["calibration"]["calibration_error"]["test"]
    assert f"calibration_error  {error:.4f}\n" in result.out


def test_a_model_without_a_temperature_is_evaluated_and_orders_as_before(trained: Trained, tmp_path: Path) -> None:
    model, tokenizer = load_trained_model(str(trained.folder))
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    entries = json.loads(path.read_text(encoding="utf-8"))
    del entries["confidence_temperature"]  # as models of an earlier version are
    path.write_text(json.dumps(entries), encoding="utf-8")
    data, stories = trained.home / "stories.jsonl", write_jsonl(tmp_path / "stories.jsonl", STORIES)
    assert "calibration_error" not in run_command("evaluate", "--model", tmp_path / "model", "--data", data).out
    lines = run_command("order", "--model", tmp_path / "model", stories).out.splitlines()
    assert all("confidence" not in json.loads(line) for line in lines) and len(lines) == len(STORIES)
