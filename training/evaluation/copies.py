"""Stories in which a sentence occurs more than once. Identical sentences are interchangeable in all metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from training.data.batches import evaluation_batches
from training.data.stories import TokenizedStories, sentences_of

from .metrics import LABEL_PADDING

Copies = Mapping[int, Sequence[int]]
"""For each story with identical sentences, by its row: for each original index the lowest one of the same text."""


def copies_of(stories: TokenizedStories) -> Copies:
    """The stories with identical sentences, by their indices."""
    found: dict[int, list[int]] = {}
    for index, sentences in enumerate(sentences_of(stories.stories)):
        if len(set(sentences)) < len(sentences):
            first: dict[str, int] = {}
            found[index] = [first.setdefault(sentence, position) for position, sentence in enumerate(sentences)]
    return found


def select_copies(copies: Copies, stories: Sequence[int] | np.ndarray) -> Copies:
    """The copies of some stories, whose rows are renumbered."""
    return {row: copies[int(story)] for row, story in enumerate(stories) if int(story) in copies}


def copies_in_loader(stories: TokenizedStories, batch_size: int) -> Copies:
    """The copies of stories in the order of `evaluation_loader`."""
    return select_copies(copies_of(stories), np.concatenate(evaluation_batches(stories.lengths, batch_size)))


def match_copies_to_ranks(
    labels: np.ndarray, ranks: np.ndarray, sentence_mask: np.ndarray, copies: Copies
) -> np.ndarray:
    """Labels where identical sentences are interchanged: the one with the lowest rank has the lowest label.

    Args:
        labels: `(stories, max_sentences)`, -100 for padding.
        ranks: `(stories, max_sentences)`; sorting by it gives the predicted order.
        sentence_mask: `(stories, max_sentences)`, bool; other sentences keep their label.
        copies: of these stories.
    """
    labels = labels.copy()
    for story, same in copies.items():
        indices = np.flatnonzero(sentence_mask[story] & (labels[story] != LABEL_PADDING))
        texts = np.array([same[label] for label in labels[story, indices]])
        for text in np.unique(texts):
            identical = indices[texts == text]
            by_rank = identical[np.argsort(ranks[story, identical], kind="stable")]
            labels[story, by_rank] = np.sort(labels[story, identical])
    return labels
