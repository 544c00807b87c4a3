"""Orders from other things than one score per sentence: from judgements of pairs, and from similarities.

Nothing here may know the true order, not even by the way in which nodes are numbered or ties are broken: sentences are
numbered by a hash of their text (see `arrangements`), so that the answer does not depend on how they came in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from modeling_sentence_ordering import arrangements
from training.evaluation.metrics import LABEL_PADDING
from training.evaluation.predictions import Predictions

Floats = npt.NDArray[np.float64]


def topological_order(sentences: Sequence[str], earlier: Floats) -> list[int]:
    """The order of a graph of pairs, of which the surest are taken first and those that close a cycle are left out.

    Prabhumoye, Salakhutdinov & Black, 2020, "Topological Sort for Sentence Ordering" (ACL,
    doi:10.18653/v1/2020.acl-main.248), sort what a classifier says of all pairs. How cycles are broken is Tideman's
    ranked pairs (1987, "Independence of Clones as a Criterion for Voting Rules"): in no way that depends on how the
    nodes are numbered, but where two pairs are equally sure, and there the number is a hash.

    Args:
        sentences: of one story, in any order.
        earlier: `(sentences, sentences)`, the probability that row comes before column; both readings of a pair
            count, and need not sum to 1.

    Returns:
        Input indices in the order found.
    """
    numbered = arrangements(sentences)[0]
    probabilities = earlier[np.ix_(numbered, numbered)]
    margins = probabilities - probabilities.T
    before = np.zeros(margins.shape, bool)  # whether there is a path from row to column
    first, second = np.triu_indices(len(numbered), 1)
    for pair in np.argsort(-np.abs(margins[first, second]), kind="stable"):
        one, other = int(first[pair]), int(second[pair])
        if margins[one, other] < 0:
            one, other = other, one
        if not before[other, one]:
            sources, targets = before[:, one].copy(), before[other].copy()
            sources[one] = targets[other] = True
            before |= np.outer(sources, targets)
    # Every pair is decided, by its own edge or by a path: the number of those before a sentence is its place.
    return [numbered[place] for place in np.argsort(before.sum(axis=0))]


def chain_from_centre(sentences: Sequence[str], embeddings: Floats) -> list[int]:
    """A greedy chain of nearest neighbours that begins with the sentence nearest to the mean of all.

    Args:
        sentences: of one story, in any order.
        embeddings: `(sentences, dimensions)`, each of length 1.

    Returns:
        Input indices in the order found.
    """
    numbered = arrangements(sentences)[0]
    vectors = embeddings[numbered]
    start = int(np.argmax(vectors @ vectors.mean(axis=0)))
    return [numbered[place] for place in _chain(vectors @ vectors.T, start)]


def best_chain(sentences: Sequence[str], embeddings: Floats) -> list[int]:
    """Of the greedy chains from every sentence the one whose neighbours are most similar in all; see the above.

    It is read from where it began: similarities have no direction, and the truth may not choose one.
    """
    numbered = arrangements(sentences)[0]
    similarity = embeddings[numbered] @ embeddings[numbered].T
    chains = [_chain(similarity, start) for start in range(len(numbered))]
    totals = [sum(similarity[one, other] for one, other in zip(chain, chain[1:], strict=False)) for chain in chains]
    return [numbered[place] for place in chains[int(np.argmax(totals))]]


def _chain(similarity: Floats, start: int) -> list[int]:
    chain, left = [start], set(range(len(similarity))) - {start}
    while left:
        chain.append(max(sorted(left), key=lambda place: similarity[chain[-1], place]))
        left.remove(chain[-1])
    return chain


def as_predictions(orders: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]) -> Predictions:
    """Orders in the form that metrics judge: a sentence's score is its place.

    Args:
        orders: for each story its input indices in the order found.
        labels: for each story the original index of each input sentence.
    """
    shape = len(orders), max((len(order) for order in orders), default=0)
    scores = np.zeros(shape, dtype=np.float32)
    predictions = Predictions(scores, np.full(shape, LABEL_PADDING, dtype=np.int64), np.zeros(shape, dtype=bool))
    for story, (order, own) in enumerate(zip(orders, labels, strict=True)):
        scores[story, list(order)] = np.arange(len(order))
        predictions.labels[story, : len(own)] = own
        predictions.sentence_mask[story, : len(own)] = True
    return predictions
