"""Precision and recall of what is asserted about the order, if the unsure part is left open."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from modeling_sentence_ordering import AnswerOptions, StoryScores, answer_of
from training.evaluation.analysis import analyse
from training.evaluation.partial_orders import PROBABILITIES, partial_orders
from training.evaluation.predictions import Predictions

TEMPERATURE = 0.7


def made_up(stories: int, *, pairs: bool, seed: int = 0) -> Predictions:
    """Scores or pair logits that are the true positions and noise, of stories of 2 to 6 sentences."""
    generator = np.random.default_rng(seed)
    labels, scores = np.full((stories, 6), -100), np.zeros((stories, 6))
    pair_logits = []
    for row in range(stories):
        count = int(generator.integers(2, 7))
        labels[row, :count] = generator.permutation(count)
        scores[row, :count] = labels[row, :count] + generator.normal(size=count)
        noise = generator.normal(size=(count, count))
        own = scores[row, :count]
        pair_logits.append(own - own[:, None] + noise - noise.T)
    return Predictions(scores, labels, labels != -100, pair_logits if pairs else None)


@pytest.mark.parametrize("pairs", [False, True])
def test_the_curve_is_that_of_the_layers_of_answers(pairs: bool) -> None:
    some = made_up(40, pairs=pairs)
    for found in partial_orders(some, TEMPERATURE)[1:]:
        asserted = right = every = 0
        taus = []
        for story, labels in enumerate(some.labels):
            count = int((labels >= 0).sum())
            logits = None if some.pair_logits is None else some.pair_logits[story]
            answer: dict[str, Any] = answer_of(
                [f"{index}" for index in range(count)],
                StoryScores(some.scores[story, :count].tolist(), _tensor(logits)),
                temperature=TEMPERATURE,
                options=AnswerOptions(ties=found["ties"]),
            )
            layer = {index: number for number, layer in enumerate(answer["layers"]) for index in layer}
            for i in range(count):
                for j in range(count):
                    asserted += layer[i] < layer[j]
                    right += layer[i] < layer[j] and labels[i] < labels[j]
            every += count * (count - 1) // 2
            tau = kendalltau([layer[index] for index in range(count)], labels[:count]).statistic
            taus.append(0.0 if np.isnan(tau) else tau)
        assert found["asserted"] == pytest.approx(asserted / every)
        assert found["precision"] == pytest.approx(right / asserted)
        assert found["recall"] == pytest.approx(right / every)
        assert found["kendalls_tau_b"] == pytest.approx(np.mean(taus))


def _tensor(logits: Any) -> Any:
    import torch

    return None if logits is None else torch.from_numpy(logits)


@pytest.mark.parametrize("pairs", [False, True])
def test_more_certainty_asserts_less_and_the_whole_order_has_the_usual_tau(pairs: bool) -> None:
    some = made_up(200, pairs=pairs)
    curve = partial_orders(some, TEMPERATURE)
    assert [row["ties"] for row in curve] == list(PROBABILITIES)
    for name in ("asserted", "recall"):
        values = [row[name] for row in curve]
        assert values == sorted(values, reverse=True)
    assert curve[0]["asserted"] == 1 and curve[0]["precision"] == curve[0]["recall"] < curve[-3]["precision"]
    analysis = analyse(some, TEMPERATURE)
    assert analysis["partial_orders"] == curve
    taus = sum(row["kendalls_tau"] * row["stories"] for row in analysis["by_sentences"]) / 200
    assert curve[0]["kendalls_tau_b"] == pytest.approx(taus)
    assert "partial_orders" not in analyse(some)


def test_a_model_without_an_opinion_asserts_nothing() -> None:
    labels = np.array([[1, 0, 2], [0, 1, -100]])
    curve = partial_orders(Predictions(np.zeros((2, 3)), labels, labels >= 0), 1.0)
    assert all(row["asserted"] == row["recall"] == row["kendalls_tau_b"] == 0 for row in curve[1:])
    assert all(row["precision"] is None for row in curve[1:])


def test_identical_sentences_do_not_count() -> None:
    labels, scores = np.array([[0, 1, 2]]), np.array([[1.0, 0.0, 9.0]])
    some = Predictions(scores, labels, labels >= 0, copies={0: (0, 1, 0)})
    curve = partial_orders(some, 1.0)
    assert curve[0]["asserted"] == 1 and curve[0]["precision"] == 0.5  # two pairs, one of which is right
    all_alike = Predictions(scores, labels, labels >= 0, copies={0: (0, 0, 0)})
    assert partial_orders(all_alike, 1.0) == []
