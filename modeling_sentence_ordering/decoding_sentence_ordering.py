"""From a model's scores or pair logits to an order: exact and local search, constraints, and long texts in groups."""

from __future__ import annotations

import operator
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from graphlib import CycleError, TopologicalSorter
from heapq import heapify, heappop, heappush
from itertools import combinations, permutations
from math import ceil, exp, fsum, inf, isfinite, nan
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .tokenization_sentence_ordering import arrangement


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


EXACT_LIMIT = 12
"""The most sentences for which the best order is certain: the search over subsets takes 2^N · N steps."""

# Weights are whole numbers below 2^32, held in float64. Sums of fewer than 2^20 of them are exact, and so do not depend
# on the order of the summands: what is equal ties, and ties are broken in one way.
_BITS = 32
# What a kept pair counts for in the exact search: more than all other pairs of 12 sentences together.
_KEPT = 2.0**44
# For so few sentences it takes less time to look at all orders.
_MOST_ENUMERATED = 6
# Values in one table of the search over subsets.
_TABLE = 2**23


def best_order(pair_logits: Tensor, kept: Sequence[tuple[int, int]] = ()) -> list[int]:
    """The order of one story with the highest sum of log-probabilities.

    Exact for up to `EXACT_LIMIT` sentences: dynamic programming over subsets (Held & Karp, 1962, "A Dynamic
    Programming Approach to Sequencing Problems"), 2^N · N steps; with few sentences, a look at all orders. Of several
    best orders it is the first one in lexicographic order of the indices.

    More sentences are put in order by insertion local search (Schiavinotto & Stützle, 2004, "The Linear Ordering
    Problem: Instances, Search Space Analysis and Algorithms"), which starts with the order of the input: each sentence
    in turn is moved to where the sum becomes highest, until no move raises it. The result is never worse than the input
    order, and each two neighbours follow their logit, unless they are kept. Each pass over all sentences takes O(N²).
    Measured on random logits of 12 sentences (differences of strengths up to 8, and normal noise): with noise of 1 it
    finds the best order in 92 % of cases, with noise of 3 in 80 %.

    Args:
        pair_logits: `(sentences, sentences)`, antisymmetric, [i, j] the logit of «i before j».
        kept: pairs (i, j): i has to come before j. With more than `EXACT_LIMIT` sentences the input order must keep
            them, too.

    Returns:
        Input indices in order.
    """
    count = len(pair_logits)
    weights = _whole_numbers(pair_logits.unsqueeze(0))
    if count > EXACT_LIMIT:
        return _insertion_search(weights[0], kept)
    for i, j in kept:
        weights[0, i, j], weights[0, j, i] = _KEPT, -_KEPT
    order: list[int] = _exact(weights)[0].tolist()
    return order


def best_orders(pair_logits: Tensor) -> Tensor:
    """`best_order` of many stories of equally many sentences.

    Args:
        pair_logits: `(stories, sentences, sentences)`.

    Returns:
        `(stories, sentences)`, int64.
    """
    stories, count = pair_logits.shape[:2]
    if count > EXACT_LIMIT:
        weights = _whole_numbers(pair_logits)
        return torch.tensor([_insertion_search(one, ()) for one in weights]).view(stories, count)
    portions = pair_logits.split(max(1, _TABLE // (max(count, 1) * 2 ** max(count, 10))))
    return torch.cat([_exact(_whole_numbers(portion)) for portion in portions]).view(stories, count)


def decoded_ranks(pair_logits: Tensor, scores: Tensor, sentence_mask: Tensor) -> Tensor:
    """The position of each sentence in the best order, for metrics, which know no texts to break ties by.

    Sentences that the logits cannot tell apart (the same logits against every other one, and 0 between them) share
    the mean of their positions.

    Args:
        pair_logits: `(stories, max_sentences, max_sentences)`.
        scores: `(stories, max_sentences)`, the order that ties are broken by, and that local search starts with.
        sentence_mask: `(stories, max_sentences)`, bool.

    Returns:
        `(stories, max_sentences)`, float64 on the CPU; 0 for missing sentences.
    """
    pair_logits, scores, mask = pair_logits.detach().cpu().double(), scores.detach().cpu().double(), sentence_mask.cpu()
    ranks = torch.zeros_like(scores)
    counts = mask.sum(dim=1)
    for count in counts.unique().tolist():
        stories = (counts == count).nonzero()
        places = mask[stories[:, 0]].nonzero()[:, 1].view(len(stories), count)
        logits = pair_logits[stories.unsqueeze(2), places.unsqueeze(2), places.unsqueeze(1)]
        ranks[stories, places] = _ranks(logits, scores[stories, places])
    return ranks


def _ranks(pair_logits: Tensor, scores: Tensor) -> Tensor:
    """`decoded_ranks` of stories of equally many sentences, without padding."""
    start = scores.argsort(dim=1, stable=True)
    rows = torch.arange(len(start)).view(-1, 1, 1)
    orders = start.gather(1, best_orders(pair_logits[rows, start.unsqueeze(2), start.unsqueeze(1)]))
    ranks = orders.argsort(dim=1).double()
    ties = (pair_logits == 0).sum(dim=(1, 2)) > pair_logits.shape[1]
    for story in ties.nonzero().flatten().tolist():
        _, group = pair_logits[story].unique(dim=0, return_inverse=True)
        totals = torch.zeros(len(group), dtype=torch.float64).index_add(0, group, ranks[story])
        ranks[story] = (totals / group.bincount(minlength=len(group)).clamp(min=1))[group]
    return ranks


def _whole_numbers(pair_logits: Tensor) -> Tensor:
    """The logits of each story scaled by a power of two and rounded, see `_BITS`."""
    values = pair_logits.detach().cpu().double().nan_to_num(nan=0.0).clamp(-1e30, 1e30)
    largest = values.abs().flatten(1).amax(dim=1) if values.shape[1] else values.new_ones(len(values))
    exponent = torch.frexp(largest).exponent.double().view(-1, 1, 1)
    upper = (values * 2.0 ** (_BITS - exponent)).round().triu(1)
    return upper - upper.transpose(1, 2)


@lru_cache(maxsize=EXACT_LIMIT + 1)
def _subsets(count: int) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor]]]:
    """Which sentences each subset holds, and for subsets of each size: subset, its members, subset without each."""
    members = (torch.arange(2**count).unsqueeze(1) >> torch.arange(count)) & 1
    steps = []
    for size in range(1, count + 1):
        chosen = torch.tensor(list(combinations(range(count), size)))
        subset = (1 << chosen).sum(dim=1)
        steps.append((subset, chosen, subset.unsqueeze(1) - (1 << chosen)))
    return members.double(), steps


@lru_cache(maxsize=_MOST_ENUMERATED + 1)
def _all_orders(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """All orders, and of each the earlier and the later sentence of all pairs."""
    orders = torch.tensor(list(permutations(range(count))), dtype=torch.long)
    earlier, later = torch.triu_indices(count, count, 1)
    return orders, orders[:, earlier], orders[:, later]


def _exact(weights: Tensor) -> Tensor:
    """`(stories, sentences)`: the best order of each story, by the best value of each subset as the end of an order."""
    stories, count = weights.shape[:2]
    if count <= _MOST_ENUMERATED:
        orders, earlier, later = _all_orders(count)
        return orders[weights[:, earlier, later].sum(dim=2).argmax(dim=1)]  # the first of equal ones
    members, steps = _subsets(count)
    before_all = weights @ members.T  # [b, j, subset]: sum of the logits of j before each member
    value = weights.new_zeros(stories, 2**count)
    for subset, chosen, rest in steps:
        value[:, subset] = (before_all[:, chosen, rest] + value[:, rest]).amax(dim=2)
    order = torch.empty(stories, count, dtype=torch.long)
    left = torch.full((stories, 1), 2**count - 1)
    each = torch.arange(count).expand(stories, count)
    for place in range(count):
        rest = (left - (1 << each)).clamp(min=0)
        found = before_all.gather(2, rest.unsqueeze(2)).squeeze(2) + value.gather(1, rest)
        found = torch.where((left >> each) & 1 == 1, found, -torch.inf)
        first = found.argmax(dim=1, keepdim=True)  # the first of equal ones
        order[:, place] = first.squeeze(1)
        left = left - (1 << first)
    return order


def _insertion_search(weights: Tensor, kept: Sequence[tuple[int, int]]) -> list[int]:
    count = len(weights)
    order = torch.arange(count)
    earlier, later = torch.tensor(kept, dtype=torch.long).view(-1, 2).T
    behind = [earlier[later == sentence] for sentence in range(count)] if kept else []
    ahead_of = [later[earlier == sentence] for sentence in range(count)] if kept else []
    moved = True
    while moved:
        moved = False
        for sentence in range(count):
            others = order[order != sentence]
            after = weights[sentence, others]
            # [k] is the sum where the sentence stands before the k-th of the others and all behind it.
            gains = torch.cat([after.sum().view(1), after.sum() - 2 * after.cumsum(0)])
            place = others.new_zeros(count).index_copy(0, others, torch.arange(count - 1))
            low = int(place[behind[sentence]].max()) + 1 if kept and len(behind[sentence]) else 0
            high = int(place[ahead_of[sentence]].min()) if kept and len(ahead_of[sentence]) else count - 1
            best = low + int(gains[low : high + 1].argmax())
            if gains[best] > gains[int((order == sentence).nonzero())]:
                order = torch.cat([others[:best], order.new_tensor([sentence]), others[best:]])
                moved = True
    found: list[int] = order.tolist()
    return found


FIXED_POINT_NAMES = ("first", "last", "before")
ROUNDS = 4
"""How often the order is improved where a sentence follows several others."""
_ROUNDING = 1e-12


@dataclass(frozen=True)
class FixedPoints:
    """Sentences that stand first, last or before another one, by their places in the input, counted from 0.

    Attributes:
        first: the sentence that begins the story.
        last: the sentence that ends it.
        before: pairs (i, j): sentence i stands somewhere before sentence j.
    """

    first: int | None = None
    last: int | None = None
    before: tuple[tuple[int, int], ...] = ()

    @classmethod
    def read(cls, fields: Mapping[str, Any], num_sentences: int) -> FixedPoints:
        """From the fields `first`, `last` and `before` of a story, each of which may be missing or None.

        Raises:
            ValueError: naming the sentences, if one is none of the story's, or no order can be as they say.
        """
        first, last = (_optional_index(name, fields.get(name), num_sentences) for name in ("first", "last"))
        pairs = () if fields.get("before") is None else fields["before"]
        if isinstance(pairs, (str, Mapping)) or not isinstance(pairs, Iterable):
            raise ValueError(f"before is a list of pairs of sentences, [[i, j], …], not {pairs!r}")
        before = tuple(_pair(pair, num_sentences) for pair in pairs)
        fixed = cls(first, last, before)
        fixed._check(num_sentences)
        return fixed

    def _check(self, num_sentences: int) -> None:
        if self.first is not None and self.first == self.last and num_sentences > 1:
            raise ValueError(f"sentence {self.first} cannot be both first and last of {num_sentences} sentences")
        for i, j in self.before:
            if i == j:
                raise ValueError(f"before says that sentence {i} stands before itself")
            if j == self.first:
                raise ValueError(f"sentence {j} is to be first, but before says that sentence {i} stands before it")
            if i == self.last:
                raise ValueError(f"sentence {i} is to be last, but before says that it stands before sentence {j}")
        try:
            TopologicalSorter(_predecessors(self.before)).prepare()
        except CycleError as error:
            raise ValueError(
                f"before goes round in a circle: sentences {' → '.join(map(str, error.args[1]))}"
            ) from None

    def pairs(self, num_sentences: int) -> list[tuple[int, int]]:
        """All that is known as pairs (i, j), sentence i somewhere before sentence j."""
        others = range(num_sentences)
        first = [(self.first, j) for j in others if j != self.first] if self.first is not None else []
        last = [(i, self.last) for i in others if i != self.last] if self.last is not None else []
        return [*self.before, *first, *last]

    def are_kept(self, earlier: int, later: int) -> bool:
        """Whether it is by what the caller knows that of two neighbours in the answer the earlier stands earlier."""
        return earlier == self.first or later == self.last or (earlier, later) in self._pairs

    @cached_property
    def _pairs(self) -> frozenset[tuple[int, int]]:
        return frozenset(self.before)


def order_by_scores(
    scores: Sequence[float], fixed: FixedPoints, tie_break: Callable[[int], Any] = lambda index: index
) -> list[int]:
    """The permutation of the sentences that follows their scores as far as the fixed points allow.

    The best order keeps the fixed points and has the smallest sum of score differences over the pairs that are not in
    the order of their scores. It also has the smallest sum of squared differences between scores and positions. This
    is a machine scheduled under precedence constraints (1 | prec, p = 1 | Σ wC), which is NP-hard in general (Lawler,
    1978, "Sequencing jobs to minimize total weighted completion time subject to precedence constraints").

    Horn's algorithm (1972, "Single-machine job sequencing with treelike precedence ordering and linear delay
    penalties") finds the best order where each sentence directly follows at most one other: it repeatedly takes the
    block of sentences with the lowest mean score. If a sentence that has to come before it is missing, it joins the
    block to that one, else the block comes next. A sentence of a high score thus moves forward if sentences of low
    scores have to follow it.

    Where a sentence follows several, only the one that comes last matters; it is guessed from an earlier order, at
    first the one that always takes the lowest score that may come next. This is repeated up to `ROUNDS` times in both
    directions (reading the story backwards, `before` becomes `after`), and the best of these orders is returned. So
    the order is the best one if by `before` each sentence directly follows at most one other, or each directly
    precedes at most one other. Otherwise the fixed points are kept, but a better order may exist.

    Takes O(N log N + C) for N sentences and C pairs.

    Args:
        scores: one for each sentence.
        fixed: for the same sentences.
        tie_break: a sort key for the sentences, by their indices, where scores are the same.
    """
    begin = [] if fixed.first is None else [fixed.first]
    end = [] if fixed.last in (None, fixed.first) else [fixed.last]
    ends = {*begin, *end}
    middle = sorted((index for index in range(len(scores)) if index not in ends), key=tie_break)
    pairs = {pair for pair in fixed.before if ends.isdisjoint(pair)}
    if not pairs:
        return [*begin, *sorted(middle, key=lambda index: scores[index]), *end]
    # From here on sentences are numbered as `middle` has them, so that among equals the lower number comes first.
    number = {index: place for place, index in enumerate(middle)}
    values = [scores[index] for index in middle]
    order = _best_order(values, [(number[i], number[j]) for i, j in pairs])
    return [*begin, *(middle[place] for place in order), *end]


def _best_order(values: list[float], pairs: list[tuple[int, int]]) -> list[int]:
    """The best of the orders that are tried, see `order_by_scores`."""
    largest = len(values) - 1
    forward = _tried_orders(values, pairs)
    turned = [(largest - j, largest - i) for i, j in pairs]
    backward = (
        [largest - i for i in reversed(order)] for order in _tried_orders([-v for v in reversed(values)], turned)
    )
    best: list[int] = []
    agreement = -inf
    for order in (*forward, *backward):
        found = fsum(place * values[i] for place, i in enumerate(order))
        if not best or found > agreement + _ROUNDING * max(abs(found), abs(agreement)):
            best, agreement = order, found
    return best


def _tried_orders(values: list[float], pairs: list[tuple[int, int]]) -> Iterator[list[int]]:
    behind: list[list[int]] = [[] for _ in values]
    ahead: list[list[int]] = [[] for _ in values]
    for i, j in pairs:
        behind[j].append(i)
        ahead[i].append(j)
    order = _allowed(sorted(range(len(values)), key=values.__getitem__), behind, ahead)
    for _ in range(ROUNDS):
        position = _positions(order)
        parents = [max(earlier, key=position.__getitem__, default=None) for earlier in behind]
        before, order = order, _allowed(_horn(values, parents), behind, ahead)
        yield order
        if order == before:
            return


def _positions(order: list[int]) -> list[int]:
    position = [0] * len(order)
    for place, i in enumerate(order):
        position[i] = place
    return position


def _allowed(wanted: list[int], behind: list[list[int]], ahead: list[list[int]]) -> list[int]:
    """Kahn's algorithm: again and again the first of the wanted order that nothing has to precede any more."""
    position = _positions(wanted)
    missing = [len(earlier) for earlier in behind]
    ready = [place for place, i in enumerate(wanted) if not missing[i]]  # sorted, and so a heap
    order = []
    while ready:
        i = wanted[heappop(ready)]
        order.append(i)
        for j in ahead[i]:
            missing[j] -= 1
            if not missing[j]:
                heappush(ready, position[j])
    return order


def _horn(values: list[float], parents: list[int | None]) -> list[int]:
    """The best order in which each sentence follows its parent, by Horn's algorithm.

    A block is called by its first sentence. `block` leads from a sentence to its block, over the blocks that it was in.
    """
    numbers = range(len(values))
    block, last = list(numbers), list(numbers)
    following: list[int | None] = [None] * len(values)
    sums, sizes = list(values), [1] * len(values)
    is_placed = [False] * len(values)
    waiting = [(value, i, 1) for i, value in enumerate(values)]
    heapify(waiting)
    order: list[int] = []
    while waiting:
        _, first, size = heappop(waiting)
        if block[first] != first or sizes[first] != size:
            continue  # it has been joined since
        parent = parents[first]
        if parent is not None and not is_placed[parent]:
            target = _block_of(parent, block)
            block[first] = target
            following[last[target]] = first
            last[target] = last[first]
            sums[target] += sums[first]
            sizes[target] += size
            heappush(waiting, (sums[target] / sizes[target], target, sizes[target]))
            continue
        sentence: int | None = first
        while sentence is not None:
            order.append(sentence)
            is_placed[sentence] = True
            sentence = following[sentence]
    return order


def _block_of(i: int, block: list[int]) -> int:
    while block[i] != i:
        block[i] = block[block[i]]
        i = block[i]
    return i


def _predecessors(pairs: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for i, j in pairs:
        found.setdefault(j, []).append(i)
    return found


def _pair(pair: Any, num_sentences: int) -> tuple[int, int]:
    pair = pair.tolist() if hasattr(pair, "tolist") else pair
    if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
        raise ValueError(f"before is a list of pairs of sentences, [[i, j], …], and {pair!r} is no pair")
    return _index("before", pair[0], num_sentences), _index("before", pair[1], num_sentences)


def _optional_index(name: str, value: Any, num_sentences: int) -> int | None:
    return None if value is None else _index(name, value, num_sentences)


def _index(name: str, value: Any, num_sentences: int) -> int:
    try:
        index = None if type(value).__name__ in ("bool", "bool_") else operator.index(value)
    except TypeError:
        index = None
    if index is None:
        raise ValueError(f"{name} names sentences by their places in the input, counted from 0, not by {value!r}")
    if not 0 <= index < num_sentences:
        raise ValueError(f"{name} names sentence {index}, but the story's {num_sentences} are numbered from 0 on")
    return index


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
        for index, score in zip(_copies_by_score(sentences, way, row), row, strict=False):
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
        index = torch.tensor(_copies_by_score(sentences, way, row), dtype=torch.long)
        totals[index.unsqueeze(1), index] += logits[: len(index), : len(index)].to(totals)
        counts[index.unsqueeze(1), index] += 1
    return totals / counts.clamp(min=1)


def _copies_by_score(sentences: Sequence[str], way: Sequence[int], row: Sequence[float]) -> list[int]:
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


ScoreGroups = Callable[[list[list[int]]], list[list[float]]]

ROUNDS_PER_SCALE = 2


def combine_groups(
    sentences: Sequence[str],
    score_groups: ScoreGroups,
    *,
    lengths: Sequence[int],
    room: int,
    group_size: int,
    temperature: float | None = None,
    num_permutations: int = 1,
) -> list[float]:
    """Strengths of more sentences than can be scored together, from scores of groups of them.

    In each round all sentences are dealt into groups, and each group is scored. In the first rounds any sentence meets
    any other. From then on the text is cut, in its present order, into stretches, halves at first, then quarters and
    so on down to single groups, and who meets is of one stretch: like a sort from coarse to fine, comparisons go
    where the order is still open, to sentences near each other (Maystre & Grossglauser, 2017, "Just Sort It! A Simple
    and Effective Approach to Active Preference Learning"). Each scale has `ROUNDS_PER_SCALE` rounds for each of
    `num_permutations`; in every second one, stretches begin half a stretch earlier, so that what was cut apart meets.
    After each round a Bradley-Terry model is fitted to all judgements so far, see `Judgements`.

    With m groups in the first round there are `number_of_rounds(m)` = 2 · num_permutations · (⌈log2 m⌉ + 1) rounds,
    each of at most ⌈N / group_size⌉ + ⌈2 · sum(lengths) / room⌉ groups: for N sentences N log N groups, each of them
    through the encoder once.

    As for a short story, the answer depends on the texts alone, not on the order in which they come in: whatever is
    drawn, is drawn by hashes, see `arrangement`. Of identical sentences, the first in the input gets the lowest
    strength.

    Args:
        sentences: of the text, in any order.
        score_groups: called once for each round, with groups of indices, each in the order in which its sentences are
            to be shown; returns a score for each of them, lower for what comes earlier.
        lengths: what each sentence takes of the room, 1 or more, and no more than half of it.
        room: what a group takes at most.
        group_size: sentences of a group at most, 2 or more.
        temperature: what a difference of scores is divided by to tell how sure it is, see `confidence`; without it,
            the standard deviation of scores in the groups of the first round.
        num_permutations: so many times as many rounds.

    Returns:
        A strength for each sentence, in units of scores: sentence i comes before sentence j with a probability of
        σ((strength j - strength i) / temperature). NaN if a score is not finite.
    """
    canonical = arrangement(sentences, 0)
    texts, sizes = [sentences[i] for i in canonical], [lengths[i] for i in canonical]
    judgements = Judgements(len(texts))
    strengths = torch.zeros(len(texts), dtype=torch.float64)
    unit = 1.0
    rounds, draw = 1, 0
    while draw < rounds:
        scale = draw // (ROUNDS_PER_SCALE * num_permutations)
        shift = 0.5 if scale and draw % 2 else 0.0
        groups = _deal(strengths.tolist(), arrangement(texts, draw), sizes, room, group_size, scale, shift)
        scores = score_groups([[canonical[i] for i in group] for group in groups])
        if not all(isfinite(score) for row in scores for score in row):
            return [nan] * len(texts)
        if draw == 0:
            rounds = number_of_rounds(len(groups), num_permutations)
            unit = temperature or _spread(scores) or 1.0
        judgements.add(groups, [[score / unit for score in row] for row in scores])
        draw += 1
        # From the last fit on, a step or two are enough to deal by.
        strengths = judgements.fit(strengths, most_steps=100 if draw == rounds else 2)
    found = [0.0] * len(texts)
    for place, strength in zip(canonical, (strengths * unit).tolist(), strict=True):
        found[place] = strength
    return _lowest_first(sentences, found)


def number_of_rounds(groups: int, num_permutations: int = 1) -> int:
    """Rounds for a text that makes so many groups: from the whole text down to stretches of one group's size."""
    scales = max(groups - 1, 0).bit_length() + 1
    return ROUNDS_PER_SCALE * num_permutations * scales


def _deal(
    strengths: Sequence[float],
    shown: Sequence[int],
    lengths: Sequence[int],
    room: int,
    group_size: int,
    scale: int,
    shift: float,
) -> list[list[int]]:
    """All sentences in groups, each in the order of `shown`: dealt within 2^scale stretches of the present order."""
    count = len(shown)
    turn, stretch = [0] * count, [0] * count
    for place, index in enumerate(shown):
        turn[index] = place
    for place, index in enumerate(sorted(range(count), key=lambda index: (strengths[index], index))):
        stretch[index] = int(place * 2**scale / count + shift)
    line = sorted(range(count), key=lambda index: (stretch[index], turn[index]))
    return [sorted(group, key=turn.__getitem__) for group in _packed(line, lengths, room, group_size)]


def _packed(line: Sequence[int], lengths: Sequence[int], room: int, group_size: int) -> Iterator[list[int]]:
    """The line cut into groups of about the same size that have room, none of a single sentence if that can be."""
    most = ceil(len(line) / max(ceil(len(line) / group_size), 1))  # 21 sentences are 11 and 10, not 20 and 1
    groups: list[list[int]] = []
    used = room
    for index in line:
        if not groups or len(groups[-1]) == most or used + lengths[index] > room:
            groups.append([])
            used = 0
        groups[-1].append(index)
        used += lengths[index]
    if len(groups) > 1 and len(groups[-1]) == 1 and len(groups[-2]) > 2:
        groups[-1].insert(0, groups[-2].pop())
    return (group for group in groups if len(group) > 1)  # one sentence alone tells nothing


def _spread(scores: Sequence[Sequence[float]]) -> float:
    """The standard deviation of scores within their groups."""
    rows = [torch.tensor(row, dtype=torch.float64) for row in scores]
    return float(torch.cat([row - row.mean() for row in rows]).square().mean().sqrt()) if rows else 0.0


def _lowest_first(texts: Sequence[str], strengths: Sequence[float]) -> list[float]:
    """The strengths of identical sentences handed out anew, ascending."""
    by_text: defaultdict[str, list[float]] = defaultdict(list)
    for text, strength in zip(texts, strengths, strict=True):
        by_text[text].append(strength)
    ascending = {text: deque(sorted(values)) for text, values in by_text.items()}
    return [ascending[text].popleft() for text in texts]


@dataclass(frozen=True)
class _Round:
    """Groups of one round, padded to `(groups, width)`.

    Attributes:
        members: `(groups, width)`, int64, the sentence at each place, 0 for padding.
        there: `(groups, width)`, bool, false for padding.
        places: `(sentences,)`, int64, where in the flattened members each sentence is; the number of members, if
            it is nowhere.
    """

    members: Tensor
    there: Tensor
    places: Tensor

    def differences(self, strengths: Tensor) -> Tensor:
        """`(groups, width, width)`: strength of the first one minus that of the second one, of each pair."""
        values = strengths[self.members]
        return values.unsqueeze(2) - values.unsqueeze(1)

    def pairs(self) -> Tensor:
        """`(groups, width, width)`, bool: two different sentences."""
        alone = torch.eye(self.members.shape[1], dtype=torch.bool)
        return self.there.unsqueeze(2) & self.there.unsqueeze(1) & ~alone

    def by_sentence(self, values: Tensor) -> Tensor:
        """`(groups, width)` to `(sentences,)`. Each stands in one place: no sum whose order could differ."""
        return torch.cat([values.flatten(), values.new_zeros(1)])[self.places]


class Judgements:
    """What groups said of their pairs, and the strengths that explain it best.

    Bradley & Terry (1952, "Rank Analysis of Incomplete Block Designs: I. The Method of Paired Comparisons"): of a pair,
    j comes after i with a probability of σ(strength j - strength i). A group of scores s is taken for
    σ(s j - s i) of a win of j over i, and the rest of one of i over j, in each of its pairs. Wanted are the strengths
    of the highest likelihood times that of a normal prior of precision `PRIOR` around 0. The sum is strictly concave,
    so that there is exactly one answer even where sentences never met or one won always, which maximum likelihood
    alone does not have (Hunter, 2004, "MM algorithms for generalized Bradley-Terry models",
    doi:10.1214/aos/1079120141). It is found by Newton's method, its linear equations solved by conjugate gradients: a
    long text is a long chain, along which Hunter's own iteration carries what it learns by one group at a time.

    Memory: of each round two whole numbers and a truth value for each sentence; while fitting, a float for each pair
    that met, fewer than N · group size in a round.

    Args:
        num_sentences: N.
    """

    PRIOR = 0.01

    def __init__(self, num_sentences: int) -> None:
        self.num_sentences = num_sentences
        self._rounds: list[_Round] = []
        self._won = torch.zeros(num_sentences, dtype=torch.float64)

    def add(self, groups: Sequence[Sequence[int]], scores: Sequence[Sequence[float]]) -> None:
        """Takes down one round.

        Args:
            groups: of at least 2 sentences, each sentence in one group at most.
            scores: of their members, in units of log-odds.
        """
        width = max(map(len, groups), default=0)
        members = torch.tensor([[*group, *[-1] * (width - len(group))] for group in groups], dtype=torch.long)
        members = members.view(len(groups), width)
        there = members >= 0
        values = torch.zeros(members.shape, dtype=torch.float64)
        values[there] = torch.tensor([score for row in scores for score in row], dtype=torch.float64)
        places = torch.full((self.num_sentences,), members.numel())
        places[members[there]] = there.flatten().nonzero().squeeze(1)
        found = _Round(members.clamp(min=0), there, places)
        won = (values.unsqueeze(2) - values.unsqueeze(1)).sigmoid() - 0.5
        self._won += found.by_sentence((won * found.pairs()).sum(dim=2))
        self._rounds.append(found)

    def fit(self, strengths: Tensor, most_steps: int = 100) -> Tensor:
        """The strengths, `(sentences,)` float64.

        Args:
            strengths: to begin with.
            most_steps: Newton's steps at most; fewer once no derivative is above 1e-6.
        """
        value = self.log_posterior(strengths)
        for _ in range(most_steps):
            slope = self._won - self.PRIOR * strengths
            curvatures = []
            for one in self._rounds:
                expected = one.differences(strengths).sigmoid()
                slope -= one.by_sentence(((expected - 0.5) * one.pairs()).sum(dim=2))
                curvatures.append(expected * (1 - expected) * one.pairs())
            if not (slope.abs() > 1e-6).any():
                break
            step = self._solve(curvatures, slope)
            for _ in range(30):  # half as far, until it is uphill
                further = self.log_posterior(strengths + step)
                if further >= value - 1e-12 * abs(value):
                    break
                step = step / 2
            strengths, value = strengths + step, further
        return strengths

    def log_posterior(self, strengths: Tensor) -> float:
        """What is maximised, less what does not depend on the strengths."""
        value = self._won @ strengths - self.PRIOR / 2 * strengths @ strengths
        for one in self._rounds:
            # Of a pair won by t: t · log σ(d) + (1 - t) · log σ(-d) = t · d - softplus(d), whichever is the first.
            value -= (softplus(one.differences(strengths)) * one.pairs()).sum() / 2
        return float(value)

    def _solve(self, curvatures: Sequence[Tensor], slope: Tensor) -> Tensor:
        """Newton's step: conjugate gradients, preconditioned by the diagonal, to a thousandth of the slope."""
        diagonal = torch.full_like(slope, self.PRIOR)
        for one, weights in zip(self._rounds, curvatures, strict=True):
            diagonal += one.by_sentence(weights.sum(dim=2))
        step, rest = torch.zeros_like(slope), slope
        direction = rest / diagonal
        size = wanted = rest @ direction
        for _ in range(100):
            bent = diagonal * direction
            for one, weights in zip(self._rounds, curvatures, strict=True):
                bent -= one.by_sentence((weights @ direction[one.members].unsqueeze(2)).squeeze(2))
            length = size / (direction @ bent)
            step, rest = step + length * direction, rest - length * bent
            previous, size = size, rest @ (rest / diagonal)
            if size <= 1e-6 * wanted:
                break
            direction = rest / diagonal + size / previous * direction
        return step
