"""What lies behind the metrics: intervals, baselines, positions and the stories that are shown."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.analysis import analyse, choose_examples, confidence_intervals
from training.evaluation.metrics import ordering_metrics, rank_counts, story_metrics
from training.evaluation.predictions import Predictions

JUDGED = ("accuracy", "kendalls_tau", "pmr")


def predictions(stories: int, *, shortest: int = 5, longest: int = 5, noise: float = 1.0, seed: int = 0) -> Predictions:
    """Scores that are the true places and noise, of stories shuffled at random."""
    generator = np.random.default_rng(seed)
    labels = np.full((stories, longest), -100)
    scores = np.full((stories, longest), np.nan, np.float32)
    for row in range(stories):
        count = int(generator.integers(shortest, longest + 1))
        labels[row, :count] = generator.permutation(count)
        scores[row, :count] = labels[row, :count] + noise * generator.normal(size=count)
    return Predictions(scores, labels, labels != -100)


@st.composite
def any_predictions(draw: st.DrawFn) -> Predictions:
    """Few stories of 1 to 5 sentences, with ties and sentences cut off; at least one has two left."""
    rows = draw(st.lists(st.integers(1, 5).flatmap(lambda count: st.permutations(range(count))), max_size=6))
    rows.append([1, 0])
    labels = np.array([[*row, *[-100] * (5 - len(row))] for row in rows])
    scores = np.array(draw(st.lists(st.integers(0, 3), min_size=labels.size, max_size=labels.size)), float)
    hidden = np.array(draw(st.lists(st.booleans(), min_size=labels.size, max_size=labels.size))).reshape(labels.shape)
    hidden[-1] = False
    return Predictions(scores.reshape(labels.shape), labels, (labels != -100) & ~hidden)


def arrays(some: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return some.scores, some.labels, some.sentence_mask


@given(any_predictions())
def test_the_parts_add_up_to_the_metrics_of_the_whole(some: Predictions) -> None:
    found, whole = analyse(some), ordering_metrics(*arrays(some))
    scored = whole["stories"] - whole["unscored_stories"]
    assert sum(row["stories"] for row in found["by_sentences"]) == scored
    for name in JUDGED:
        mean = sum(row[name] * row["stories"] for row in found["by_sentences"]) / scored
        assert mean == pytest.approx(whole[name])
    positions = np.array(found["positions"])
    assert positions.sum(axis=1) == pytest.approx([row["sentences"] for row in found["by_position"]], abs=1e-3)
    assert positions.sum(axis=0) == pytest.approx(positions.sum(axis=1), abs=1e-3)
    right = [row["accuracy"] * row["sentences"] for row in found["by_position"]]
    assert np.diag(positions) == pytest.approx(right, abs=1e-3)
    in_words = json.dumps(found, allow_nan=False)
    assert json.loads(in_words) == found


@given(any_predictions(), st.randoms(use_true_random=False))
def test_only_the_input_order_depends_on_how_the_stories_are_shown(some: Predictions, random: Any) -> None:
    order = list(range(some.labels.shape[1]))
    random.shuffle(order)
    other = Predictions(some.scores[:, order], some.labels[:, order], some.sentence_mask[:, order])
    found, expected = analyse(other), analyse(some)
    assert found["positions"] == expected["positions"]
    assert found["by_position"] == expected["by_position"]
    assert found["baselines"]["random_order"] == expected["baselines"]["random_order"]


def test_where_sentences_were_put_is_counted_and_ties_are_shared() -> None:
    scores, labels = np.array([[0.3, 0.1, 0.2], [1.0, 1.0, 0.0]]), np.array([[0, 1, 2], [2, 0, 1]])
    # Of the first story the places given to sentences 1, 2, 3 are 3, 1, 2; of the second sentence 2 is the first, and
    # the others share the places 2 and 3.
    assert rank_counts(scores, labels).tolist() == [[0, 0.5, 1.5], [2, 0, 0], [0, 1.5, 0.5]]


def test_positions_are_ranks_among_the_sentences_that_were_not_cut_off() -> None:
    scores, labels = np.array([[1.0, np.nan, 0.0], [0.0, np.nan, np.nan]]), np.array([[0, 1, 2], [0, 1, -100]])
    mask = np.array([[True, False, True], [True, False, False]])
    assert rank_counts(scores, labels, mask).tolist() == [[0, 1], [1, 0]]


def test_chance_is_exact() -> None:
    some = predictions(40, shortest=2, longest=6)
    counts = some.sentence_mask.sum(axis=1)
    found = analyse(some)["baselines"]["random_order"]
    expected = {
        "accuracy": np.mean(1 / counts),
        "kendalls_tau": 0.0,
        "pmr": np.mean([1 / math.factorial(n) for n in counts]),
    }  # noqa: E501
    assert found == pytest.approx(expected)


def test_the_input_order_is_judged_as_it_stands() -> None:
    some = Predictions(np.zeros((2, 3)), np.array([[0, 1, 2], [2, 1, 0]]), np.ones((2, 3), bool))
    assert analyse(some)["baselines"]["input_order"] == pytest.approx(
        {"accuracy": 2 / 3, "kendalls_tau": 0, "pmr": 0.5}
    )


def test_intervals_are_those_of_the_normal_distribution_where_there_are_many_stories() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.2, size=2000)
    found = confidence_intervals({"accuracy": values, "pmr": 1 - values})
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found["accuracy"] == pytest.approx([values.mean() - half, values.mean() + half], abs=0.1 * half)
    # The metrics are judged on the same draws.
    assert found["pmr"] == pytest.approx([1 - found["accuracy"][1], 1 - found["accuracy"][0]])
    assert (found["level"], found["resamples"]) == (0.95, 2000)
    assert confidence_intervals({"accuracy": values, "pmr": 1 - values}) == found


def test_an_interval_never_leaves_what_a_metric_can_be() -> None:
    """Percentiles of means, unlike other kinds of bootstrap intervals."""
    low, high = confidence_intervals({"pmr": np.array([1.0, *[0.0] * 11])})["pmr"]
    assert low == 0 and 0.1 < high < 0.4


def test_one_story_has_no_interval() -> None:
    assert set(analyse(predictions(1))["intervals"]) == {"level", "resamples", "seed"}


def test_nothing_scored_is_an_error() -> None:
    with pytest.raises(ValueError, match="no story"):
        analyse(Predictions(np.zeros((1, 2)), np.array([[0, 1]]), np.array([[True, False]])))


def test_the_stories_shown_are_the_best_the_median_and_the_worst_of_those_drawn() -> None:
    some = predictions(60, noise=2.0)
    tau = story_metrics(*arrays(some))["kendalls_tau"]
    found = analyse(some)["examples"]
    best, median, worst = found["stories"]
    assert [story["chosen"] for story in found["stories"]] == ["best", "median", "worst"]
    assert (found["drawn"], best["kendalls_tau"], worst["kendalls_tau"]) == (60, tau.max(), tau.min())
    assert median["kendalls_tau"] == sorted(tau)[29]
    for story in found["stories"]:
        index = story["story"]
        assert story["order"] == some.labels[index][np.argsort(some.scores[index])].tolist()
        assert story["kendalls_tau"] == tau[index]


def test_at_most_a_hundred_stories_are_drawn_always_the_same() -> None:
    some = predictions(500, noise=2.0)
    tau = story_metrics(*arrays(some))["kendalls_tau"]
    found = analyse(some)["examples"]
    assert found == analyse(some)["examples"]
    assert (found["candidates"], found["drawn"]) == (500, 100)
    assert found["stories"][1]["kendalls_tau"] == pytest.approx(np.median(tau), abs=0.2)


def test_a_story_that_was_cut_off_or_is_long_is_not_shown() -> None:
    some = predictions(3, shortest=12, longest=12)
    assert analyse(some)["examples"]["stories"] == []
    some = predictions(4)
    some.sentence_mask[:3, 0] = False
    assert [story["story"] for story in analyse(some)["examples"]["stories"]] == [3]


@pytest.mark.parametrize(
    ("stories", "chosen"), [(1, ["best"]), (2, ["best", "worst"]), (3, ["best", "median", "worst"])]
)
def test_no_story_is_shown_twice(stories: int, chosen: list[str]) -> None:
    some = predictions(stories)
    found = choose_examples(some, story_metrics(*arrays(some)))["stories"]
    assert [story["chosen"] for story in found] == chosen
    assert len({story["story"] for story in found}) == stories
