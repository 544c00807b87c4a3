"""What a caller knows of a story's order already: kept, whatever the scores say."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from heapq import heapify, heappop, heappush
from math import fsum, inf
from typing import Any

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
