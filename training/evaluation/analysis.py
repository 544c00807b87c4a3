"""What lies behind the metrics of an evaluation: how sure they are, what chance gets, and where the errors are."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import bootstrap

from .metrics import LABEL_PADDING, rank_counts, story_metrics
from .predictions import Predictions

JUDGED = ("accuracy", "kendalls_tau", "pmr")
LEVEL, RESAMPLES, SEED = 0.95, 2000, 42
EXAMPLES_FROM, LONGEST_EXAMPLE = 100, 10  # stories, sentences


def analyse(predictions: Predictions) -> dict[str, Any]:
    """An evaluation in plain values, as `results.json` holds it.

    Args:
        predictions: of one split.

    Returns:
        - `intervals`: see `confidence_intervals`.
        - `baselines`: the metrics of `random_order` (their exact expectation: tau 0, accuracy the mean of 1/N, pmr
          the mean of 1/N!) and of `input_order`, the sentences left as the evaluation's shuffles show them.
        - `by_position`: for each true position, from 1, the accuracy there and the number of sentences.
        - `by_sentences`: for each number of sentences that stories have, the metrics and the number of stories.
        - `positions`: see `rank_counts`; row the true position, column the one given.
        - `examples`: see `choose_examples`.
        Stories of which fewer than two sentences survived are in none of them.

    Raises:
        ValueError: no story could be scored.
    """
    scores, labels, mask, copies = predictions.ranks, predictions.labels, predictions.sentence_mask, predictions.copies
    stories = story_metrics(scores, labels, mask, copies=copies)
    scored = np.isfinite(stories["kendalls_tau"])
    if not scored.any():
        raise ValueError("no story has two sentences with a label and a score, so there is nothing to analyse")
    # Equal scores are what chance is: the metrics are then their expected values.
    chance = story_metrics(np.zeros(labels.shape), labels, mask, copies=copies)
    as_shown = story_metrics(np.broadcast_to(np.arange(labels.shape[1]), labels.shape), labels, mask, copies=copies)
    positions = rank_counts(scores, predictions.interchanged_labels, mask)
    sentences = (labels != LABEL_PADDING).sum(axis=1)
    return {
        "intervals": confidence_intervals({name: stories[name][scored] for name in JUDGED}),
        "baselines": {"random_order": _means(chance, scored), "input_order": _means(as_shown, scored)},
        "by_position": [
            {"position": place + 1, "accuracy": float(row[place] / row.sum()), "sentences": round(row.sum())}
            for place, row in enumerate(positions)
        ],
        "by_sentences": [
            {"sentences": int(count), "stories": int(some.sum()), **_means(stories, some)}
            for count in np.unique(sentences[scored])
            for some in [scored & (sentences == count)]
        ],
        "positions": [[round(float(count), 4) for count in row] for row in positions],
        "examples": choose_examples(predictions, stories),
    }


def confidence_intervals(stories: dict[str, np.ndarray]) -> dict[str, Any]:
    """Percentile bootstrap intervals of means over stories (Efron & Tibshirani 1993, An Introduction to the Bootstrap,
    chapter 13): stories are drawn with replacement, all metrics on the same draws.

    Args:
        stories: for each metric its value for every story, float (stories,), none of them nan.

    Returns:
        `level`, `resamples`, `seed`, and for each metric `[low, high]`; no metric where there are fewer than two
        stories, which tell nothing of how stories differ.
    """
    intervals: dict[str, Any] = {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED}
    values = np.stack(list(stories.values()))
    if values.shape[1] < 2:
        return intervals
    found = bootstrap(
        (values,),
        np.mean,
        axis=-1,
        n_resamples=RESAMPLES,
        batch=max(1, 1_000_000 // values.size),  # resamples at a time, of a few numbers each of 8 bytes
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    for name, low, high in zip(stories, found.low, found.high, strict=True):
        intervals[name] = [float(low), float(high)]
    return intervals


def choose_examples(predictions: Predictions, stories: dict[str, np.ndarray]) -> dict[str, Any]:
    """Up to three stories to show: the best, the median and the worst by tau of some drawn at random.

    Drawn are up to 100 of the stories that the model took whole and that have at most ten sentences, always the same
    for the same stories. Where several have the same tau, the draw decides. With fewer than three
    stories, the median or the worst is left out.

    Args:
        predictions: of one split.
        stories: their metrics, as `story_metrics` gives them.

    Returns:
        `candidates`, how many could be drawn; `drawn`, how many were; `seed`, of the draw; `longest`, the most
        sentences that a story of it may have; and `stories`: for each `chosen` (`best`, `median` or `worst`), `story`
        (its index in the split), its metrics, and `order`: the true positions, from 0, in the order that the model
        gave.
    """
    labelled = predictions.labels != LABEL_PADDING
    whole = (labelled == predictions.sentence_mask).all(axis=1) & np.isfinite(stories["kendalls_tau"])
    candidates = np.flatnonzero(whole & (labelled.sum(axis=1) <= LONGEST_EXAMPLE))
    drawn = np.random.default_rng(SEED).permutation(candidates)[:EXAMPLES_FROM]
    ranked = sorted(drawn.tolist(), key=lambda index: -stories["kendalls_tau"][index])
    places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    taken: dict[int, str] = {}
    for name in ("best", "worst", "median"):
        if ranked:
            taken.setdefault(ranked[places[name]], name)
    shown = [
        {
            "chosen": name,
            "story": index,
            **{metric: float(stories[metric][index]) for metric in JUDGED},
            "order": _given_order(predictions, index),
        }
        for index, name in sorted(taken.items(), key=lambda item: places[item[1]])
    ]
    counts = {"candidates": len(candidates), "drawn": len(ranked)}
    return {**counts, "seed": SEED, "longest": LONGEST_EXAMPLE, "stories": shown}


def _given_order(predictions: Predictions, index: int) -> list[int]:
    """The true positions of a story's sentences in the order of their scores, equal ones as they were shown."""
    mask = predictions.sentence_mask[index]
    labels, scores = predictions.interchanged_labels[index][mask], predictions.ranks[index][mask]
    return [int(label) for label in labels[np.argsort(scores, kind="stable")]]


def _means(stories: dict[str, np.ndarray], some: np.ndarray) -> dict[str, float]:
    return {name: float(stories[name][some].mean()) for name in JUDGED}
