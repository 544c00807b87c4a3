"""Partial orders: what a model asserts about the order if it leaves open what it is not sure of, and how much is right.

The layers are those of `ties` in the pipeline's answer, see `SentenceOrderingPipeline`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from modeling_sentence_ordering import weakest_across

from .predictions import Predictions

PROBABILITIES = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99)
"""The values of `ties` that are measured. At 0.5 the whole order is asserted."""
LONGEST = 2000
"""Texts of more sentences are left out, as the pipeline does not make layers of them."""
_PAIRS_AT_ONCE = 2**22


def partial_orders(predictions: Predictions, temperature: float) -> list[dict[str, Any]]:
    """Precision and recall of the asserted precedences for each of `PROBABILITIES`.

    A precedence is a pair of sentences in different layers, as the layers order them. Pairs of identical sentences do
    not count.

    Args:
        predictions: of stories whose order is known.
        temperature: `confidence_temperature` of the model's config.

    Returns:
        For each probability a dictionary:

        - `ties`: the probability.
        - `asserted`: share of all pairs whose order is asserted.
        - `precision`: share of the asserted precedences that are right; None if there is none.
        - `recall`: share of all true precedences that are asserted.
        - `kendalls_tau_b`: Kendall's tau-b (1945, "The Treatment of Ties in Ranking Problems") between the layers and
          the true order, averaged over stories; 0 for a story without an asserted precedence.

        Empty if there is no pair.
    """
    pairs, stories = 0.0, 0
    asserted, right, tau = (np.zeros(len(PROBABILITIES)) for _ in range(3))
    for weakest, labels, texts in _in_predicted_order(predictions, temperature):
        first, second = np.triu_indices(labels.shape[1], 1)
        counts = texts[:, first] != texts[:, second]
        is_right = counts & (labels[:, first] < labels[:, second])
        of_story = counts.sum(axis=1)
        pairs, stories = pairs + of_story.sum(), stories + int((of_story > 0).sum())
        for number, probability in enumerate(PROBABILITIES):
            cuts = (weakest >= probability) | (probability <= 0.5)
            layers = np.pad(cuts.cumsum(axis=1), ((0, 0), (1, 0)))
            is_asserted = layers[:, first] < layers[:, second]
            found, correct = (is_asserted & counts).sum(axis=1), (is_asserted & is_right).sum(axis=1)
            asserted[number] += found.sum()
            right[number] += correct.sum()
            tau[number] += ((2 * correct - found) / np.sqrt(np.maximum(found * of_story, 1))).sum()
    if not pairs:
        return []
    return [
        {
            "ties": probability,
            "asserted": float(asserted[number] / pairs),
            "precision": float(right[number] / asserted[number]) if asserted[number] else None,
            "recall": float(right[number] / pairs),
            "kendalls_tau_b": float(tau[number] / stories),
        }
        for number, probability in enumerate(PROBABILITIES)
    ]


def _in_predicted_order(
    predictions: Predictions, temperature: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Portions of stories with equally many sentences.

    Yields:
        For each gap of the predicted order the probability of the weakest pair across it, `(stories, sentences - 1)`;
        labels and texts in that order, `(stories, sentences)`.
    """
    for all_stories, all_places in predictions.by_count():
        count = all_places.shape[1]
        if not 2 <= count <= LONGEST:
            continue
        step = max(1, _PAIRS_AT_ONCE // count**2)
        for start in range(0, len(all_stories), step):
            stories, places = all_stories[start : start + step], all_places[start : start + step]
            rows = stories[:, None]
            order = np.argsort(predictions.ranks[rows, places], axis=1, kind="stable")
            places = np.take_along_axis(places, order, axis=1)
            texts = predictions.texts[rows, places]
            if predictions.pair_logits is None:
                scores = predictions.scores[rows, places].astype(np.float64)
                log_odds = scores[:, None, :] - scores[:, :, None]
            else:
                log_odds = predictions.pair_logits_of(stories, places).astype(np.float64)
            log_odds[texts[:, None, :] == texts[:, :, None]] = np.inf
            weakest = weakest_across(torch.from_numpy(log_odds / temperature)).sigmoid().numpy()
            yield weakest, predictions.interchanged_labels[rows, places], texts
