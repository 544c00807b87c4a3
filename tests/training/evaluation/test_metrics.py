"""The metrics, against scipy and scikit-learn story by story, and against every way to break ties."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau
from sklearn.metrics import accuracy_score

from training.evaluation.metrics import GREATER_IS_BETTER, METRIC_NAMES, PRIMARY_METRIC, ordering_metrics, story_metrics

JUDGED = ("accuracy", "kendalls_tau", "pmr")

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Stories = tuple[Floats, Labels, Mask]


@st.composite
def stories(draw: st.DrawFn, ties: bool = True, shortest: int = 0) -> Stories:
    """Stories of different length, shuffled and padded, some of them cut off; what is hidden holds rubbish."""
    lengths = draw(st.lists(st.integers(max(2, shortest), 7), min_size=1, max_size=6))
    width = max(lengths) + draw(st.integers(0, 2))
    scores = np.full((len(lengths), width), np.nan)
    labels = np.full((len(lengths), width), -100)
    mask = np.zeros((len(lengths), width), bool)
    values = st.sampled_from([-1.5, 0.0, 0.25, 3.0]) if ties else st.floats(-1e6, 1e6, width=32)
    for row, length in enumerate(lengths):
        labels[row, :length] = draw(st.permutations(range(length)))
        kept = draw(st.integers(shortest, length))
        scores[row, :kept] = draw(st.lists(values, min_size=kept, max_size=kept, unique=not ties))
        mask[row, :kept] = True
    return scores, labels, mask


def surviving(stories: Stories) -> Iterator[tuple[Floats, Labels]]:
    """Story by story the scores and the true ranks of the sentences that survived."""
    for scores, labels, mask in zip(*stories, strict=True):
        kept = mask & (labels >= 0)
        yield scores[kept], labels[kept].argsort().argsort()


def ranks(scores: Floats) -> Labels:
    return scores.argsort().argsort()


def every_tie_breaking(scores: Floats) -> Iterator[Labels]:
    """All the rankings that agree with the scores, each once."""
    for order in itertools.permutations(range(len(scores))):
        if all(scores[a] <= scores[b] for a, b in itertools.pairwise(order)):
            yield np.argsort(order)


@given(stories(ties=False))
def test_equals_scipy_and_sklearn_story_by_story(stories: Stories) -> None:
    ours = story_metrics(*stories)
    for row, (scores, true) in enumerate(surviving(stories)):
        if len(scores) < 2:
            assert all(np.isnan(ours[name][row]) for name in JUDGED)
            continue
        assert ours["kendalls_tau"][row] == pytest.approx(kendalltau(scores, true).statistic, abs=1e-12)
        assert ours["accuracy"][row] == pytest.approx(accuracy_score(true, ranks(scores)), abs=1e-12)
        assert ours["pmr"][row] == (ranks(scores) == true).all()


@settings(deadline=None)  # up to 720 orders
@given(stories(ties=True, shortest=2))
def test_with_ties_each_metric_is_the_mean_over_all_ways_to_break_them(stories: Stories) -> None:
    ours = story_metrics(*stories)
    for row, (scores, true) in enumerate(surviving(stories)):
        rankings = list(every_tie_breaking(scores))
        expected = {
            "kendalls_tau": np.mean([kendalltau(ranking, true).statistic for ranking in rankings]),
            "accuracy": np.mean([ranking == true for ranking in rankings]),
            "pmr": np.mean([(ranking == true).all() for ranking in rankings]),
        }
        assert {name: ours[name][row] for name in JUDGED} == pytest.approx(expected, abs=1e-12)


@given(stories())
def test_nothing_hangs_on_the_order_of_the_input_or_on_padding(stories: Stories) -> None:
    scores, labels, mask = stories
    columns = np.random.default_rng(0).permuted(np.broadcast_to(np.arange(scores.shape[1]), scores.shape), axis=1)
    permuted = [np.take_along_axis(array, columns, axis=1) for array in stories]
    padded = [
        np.pad(array, ((0, 0), (0, 3)), constant_values=value)
        for array, value in ((scores, np.inf), (labels, -100), (mask, False))
    ]
    for other in (permuted, padded):
        for name, values in story_metrics(*stories).items():
            np.testing.assert_allclose(story_metrics(*other)[name], values, rtol=1e-12)


@given(stories(shortest=2))
def test_the_reverse_order_negates_tau(stories: Stories) -> None:
    scores, labels, mask = stories
    np.testing.assert_array_equal(
        story_metrics(-scores, labels, mask)["kendalls_tau"], -story_metrics(scores, labels, mask)["kendalls_tau"]
    )


@given(stories(shortest=2))
def test_range_and_the_mean_over_stories(stories: Stories) -> None:
    per_story, overall = story_metrics(*stories), ordering_metrics(*stories)
    for name in JUDGED:
        assert overall[name] == pytest.approx(per_story[name].mean())
        assert (-1 if name == "kendalls_tau" else 0) <= per_story[name].min()
        assert per_story[name].max() <= 1
    assert all(per_story["accuracy"] >= per_story["pmr"] - 1e-12)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_equal_scores_get_what_chance_gets(n: int) -> None:
    metrics = ordering_metrics(np.zeros((3, n)), np.tile(np.arange(n), (3, 1)))
    assert [metrics[name] for name in JUDGED] == pytest.approx([1 / n, 0, 1 / math.factorial(n)])


def test_scores_ascend_with_the_original_index() -> None:
    perfect = ordering_metrics([[0.3, -7.0, 0.1]], [[2, 0, 1]])
    assert [perfect[name] for name in JUDGED] == [1, 1, 1]
    backwards = ordering_metrics([[0.3, 7.0, 0.4]], [[2, 0, 1]])
    assert [backwards[name] for name in JUDGED] == pytest.approx([1 / 3, -1, 0])


def test_of_a_cut_off_story_ranks_are_compared_with_ranks() -> None:
    """Left of labels 0 ... 4 are 4, 1 and 3: in the right order, though no index equals its rank."""
    metrics = ordering_metrics([[9.0, 2.0, 5.0, 0.0, 0.0]], [[4, 1, 3, 0, 2]], [[True, True, True, False, False]])
    assert [metrics[name] for name in JUDGED] == [1, 1, 1]
    assert (metrics["sentences"], metrics["dropped_sentences"]) == (5, 2)


def test_counts_are_those_of_surviving_sentences() -> None:
    scores = np.array([[1.0, 2.0, 77.0], [6.0, 88.0, 88.0], [99.0, 99.0, 99.0], [np.nan] * 3])
    labels = [[0, 1, 2], [1, 0, -100], [0, 1, -100], [-100] * 3]
    mask = [[True, True, False], [True, False, False], [False] * 3, [True] * 3]
    metrics = ordering_metrics(scores, labels, mask)
    assert metrics == {
        "accuracy": 1,
        "kendalls_tau": 1,
        "pmr": 1,
        "stories": 3,
        "sentences": 7,
        "dropped_sentences": 4,
        "unscored_stories": 2,
    }
    assert {type(metrics[name]) for name in JUDGED} == {float}
    assert {type(metrics[name]) for name in ("stories", "sentences", "dropped_sentences", "unscored_stories")} == {int}


@pytest.mark.parametrize(
    ("scores", "labels", "mask", "message"),
    [
        ([[0.0, 1.0], [0.0, np.nan]], [[0, 1], [0, 1]], None, r"story 1 .* score nan for its input sentence 1"),
        ([[0.0, np.inf], [np.nan, 0.0]], [[0, 1], [0, 1]], None, r"story 0 .* score inf for its input sentence 1"),
        ([[0.0, 1.0]], [[1, 1]], None, r"story 0 .* label 1 more than once"),
        ([[0.0, 1.0]], [[0, -1]], None, r"story 0 .* label -1"),
        ([[0.0, 1.0]], [[0.0, 1.0]], None, "labels must be integers, but they are float64"),
        ([["a", "b"]], [[0, 1]], None, "scores must be numbers"),
        ([[0.0, 1.0]], [[0, 1]], [[1, 1]], "sentence_mask must be bool, but it is int64"),
        ([[0.0, 1.0]], [[0, 1, 2]], None, r"\(1, 2\), \(1, 3\)"),
        ([0.0, 1.0], [0, 1], None, r"must all be \(stories, max_sentences\)"),
        ([[0.0, 1.0]], [[0, 1]], [[True, False]], "none of 1 stories has two sentences"),
        (np.zeros((0, 5)), np.zeros((0, 5), int), None, "none of 0 stories has two sentences"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    scores: npt.ArrayLike, labels: npt.ArrayLike, mask: npt.ArrayLike | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        ordering_metrics(scores, labels, mask)
    assert "\n" not in str(refused.value)


def test_half_precision_and_integer_scores_are_judged_alike() -> None:
    labels = [[2, 0, 1], [0, 2, 1]]
    scores = np.array([[3, 1, 2], [1, 2, 3]])
    expected = ordering_metrics(scores, labels)
    for dtype in (np.float16, np.float32, np.float64):
        assert ordering_metrics(scores.astype(dtype), labels) == expected


@pytest.mark.parametrize(("number", "n"), [(100_000, 10), (2, 4_000)])
def test_memory_grows_with_the_sentences_not_with_their_pairs(number: int, n: int) -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=(number, n))
    labels = random.permuted(np.tile(np.arange(n), (number, 1)), axis=1)
    tracemalloc.start()
    ordering_metrics(scores, labels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * scores.nbytes + 2**20


def test_a_long_story_equals_scipy() -> None:
    random = np.random.default_rng(0)
    true = random.permutation(1_500)
    scores = true + random.normal(scale=300, size=true.shape)
    metrics = ordering_metrics([scores], [true])
    assert metrics["kendalls_tau"] == pytest.approx(kendalltau(scores, true).statistic)
    assert metrics["accuracy"] == pytest.approx(accuracy_score(true, ranks(scores)))


def test_names_cover_what_is_computed() -> None:
    computed = ordering_metrics([[0.0, 1.0]], [[0, 1]])
    assert set(METRIC_NAMES) - set(computed) == {"loss", "mean_logits", "std_logits"}
    assert [name for name in METRIC_NAMES if GREATER_IS_BETTER.get(name)] == list(JUDGED)
    assert GREATER_IS_BETTER["loss"] is False
    assert PRIMARY_METRIC == "kendalls_tau"


def test_metrics_do_not_import_torch() -> None:
    code = "import sys, training.evaluation.metrics; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True)
