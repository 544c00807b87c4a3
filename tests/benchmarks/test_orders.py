"""Orders from pairs and from similarities: what they find, and that the truth has no part in how ties are broken."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.orders import as_predictions, best_chain, chain_from_centre, topological_order
from training.evaluation.metrics import ordering_metrics

STORIES = 4000
NAMES = [f"sentence {number}" for number in range(40)]
Flip = Callable[[np.random.Generator, int], np.ndarray]


def story(generator: np.random.Generator, length: int = 5) -> list[str]:
    """Sentences in true order, of which neither the words nor their hashes tell the order."""
    return [f"{generator.integers(2**40)}" for _ in range(length)]


def unit_vectors(generator: np.random.Generator, count: int) -> np.ndarray:
    vectors = generator.normal(size=(count, 8))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def hard_coin(generator: np.random.Generator, length: int) -> np.ndarray:
    return generator.integers(0, 2, (length, length)).astype(float)


COINS = [
    pytest.param(hard_coin, id="0 or 1: equally sure"),
    pytest.param(lambda generator, length: generator.random((length, length)), id="any probability"),
    pytest.param(lambda generator, length: np.full((length, length), 0.5), id="never sure"),
]


@pytest.mark.parametrize("coin", COINS)
def test_coin_flips_order_nothing(coin: Flip) -> None:
    """Handed over in true order, so that whatever is numbered by it shows; graphs numbered so reach tau .39."""
    generator = np.random.default_rng(0)
    orders = [topological_order(story(generator), coin(generator, 5)) for _ in range(STORIES)]
    metrics = ordering_metrics(*_arrays(as_predictions(orders, [range(5)] * STORIES)))
    assert abs(metrics["kendalls_tau"]) < 0.03  # more than four standard errors of random orders of 5
    assert abs(metrics["accuracy"] - 1 / 5) < 0.015
    assert abs(metrics["pmr"] - 1 / 120) < 0.008


def _arrays(predictions: object) -> list[np.ndarray]:
    return [getattr(predictions, name) for name in ("scores", "labels", "sentence_mask")]


def test_pairs_that_agree_give_their_order() -> None:
    truth = [3, 0, 4, 1, 2]
    place = np.argsort(truth)
    earlier = (place[:, None] < place[None, :]).astype(float)
    assert topological_order(NAMES[:5], earlier) == truth


def test_a_cycle_is_broken_at_its_least_sure_pair() -> None:
    earlier = np.full((3, 3), 0.5)
    for one, other, probability in ((0, 1, 0.9), (1, 2, 0.8), (2, 0, 0.6)):
        earlier[one, other], earlier[other, one] = probability, 1 - probability
    assert topological_order(NAMES[:3], earlier) == [0, 1, 2]


def test_both_readings_of_a_pair_count() -> None:
    earlier = np.array([[0.5, 0.6], [0.9, 0.5]])  # read either way, what comes first is said to come first
    assert topological_order(NAMES[:2], earlier) == [1, 0]
    assert topological_order(NAMES[:2], earlier.T) == [0, 1]


@given(st.integers(2, 12), st.integers(0, 2**32 - 1), st.booleans())
def test_the_order_of_the_input_does_not_matter(length: int, seed: int, ties: bool) -> None:
    generator = np.random.default_rng(seed)
    sentences, permutation = story(generator, length), generator.permutation(length)
    shuffled = [sentences[i] for i in permutation]
    earlier = hard_coin(generator, length) if ties else generator.random((length, length))
    vectors = unit_vectors(generator, length).round(1 if ties else 8)
    for one, other in (
        (topological_order(sentences, earlier), topological_order(shuffled, earlier[np.ix_(permutation, permutation)])),
        (chain_from_centre(sentences, vectors), chain_from_centre(shuffled, vectors[permutation])),
        (best_chain(sentences, vectors), best_chain(shuffled, vectors[permutation])),
    ):
        assert sorted(one) == sorted(other) == list(range(length))
        assert [sentences[i] for i in one] == [shuffled[i] for i in other]


@pytest.mark.parametrize("order", [chain_from_centre, best_chain])
def test_similarities_that_mean_nothing_order_nothing(order: Callable[..., list[int]]) -> None:
    generator = np.random.default_rng(0)
    orders = [order(story(generator), unit_vectors(generator, 5)) for _ in range(STORIES)]
    metrics = ordering_metrics(*_arrays(as_predictions(orders, [range(5)] * STORIES)))
    assert abs(metrics["kendalls_tau"]) < 0.03


def test_chains_go_to_the_nearest_that_is_left() -> None:
    angles = np.radians([0, 60, 20, 100, 33])  # neighbours by angle: 0, 2, 4, 1, 3
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert chain_from_centre(NAMES[:5], vectors) == [4, 2, 0, 1, 3]  # the mean is at 42 degrees
    assert best_chain(NAMES[:5], vectors) in ([0, 2, 4, 1, 3], [3, 1, 4, 2, 0])


def test_places_are_scores() -> None:
    predictions = as_predictions([[2, 0, 1], [1, 0]], [[1, 2, 0], [1, 0]])
    metrics = ordering_metrics(*_arrays(predictions))
    assert (metrics["kendalls_tau"], metrics["pmr"], metrics["sentences"]) == (1, 1, 5)
