"""Identical sentences are interchangeable in everything that is judged."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from datasets import Dataset

from modeling_sentence_ordering import StoryTokenizer
from tests.training.conftest import Trained
from training.data.stories import TokenizedStories
from training.evaluation.analysis import analyse
from training.evaluation.calibration import judged_pairs
from training.evaluation.copies import copies_of
from training.evaluation.metrics import ordering_metrics, story_metrics
from training.evaluation.predictions import Predictions, evaluation_metrics, predict
from training.models.trained_model import load_trained_model

TWICE = {0: [0, 0]}
LABELS = np.array([[0, 1], [1, 0]])
SCORES = np.array([[1.0, 0.0], [0.25, 0.0]])


def test_a_story_of_one_text_is_in_order_in_any_order() -> None:
    for scores in ([0.0, 1.0], [1.0, 0.0], [0.5, 0.5]):
        for labels in ([0, 1], [1, 0]):
            found = ordering_metrics([scores], [labels], copies=TWICE)
            assert (found["accuracy"], found["kendalls_tau"], found["pmr"]) == (1.0, 1.0, 1.0)


def by_definition(order: tuple[int, ...], same: list[int]) -> tuple[float, float, float]:
    """Of an order of the true positions."""
    count = len(order)
    texts = [same[position] for position in order]
    accuracy = sum(given == true for given, true in zip(texts, same, strict=True)) / count
    positions = {text: [p for p in range(count) if same[p] == text] for text in same}
    relabelled = [positions[text].pop(0) for text in texts]
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    signs = sum(1 if relabelled[i] < relabelled[j] else -1 for i, j in pairs)
    return accuracy, signs / len(pairs), float(texts == same)


@pytest.mark.parametrize("same", [[0, 0, 2, 3], [0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 2, 3], [0, 0, 0, 0]], ids=str)
def test_every_order_is_judged_by_its_texts(same: list[int]) -> None:
    for order in permutations(range(4)):
        scores = [[float(order.index(position)) for position in range(4)]]
        found = story_metrics(scores, [[0, 1, 2, 3]], copies={0: same})
        values = tuple(float(found[name][0]) for name in ("accuracy", "kendalls_tau", "pmr"))
        assert values == pytest.approx(by_definition(order, same))


def test_metrics_do_not_depend_on_the_order_of_the_input() -> None:
    scores, same = [0.5, 0.5, 0.1, 0.7], {0: [0, 1, 0, 1]}
    first = None
    for order in permutations(range(4)):
        found = story_metrics([[scores[i] for i in order]], [list(order)], copies=same)
        values = {name: value.item() for name, value in found.items()}
        first = first or values
        assert values == pytest.approx(first)


def test_calibration_and_intervals_follow() -> None:
    some = Predictions(SCORES, LABELS, np.ones((2, 2), bool), copies=TWICE)
    assert judged_pairs(some).right.tolist() == [True, True]
    found = analyse(some)
    assert found["intervals"]["kendalls_tau"] == [1.0, 1.0]
    assert found["positions"] == [[2.0, 0.0], [0.0, 2.0]]
    without = analyse(Predictions(SCORES, LABELS, np.ones((2, 2), bool)))
    assert without["by_sentences"][0]["kendalls_tau"] == 0.0


def test_stories_with_identical_sentences_are_found_in_an_evaluation(trained: Trained) -> None:
    model, tokenizer = load_trained_model(str(trained.folder))
    texts = [["Ok.", "Ok."], ["It rained.", "She left."], ["Why?", "Because.", "Why?"]]
    rows = [{"storyid": str(i), "storytitle": "", "sentences": story} for i, story in enumerate(texts)]
    stories = TokenizedStories(Dataset.from_list(rows), StoryTokenizer(tokenizer, model.config))
    assert copies_of(stories) == {0: [0, 0], 2: [0, 1, 0]}
    predictions = predict(model, stories)
    assert evaluation_metrics(predictions.select(np.array([0])), model.config)["pmr"] == 1.0
    assert predictions.select(np.array([2, 1])).copies == {0: [0, 1, 0]}
