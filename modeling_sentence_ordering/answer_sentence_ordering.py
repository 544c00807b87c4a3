"""From the scores of a story's sentences to the answer: the order, and how sure it is."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from math import exp, isfinite
from typing import Any

from torch import Tensor

from .decoding_sentence_ordering import best_order
from .fixed_points_sentence_ordering import FixedPoints, order_by_scores


def in_order(
    sentences: Sequence[str],
    scores: Sequence[float | None],
    *,
    pair_logits: Tensor | None = None,
    temperature: float | None = None,
    fixed: FixedPoints | None = None,
) -> dict[str, Any]:
    """The answer for one story: its sentences sorted by their scores, or in the order that the pair logits favour.

    With pair logits it is the order with the highest sum of log-probabilities over all pairs, of those that keep the
    fixed points, see `best_order`. It may differ from the order of the scores.

    Args:
        sentences: as they came in.
        scores: one for each, in input order; what stands behind them is padding and not looked at.
        pair_logits: `(sentences, sentences)`, of a model with `head="pairs"`: [i, j] is the logit of «i before j».
        temperature: `confidence_temperature` of the model's config.
        fixed: what is known of the order already.

    Returns:
        `sentences`, `order` and `scores`, and `confidence` if there is a temperature; see `SentenceOrderingPipeline`.

    Raises:
        ValueError: if a score is missing or not finite.
    """
    known = [score for score in scores[: len(sentences)] if score is not None]
    if len(known) < len(sentences):
        raise ValueError(f"{len(sentences) - len(known)} of {len(sentences)} sentences have no score")
    if not all(map(isfinite, known)) or (pair_logits is not None and not pair_logits.isfinite().all()):
        raise ValueError("the model's scores are not finite numbers: its weights are broken, or overflow in float16")
    fixed = fixed or FixedPoints()
    order = order_by_scores(known, fixed, tie_break=lambda i: (sentences[i], i))
    if pair_logits is not None:
        order = _order_by_pairs(sentences, order, pair_logits, fixed)
    answer: dict[str, Any] = {"sentences": [sentences[i] for i in order], "order": order, "scores": known}
    if temperature is not None:
        answer["confidence"] = [
            1.0
            if fixed.are_kept(earlier, later)
            else confidence(
                known[later] - known[earlier] if pair_logits is None else float(pair_logits[earlier, later]),
                temperature,
            )
            for earlier, later in zip(order, order[1:], strict=False)
        ]
    return answer


def _order_by_pairs(sentences: Sequence[str], start: list[int], pair_logits: Tensor, fixed: FixedPoints) -> list[int]:
    """`best_order`, with ties broken by `start`, which the texts alone decide and which keeps the fixed points."""
    place = {index: number for number, index in enumerate(start)}
    kept = [(place[i], place[j]) for i, j in fixed.pairs(len(start))]
    order = [start[number] for number in best_order(pair_logits[start][:, start], kept)]
    if not kept:  # identical sentences keep the order of the input
        copies: defaultdict[str, deque[int]] = defaultdict(deque)
        for index, sentence in enumerate(sentences):
            copies[sentence].append(index)
        order = [copies[sentences[index]].popleft() for index in order]
    return order


def confidence(difference: float, temperature: float) -> float:
    """The probability that of two sentences the one with the lower score comes first: σ(difference / temperature).

    Platt's logistic of a classifier's output (1999, "Probabilistic Outputs for Support Vector Machines"), through the
    origin: without a difference neither way round is likelier.

    Args:
        difference: the later sentence's score minus the earlier one's, or the logit of the pair.
        temperature: above 0, in the unit of scores; fitted by `sentence-ordering train` on validation stories.
    """
    # Never exp of a large number, which would overflow.
    odds = exp(-abs(difference) / temperature)
    return 1 / (1 + odds) if difference >= 0 else odds / (1 + odds)
