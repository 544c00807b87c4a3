"""Stories in which a sentence occurs more than once: its copies are interchangeable in everything that is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from training.data.batches import evaluation_batches
from training.data.stories import TokenizedStories

from .metrics import LABEL_PADDING

Copies = Mapping[int, Sequence[int]]
"""For each story with identical sentences, by its row: for each original index the lowest one with the same text."""

_PORTION = 1024  # stories


def copies_of(stories: TokenizedStories) -> Copies:
    """The identical sentences of stories, by their indices."""
    found: dict[int, list[int]] = {}
    for start in range(0, len(stories), _PORTION):
        for index, sentences in enumerate(stories.stories[start : start + _PORTION]["sentences"], start):
            if len(set(sentences)) < len(sentences):
                first: dict[str, int] = {}
                found[index] = [first.setdefault(sentence, place) for place, sentence in enumerate(sentences)]
    return found


def chosen(copies: Copies, stories: Sequence[int] | np.ndarray) -> Copies:
    """The same for some of the stories, whose rows are counted anew."""
    return {row: copies[int(story)] for row, story in enumerate(stories) if int(story) in copies}


def copies_in_loader(stories: TokenizedStories, batch_size: int) -> Copies:
    """The identical sentences of stories in the order in which `evaluation_loader` has them."""
    return chosen(copies_of(stories), np.concatenate(evaluation_batches(stories.lengths, batch_size)))


def match_copies_to_ranks(
    labels: np.ndarray, ranks: np.ndarray, sentence_mask: np.ndarray, copies: Copies
) -> np.ndarray:
    """The labels, of which identical sentences have those that suit the order found: the lowest rank the lowest label.

    Args:
        labels: `(stories, max_sentences)`, -100 for padding.
        ranks: `(stories, max_sentences)`, what puts the sentences in order, lowest first.
        sentence_mask: `(stories, max_sentences)`, bool; what is not in it keeps its label.
        copies: of these stories.
    """
    labels = labels.copy()
    for story, same in copies.items():
        places = np.flatnonzero(sentence_mask[story] & (labels[story] != LABEL_PADDING))
        texts = np.array([same[label] for label in labels[story, places]])
        for text in np.unique(texts):
            of_this = places[texts == text]
            by_rank = of_this[np.argsort(ranks[story, of_this], kind="stable")]
            labels[story, by_rank] = np.sort(labels[story, of_this])
    return labels
