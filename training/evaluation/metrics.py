"""Metrics of evaluation sets, as NumPy arrays; those of a story are `modeling_sentence_ordering.story_metrics`.

Sorting by *scores* in ascending order gives the predicted order. If scores tie, each metric is its expected value over
all ways to break the ties. So no metric depends on the input order, and equal scores give what a random order gives:
tau 0, accuracy 1/N and perfect match ratio 1/N!.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

METRIC_NAMES: tuple[str, ...] = (
    "accuracy",
    "kendalls_tau",
    "pmr",
    "loss",
    "mean_logits",
    "std_logits",
    "stories",
    "sentences",
)
"""The keys of an evaluation's JSON, in its order."""

LOGGED_METRICS: tuple[str, ...] = ("loss", "accuracy", "kendalls_tau", "pmr", "mean_logits", "std_logits")
"""What an evaluation during training logs, in every framework."""

PRIMARY_METRIC = "kendalls_tau"
"""The metric that chooses the best checkpoint by default."""

GREATER_IS_BETTER: Mapping[str, bool] = MappingProxyType(
    {"accuracy": True, "kendalls_tau": True, "pmr": True, "loss": False}
)
"""For each metric that can choose the best checkpoint, whether greater is better."""

LABEL_PADDING = -100  # PADDING of modeling_sentence_ordering, which imports torch


def is_better(metric: str, value: float, best: float | None) -> bool:
    """Whether a value of a metric is better than the best so far. As in Trainer, an equal value is not, nor is nan."""
    return best is None or (value > best if GREATER_IS_BETTER[metric] else value < best)


def ordering_metrics(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    sentence_mask: npt.ArrayLike | None = None,
    *,
    copies: Mapping[int, Sequence[int]] | None = None,
) -> dict[str, float | int]:
    """Metrics of the predicted order of many stories.

    A story with fewer than two surviving sentences counts in ``unscored_stories`` and is left out of accuracy, tau and
    pmr. Ranks are compared among a story's surviving sentences.

    Args:
        scores: float, (stories, max_sentences). One score per sentence; those of padding and truncated sentences are
            ignored.
        labels: int, (stories, max_sentences). Original index (0 ... N-1) of the i-th sentence of the input; -100 is
            padding. A row of padding only does not count as a story.
        sentence_mask: bool, (stories, max_sentences). False for padding and for truncated sentences, which may have a
            label. Without it every labelled sentence counts as scored.
        copies: identical sentences, which are interchangeable; see `modeling_sentence_ordering.story_metrics`.

    Returns:
        - ``accuracy``: share of a story's sentences at their true rank, averaged over stories.
        - ``kendalls_tau``: Kendall (1938), (concordant - discordant) pairs over all pairs, averaged over stories.
        - ``pmr``: perfect match ratio, share of stories in perfect order.
        - ``stories``, ``sentences``: numbers of labelled ones, including the ones that could not be scored.
        - ``dropped_sentences``: labelled sentences that the mask hides.
        - ``unscored_stories``: stories with fewer than two surviving sentences.

    Raises:
        ValueError: shapes differ, labels are negative or repeat within a story, a surviving score is not finite, or no
            story has two surviving sentences.
    """
    score_array, label_array, survives = _checked(scores, labels, sentence_mask)
    per_story = _story_metrics(score_array, label_array, survives, copies)
    labelled = label_array != LABEL_PADDING
    stories = int(labelled.any(axis=1).sum())
    scored = survives.sum(axis=1) >= 2
    if not scored.any():
        raise ValueError(
            f"none of {stories} stories has two sentences with a label and a score, so there is no order to judge"
        )
    return {
        "accuracy": float(per_story["accuracy"][scored].mean()),
        "kendalls_tau": float(per_story["kendalls_tau"][scored].mean()),
        "pmr": float(per_story["pmr"][scored].mean()),
        "stories": stories,
        "sentences": int(labelled.sum()),
        "dropped_sentences": int((labelled & ~survives).sum()),
        "unscored_stories": stories - int(scored.sum()),
    }


def story_metrics(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    sentence_mask: npt.ArrayLike | None = None,
    *,
    copies: Mapping[int, Sequence[int]] | None = None,
) -> dict[str, npt.NDArray[np.float64]]:
    """The metrics of each story. Arguments and errors as for :func:`ordering_metrics`; there may be no scored story.

    Returns:
        ``accuracy``, ``kendalls_tau`` and ``pmr``, each float64 (stories,), nan if fewer than two sentences of the
        story survived.
    """
    return _story_metrics(*_checked(scores, labels, sentence_mask), copies)


def _checked(
    scores: npt.ArrayLike, labels: npt.ArrayLike, sentence_mask: npt.ArrayLike | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Scores, labels and the mask of surviving sentences, each (stories, max_sentences)."""
    score_array, label_array = np.asarray(scores), np.asarray(labels)
    mask_array = np.ones(label_array.shape, bool) if sentence_mask is None else np.asarray(sentence_mask)
    if label_array.ndim != 2 or score_array.shape != label_array.shape or mask_array.shape != label_array.shape:
        raise ValueError(
            "scores, labels and sentence_mask must all be (stories, max_sentences), but they are "
            f"{score_array.shape}, {label_array.shape} and {mask_array.shape}"
        )
    for name, array, kinds in (("scores", score_array, "fiu"), ("labels", label_array, "iu")):
        if array.dtype.kind not in kinds:
            raise ValueError(f"{name} must be {'numbers' if 'f' in kinds else 'integers'}, but they are {array.dtype}")
    if mask_array.dtype != np.bool_:
        raise ValueError(f"sentence_mask must be bool, but it is {mask_array.dtype}")
    label_array = label_array.astype(np.int64)
    survives = mask_array & (label_array != LABEL_PADDING)
    _check_labels(label_array)
    if (row := _first(survives & ~np.isfinite(score_array))) is not None:
        story, sentence = row
        raise ValueError(
            f"story {story} (counted from 0) has the score {score_array[story, sentence]} for its input sentence "
            f"{sentence}; every score must be finite"
        )
    return score_array.astype(np.float64), label_array, survives


def _check_labels(labels: npt.NDArray[np.int64]) -> None:
    if (row := _first((labels < 0) & (labels != LABEL_PADDING))) is not None:
        raise ValueError(
            f"story {row[0]} (counted from 0) has the label {labels[row]}; labels are original indices from 0 on, "
            f"or {LABEL_PADDING} for padding"
        )
    ordered = np.sort(labels, axis=1)
    repeats = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != LABEL_PADDING)
    if (row := _first(repeats)) is not None:
        raise ValueError(f"story {row[0]} (counted from 0) has the label {ordered[row]} more than once")


def _first(wrong: npt.NDArray[np.bool_]) -> tuple[int, int] | None:
    """Row and column of the first true element."""
    if not wrong.any():
        return None
    row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
    return int(row), int(column)


def _story_metrics(
    scores: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    survives: npt.NDArray[np.bool_],
    copies: Mapping[int, Sequence[int]] | None,
) -> dict[str, npt.NDArray[np.float64]]:
    # Defined in the modeling package, so that `compute_metrics` of a model on the Hub gives the same numbers.
    from modeling_sentence_ordering.objectives_sentence_ordering import story_metrics

    return {name: values.numpy() for name, values in story_metrics(scores, labels, survives, copies).items()}


def rank_counts(
    scores: npt.ArrayLike, labels: npt.ArrayLike, sentence_mask: npt.ArrayLike | None = None
) -> npt.NDArray[np.float64]:
    """How often a sentence of each true rank was predicted at each rank, over all scored stories.

    Arguments and errors are those of :func:`story_metrics`. If scores tie, a sentence counts in equal parts at each of
    the ranks that it shares.

    Returns:
        float64 (max_sentences, max_sentences): row the true rank among the story's surviving sentences, column the
        predicted rank. Row i divided by its sum has the accuracy at position i in column i.
    """
    score_array, label_array, survives = _checked(scores, labels, sentence_mask)
    survives &= (survives.sum(axis=1) >= 2)[:, None]
    in_true_order = np.argsort(np.where(survives, label_array, np.iinfo(np.int64).max), axis=1)
    ordered = np.take_along_axis(np.where(survives, score_array, np.inf), in_true_order, axis=1)
    size = int(survives.sum(axis=1).max(initial=0))
    counts = np.zeros((size, size))
    for true_rank in range(size):
        of_this_rank = ordered[ordered[:, true_rank] < np.inf]
        lower = (of_this_rank < of_this_rank[:, [true_rank]]).sum(axis=1)
        equal = (of_this_rank == of_this_rank[:, [true_rank]]).sum(axis=1)
        for tied in range(equal.max()):
            shares = equal > tied
            counts[true_rank] += np.bincount((lower + tied)[shares], 1 / equal[shares], minlength=size)
    return counts
