"""In which order the sentences of a story are shown to the encoder, so that it does not matter how they came in.

A model reads the sentences one behind the other, and its scores depend a little on that order. Sentences that are to
be put in order are therefore arranged by a hash of their text first: the same sentences are always read the same
way, and the answer is the same.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from math import factorial, fsum, isfinite, nan, prod

import torch
from torch import Tensor

from .configuration_sentence_ordering import whole_number

MOST_PERMUTATIONS = 1000
"""Arrangements of a story at most: each costs as much as ordering the story once, and little changes after a few."""


def arrangements(sentences: Sequence[str], count: int = 1) -> list[list[int]]:
    """Ways to show the sentences to the encoder, which depend on their texts alone.

    Each is a list of input indices. Read as texts, they are the same whatever the order of the input is. They look as
    random as the shuffles that models are trained on. The first one is always the same, whatever the count.

    Identical sentences are told apart by their place in the input, and nothing else is.

    Args:
        sentences: of one story.
        count: how many different ones; there are no more than the sentences have permutations.

    Returns:
        `count` permutations of the input indices, or as many as there are; one even for no sentence.

    Raises:
        ValueError: if the count is not a whole number from 1 to `MOST_PERMUTATIONS`.
    """
    count = whole_number("num_permutations", count, at_least=1)
    if count > MOST_PERMUTATIONS:
        raise ValueError(f"num_permutations must be at most {MOST_PERMUTATIONS:,}")
    if count > 1:
        copies = Counter(sentences).values()
        count = min(count, factorial(len(sentences)) // prod(factorial(number) for number in copies))
    found: dict[tuple[str, ...], list[int]] = {}
    draw = 0
    while len(found) < count:
        way = arrangement(sentences, draw)
        found.setdefault(tuple(sentences[i] for i in way), way)
        draw += 1
    return list(found.values())


def arrangement(sentences: Sequence[str], draw: int) -> list[int]:
    """Input indices, sorted by a hash of each sentence, of how many identical ones came before it, and of `draw`."""
    seen: Counter[str] = Counter()
    keys = []
    for sentence in sentences:
        # hashlib, since Python's own hash of a string differs from process to process. Half of a surrogate pair is
        # refused when the sentence is tokenized, not here.
        text = f"{draw} {seen[sentence]} {sentence}".encode("utf-8", "surrogatepass")
        keys.append(hashlib.sha256(text).digest())
        seen[sentence] += 1
    return sorted(range(len(sentences)), key=keys.__getitem__)


def average_scores(
    sentences: Sequence[str], shown: Sequence[Sequence[int]], scores: Sequence[Sequence[float]]
) -> list[float | None]:
    """The scores of a story that was shown in several arrangements, back in input order.

    A mean of scores as they are: `pairwise` and `listmle` leave open what is added to all scores of a story, and each
    arrangement may bring another such number, but its mean is the same for every sentence and changes no order. So
    nothing is subtracted, and the scores of `mse` stay places in the story.

    Of identical sentences, the one that comes first in the input gets the lowest of their scores, in each
    arrangement: so it comes first in the answer as well, however the copies were shown.

    Args:
        sentences: in input order.
        shown: the arrangements.
        scores: for each of them a score for each sentence shown; fewer where the encoder's limit cut off the last
            ones. What stands behind the story's sentences is padding and not looked at.

    Returns:
        One mean for each sentence, over the arrangements that held it; None where none did.
    """
    collected: list[list[float]] = [[] for _ in sentences]
    for way, row in zip(shown, scores, strict=True):
        for index, score in zip(_lowest_first(sentences, way, row), row, strict=False):
            collected[index].append(score)
    # `fsum` raises an error for infinities of both signs.
    return [
        None if not values else fsum(values) / len(values) if all(map(isfinite, values)) else nan
        for values in collected
    ]


def average_pair_logits(
    sentences: Sequence[str],
    shown: Sequence[Sequence[int]],
    scores: Sequence[Sequence[float]],
    pair_logits: Sequence[Tensor],
) -> Tensor:
    """The pair logits of a story that was shown in several arrangements, averaged, in input order.

    Args:
        sentences, shown, scores: as for `average_scores`; which of identical sentences is which is decided in the same
            way.
        pair_logits: for each arrangement `(sentences shown or more)²`.

    Returns:
        `(sentences, sentences)`, float64; 0 for a pair that no arrangement held.
    """
    totals = torch.zeros(len(sentences), len(sentences), dtype=torch.float64)
    counts = torch.zeros_like(totals)
    for way, row, logits in zip(shown, scores, pair_logits, strict=True):
        index = torch.tensor(_lowest_first(sentences, way, row), dtype=torch.long)
        totals[index.unsqueeze(1), index] += logits[: len(index), : len(index)].to(totals)
        counts[index.unsqueeze(1), index] += 1
    return totals / counts.clamp(min=1)


def _lowest_first(sentences: Sequence[str], way: Sequence[int], row: Sequence[float]) -> list[int]:
    """For each score its sentence, where of identical sentences the first in the input gets the lowest score."""
    found = list(way[: len(row)])
    if len(set(sentences)) == len(sentences):
        return found
    places: defaultdict[str, list[int]] = defaultdict(list)
    copies: defaultdict[str, list[int]] = defaultdict(list)
    for place, index in enumerate(found):
        places[sentences[index]].append(place)
    for index in sorted(way):
        copies[sentences[index]].append(index)
    for text, of_this in places.items():
        # Of copies that were cut off, the last ones in the input have no score.
        for place, index in zip(sorted(of_this, key=lambda place: row[place]), copies[text], strict=False):
            found[place] = index
    return found
