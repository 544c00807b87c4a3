"""Calibration of the confidence: a temperature fitted on validation stories, and the calibration error.

The probabilities that an answer may show are calibrated: with `head="score"` those of neighbours in the predicted
order, with `head="pairs"` those of all pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit

from .predictions import Predictions

BINS = 10
"""Number of bins of the calibration error, of equal width from 0.5 to 1."""
# Bounds of the temperature: beyond them every probability rounds to 1/2 or 1.
_LOWEST, _HIGHEST = 1e-6, 1e6


@dataclass(frozen=True)
class JudgedPairs:
    """Pairs of sentences, each in the order that the model prefers.

    Attributes:
        differences: `(pairs,)`, float64, the log-odds of this order before they are divided by the temperature, 0 or
            more: the later sentence's score minus the earlier one's, or the absolute value of the pair logit.
        right: `(pairs,)`, bool, whether it is the true order.
    """

    differences: npt.NDArray[np.float64]
    right: npt.NDArray[np.bool_]


def judged_pairs(predictions: Predictions) -> JudgedPairs:
    """The pairs whose probabilities are calibrated: those with a pair logit, or neighbours."""
    if predictions.pair_logits is None:
        return neighbours(predictions)
    differences, right = [np.zeros(0)], [np.zeros(0, dtype=bool)]
    for stories, places in predictions.by_count():
        labels = predictions.interchanged_labels[stories[:, None], places]
        first, second = np.triu_indices(places.shape[1], 1)
        logits = predictions.pair_logits_of(stories, places)[:, first, second].astype(np.float64)
        differences.append(np.abs(logits).ravel())
        texts = predictions.texts[stories[:, None], places]
        is_right = (labels[:, first] < labels[:, second]) == (logits > 0)
        right.append((is_right | (texts[:, first] == texts[:, second])).ravel())
    return JudgedPairs(np.concatenate(differences), np.concatenate(right))


def neighbours(predictions: Predictions) -> JudgedPairs:
    """Pairs of neighbours in the predicted order, without sentences that have no score or no label.

    A pair of identical sentences is in the right order.
    """
    valid = predictions.sentence_mask & (predictions.labels >= 0)
    scores = np.where(valid, predictions.scores.astype(np.float64), np.inf)
    order = np.argsort(scores, axis=1, kind="stable")
    given = (scores, predictions.interchanged_labels)
    scores, labels = (np.take_along_axis(values, order, axis=1) for values in given)
    pairs = np.isfinite(scores[:, 1:])  # unscored sentences are last
    earlier = np.where(pairs, scores[:, :-1], 0.0)
    return JudgedPairs((scores[:, 1:] - earlier)[pairs], (labels[:, :-1] < labels[:, 1:])[pairs])


def fit_temperature(pairs: JudgedPairs) -> float | None:
    """The temperature for which σ(difference / temperature) predicts best whether pairs are right.

    Maximum likelihood of a logistic regression without intercept, with Platt's targets (1999, "Probabilistic Outputs
    for Support Vector Machines", section 2.2): (r + 1) / (r + 2) for each of the r pairs that are right and
    1 / (w + 2) for each of the w that are wrong, instead of 1 and 0, so that a few stories in perfect order do not
    give full confidence.

    Returns:
        The temperature, between 1e-6 and 1e6; the highest if the scores are not informative. None if there is no pair
        or all scores are equal.
    """
    if not pairs.differences.any():
        return None
    right = int(pairs.right.sum())
    targets = np.where(pairs.right, (right + 1) / (right + 2), 1 / (len(pairs.right) - right + 2))

    def gradient(inverse: float) -> float:
        """Derivative of the log-likelihood, which is concave in 1 / temperature."""
        return float(pairs.differences @ (targets - expit(inverse * pairs.differences)))

    if gradient(1 / _HIGHEST) <= 0:
        return _HIGHEST
    if gradient(1 / _LOWEST) >= 0:
        return _LOWEST
    return 1 / float(brentq(gradient, 1 / _HIGHEST, 1 / _LOWEST, xtol=1e-12, rtol=1e-10))


def calibration_error(pairs: JudgedPairs, temperature: float) -> float:
    """Expected calibration error of pairs, 0 to 0.5.

    Naeini, Cooper & Hauskrecht, 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (AAAI), with
    `BINS`: in each bin the difference between the mean probability and the share of pairs that are right, averaged
    over bins weighted by their pairs. 0 if there is no pair.
    """
    probabilities = expit(pairs.differences / temperature)
    bins = np.minimum((probabilities - 0.5) * 2 * BINS, BINS - 1).astype(int)
    excess = np.bincount(bins, weights=probabilities - pairs.right, minlength=BINS)
    return float(np.abs(excess).sum() / max(len(bins), 1))


def calibrated(predictions: dict[str, Predictions]) -> dict[str, Any] | None:
    """The section `calibration` of `results.json`.

    Args:
        predictions: for each split. The temperature is fitted on `validation`.

    Returns:
        `temperature`, the number of `pairs` it is fitted on, and `calibration_error` for each split; None if it cannot
        be fitted.
    """
    pairs = {split: judged_pairs(found) for split, found in predictions.items()}
    temperature = fit_temperature(pairs["validation"]) if "validation" in pairs else None
    if temperature is None:
        return None
    errors = {split: calibration_error(found, temperature) for split, found in pairs.items()}
    return {"temperature": temperature, "pairs": len(pairs["validation"].right), "calibration_error": errors}
