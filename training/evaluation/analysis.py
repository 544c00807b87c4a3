"""Analysis of an evaluation: confidence intervals, baselines, errors by position and examples."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import bootstrap

from .metrics import LABEL_PADDING, rank_counts, story_metrics
from .partial_orders import partial_orders
from .predictions import Predictions

STORY_METRICS = ("accuracy", "kendalls_tau", "pmr")
LEVEL, RESAMPLES, SEED = 0.95, 2000, 42
EXAMPLES_FROM, LONGEST_EXAMPLE = 100, 10  # stories, sentences


def analyse(predictions: Predictions, temperature: float | None = None) -> dict[str, Any]:
    """The section `analysis` of `results.json`, in plain values.

    Args:
        predictions: of one split.
        temperature: `confidence_temperature` of the model's config.

    Returns:
        - `intervals`: see `confidence_intervals`.
        - `baselines`: the metrics of `random_order` (their exact expectation: tau 0, accuracy the mean of 1/N, pmr
          the mean of 1/N!) and of `input_order`, the sentences left as the evaluation's shuffles show them.
        - `by_position`: for each true position, from 1, the accuracy there and the number of sentences.
        - `by_sentences`: for each number of sentences that stories have, the metrics and the number of stories.
        - `positions`: see `rank_counts`; row the true position, column the predicted one.
        - `examples`: see `choose_examples`.
        - `partial_orders`: see `partial_orders`; only with a temperature.
        Stories with fewer than two scored sentences are left out.

    Raises:
        ValueError: no story could be scored.
    """
    scores, labels, mask, copies = predictions.ranks, predictions.labels, predictions.sentence_mask, predictions.copies
    stories = story_metrics(scores, labels, mask, copies=copies)
    scored = np.isfinite(stories["kendalls_tau"])
    if not scored.any():
        raise ValueError("no story has two sentences with a label and a score")
    # With equal scores, the metrics are their expected values for a random order.
    chance = story_metrics(np.zeros(labels.shape), labels, mask, copies=copies)
    as_shown = story_metrics(np.broadcast_to(np.arange(labels.shape[1]), labels.shape), labels, mask, copies=copies)
    positions = rank_counts(scores, predictions.interchanged_labels, mask)
    sentences = (labels != LABEL_PADDING).sum(axis=1)
    return {
        "intervals": confidence_intervals({name: stories[name][scored] for name in STORY_METRICS}),
        "baselines": {"random_order": _means(chance, scored), "input_order": _means(as_shown, scored)},
        "by_position": [
            {"position": position + 1, "accuracy": float(row[position] / row.sum()), "sentences": round(row.sum())}
            for position, row in enumerate(positions)
        ],
        "by_sentences": [
            {"sentences": int(count), "stories": int(some.sum()), **_means(stories, some)}
            for count in np.unique(sentences[scored])
            for some in [scored & (sentences == count)]
        ],
        "positions": [[round(float(count), 4) for count in row] for row in positions],
        "examples": choose_examples(predictions, stories),
        **({} if temperature is None else {"partial_orders": partial_orders(predictions, temperature)}),
    }


def confidence_intervals(stories: dict[str, np.ndarray]) -> dict[str, Any]:
    """Percentile bootstrap intervals of means over stories.

    Stories are drawn with replacement, all metrics on the same draws (Efron & Tibshirani 1993, An Introduction to the
    Bootstrap, chapter 13).

    Args:
        stories: for each metric its value for every story, float (stories,), none of them nan.

    Returns:
        `level`, `resamples`, `seed`, and for each metric `[low, high]`; no metric if there are fewer than two
        stories.
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
    """Up to three example stories: the best, the median and the worst by tau of a random sample.

    The sample has up to 100 stories of at most ten sentences that were not truncated, with a fixed seed. Ties are
    broken by the order of the sample. With fewer than three stories, the median or the worst is left out.

    Args:
        predictions: of one split.
        stories: their metrics, as `story_metrics` gives them.

    Returns:
        `candidates`, the number of stories that could be drawn; `drawn`, the number of drawn ones; `seed`; `longest`,
        the most sentences of a drawn story; and `stories`: for each `chosen` (`best`, `median` or `worst`), `story`
        (its index in the split), its metrics, and `order`: the true positions, from 0, in the predicted order.
    """
    labelled = predictions.labels != LABEL_PADDING
    whole = (labelled == predictions.sentence_mask).all(axis=1) & np.isfinite(stories["kendalls_tau"])
    candidates = np.flatnonzero(whole & (labelled.sum(axis=1) <= LONGEST_EXAMPLE))
    drawn = np.random.default_rng(SEED).permutation(candidates)[:EXAMPLES_FROM]
    ranked = sorted(drawn.tolist(), key=lambda index: -stories["kendalls_tau"][index])
    ranks = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    taken: dict[int, str] = {}
    for name in ("best", "worst", "median"):
        if ranked:
            taken.setdefault(ranked[ranks[name]], name)
    shown = [
        {
            "chosen": name,
            "story": index,
            **{metric: float(stories[metric][index]) for metric in STORY_METRICS},
            "order": _predicted_order(predictions, index),
        }
        for index, name in sorted(taken.items(), key=lambda item: ranks[item[1]])
    ]
    counts = {"candidates": len(candidates), "drawn": len(ranked)}
    return {**counts, "seed": SEED, "longest": LONGEST_EXAMPLE, "stories": shown}


def _predicted_order(predictions: Predictions, index: int) -> list[int]:
    """The true positions of a story's sentences in predicted order; ties in input order."""
    mask = predictions.sentence_mask[index]
    labels, scores = predictions.interchanged_labels[index][mask], predictions.ranks[index][mask]
    return [int(label) for label in labels[np.argsort(scores, kind="stable")]]


def _means(stories: dict[str, np.ndarray], some: np.ndarray) -> dict[str, float]:
    return {name: float(stories[name][some].mean()) for name in STORY_METRICS}
