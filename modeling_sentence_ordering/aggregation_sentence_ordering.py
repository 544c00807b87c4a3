"""One order from many groups of sentences, each of which was scored by itself.

No encoder holds a text of thousands of sentences. It is shown groups of them, round after round; each group gives a
judgement on each of its pairs, and one strength for each sentence is fitted to all judgements.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, isfinite, nan

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .arrangement_sentence_ordering import arrangement

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
