"""Many groups, one order: what is combined, how many groups it takes, and what the order does not depend on."""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st

from modeling_sentence_ordering import combine_groups, number_of_rounds
from modeling_sentence_ordering.decoding_sentence_ordering import BradleyTerry

Groups = list[list[int]]
checked = settings(max_examples=60, deadline=None)


def noise(*what: Any) -> float:
    """A number from 0 to 1 that looks random and is always the same."""
    return int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:6], "big") / 2**48


class Scorer:
    """Scores each sentence by its place in the group, with noise that depends on the whole group as shown."""

    def __init__(self, sentences: Sequence[str], deviation: float = 0.0) -> None:
        self.sentences = sentences
        self.deviation = deviation
        self.rounds: list[Groups] = []

    def __call__(self, groups: Groups) -> list[list[float]]:
        self.rounds.append(groups)
        return [self.score([self.sentences[i] for i in group]) for group in groups]

    def score(self, shown: list[str]) -> list[float]:
        return [
            sum(other < text for other in shown) + self.deviation * (noise(place, shown) - 0.5) * math.sqrt(12)
            for place, text in enumerate(shown)
        ]

    @property
    def calls(self) -> int:
        return sum(map(len, self.rounds))


def numbered(count: int) -> list[str]:
    """Sentences whose alphabetic order is the true one, shuffled."""
    return random.Random(count).sample([f"{number:05}" for number in range(count)], count)


def combine(scorer: Scorer, group_size: int = 8, **options: Any) -> list[float]:
    options = {"lengths": [1] * len(scorer.sentences), "room": 1000, "temperature": 1.0, **options}
    return combine_groups(scorer.sentences, scorer, group_size=group_size, **options)


def tau(sentences: Sequence[str], strengths: Sequence[float]) -> float:
    found = [sentences[i] for i in sorted(range(len(sentences)), key=strengths.__getitem__)]
    pairs = [a < b for place, a in enumerate(found) for b in found[place + 1 :]]
    return 2 * sum(pairs) / len(pairs) - 1


@checked
@given(
    sentences=st.lists(st.text("abc", max_size=3), max_size=40),
    options=st.fixed_dictionaries(
        {
            "group_size": st.integers(2, 7),
            "num_permutations": st.integers(1, 2),
            "temperature": st.sampled_from([None, 0.5]),
        }
    ),
    data=st.data(),
)
def test_only_the_texts_count_not_the_order_that_they_come_in(
    sentences: list[str], options: dict[str, Any], data: st.DataObject
) -> None:
    turned = data.draw(st.permutations(sentences))
    one = combine(Scorer(sentences, 1.0), **options)
    other = combine(Scorer(turned, 1.0), **options)
    assert sorted(zip(sentences, one, strict=True)) == sorted(zip(turned, other, strict=True))
    assert all(map(math.isfinite, one))
    for text in set(sentences):  # of copies the first comes first
        copies = [strength for sentence, strength in zip(sentences, one, strict=True) if sentence == text]
        assert copies == sorted(copies)


@checked
@given(
    lengths=st.lists(st.integers(1, 30), max_size=90),
    room=st.integers(60, 200),
    group_size=st.integers(2, 12),
    count=st.integers(1, 2),
)
def test_groups_have_room_and_are_as_few_as_stated(lengths: list[int], room: int, group_size: int, count: int) -> None:
    number = len(lengths)
    scorer = Scorer(numbered(number), 0.5)
    combine(scorer, group_size, lengths=lengths, room=room, num_permutations=count)
    most = math.ceil(number / group_size) + math.ceil(2 * sum(lengths) / room)
    assert max(map(len, scorer.rounds), default=0) <= most
    assert len(scorer.rounds) == number_of_rounds(len(scorer.rounds[0]), count)
    assert scorer.calls <= 2 * count * (math.ceil(math.log2(max(most, 1))) + 1) * most
    for groups in scorer.rounds:
        assert all(2 <= len(group) <= group_size for group in groups)
        assert all(sum(lengths[i] for i in group) <= room for group in groups)
        met = [i for group in groups for i in group]
        assert len(met) == len(set(met)) >= number - 1, "each once, and at most one is left over"
    event(f"rounds: {len(scorer.rounds)}")


def test_no_sentence_is_left_over_where_three_fit_together() -> None:
    for number in range(4, 30):
        scorer = Scorer(numbered(number))
        combine(scorer, 3)
        assert all(sum(map(len, groups)) == number for groups in scorer.rounds)


@pytest.mark.parametrize(("groups", "rounds"), [(0, 2), (1, 2), (2, 4), (3, 6), (4, 6), (5, 8), (100, 16), (128, 16)])
def test_rounds_grow_with_the_logarithm(groups: int, rounds: int) -> None:
    assert number_of_rounds(groups) == rounds
    assert number_of_rounds(groups, 3) == 3 * rounds


def test_twice_the_sentences_take_little_more_than_twice_the_groups() -> None:
    calls = []
    for number in (200, 400, 800):
        scorer = Scorer(numbered(number))
        combine(scorer, 10)
        calls.append(scorer.calls)
    assert calls == [20 * 12, 40 * 14, 80 * 16]


@pytest.mark.parametrize(
    ("number", "deviation", "least"),
    [(30, 0.0, 0.97), (30, 1.0, 0.9), (300, 0.0, 0.985), (300, 1.0, 0.98), (300, 3.0, 0.9)],
)
def test_the_order_is_found_again(number: int, deviation: float, least: float) -> None:
    scorer = Scorer(numbered(number), deviation)
    assert tau(scorer.sentences, combine(scorer, 16)) > least


def test_more_rounds_are_more_sure() -> None:
    found = [tau(numbered(100), combine(Scorer(numbered(100), 3.0), 10, num_permutations=count)) for count in (1, 4)]
    assert found[0] + 0.03 < found[1] > 0.9


def test_later_rounds_are_spent_on_neighbours_and_earlier_ones_on_all() -> None:
    number = 256
    scorer = Scorer(numbered(number))
    combine(scorer, 8)
    apart = [
        sum(
            max(int(scorer.sentences[i]) for i in group) - min(int(scorer.sentences[i]) for i in group)
            for group in groups
        )
        / len(groups)
        for groups in scorer.rounds
    ]
    assert min(apart[:2]) > number / 2 and max(apart[-2:]) < number / 10
    met = {
        pair for groups in scorer.rounds for group in groups for pair in _pairs(int(scorer.sentences[i]) for i in group)
    }
    assert sum((place, place + 1) in met for place in range(number - 1)) > 0.95 * number


def _pairs(group: Any) -> set[tuple[int, int]]:
    members = list(group)
    return {(a, b) for a in members for b in members if a < b}


def test_what_is_shown_does_not_tell_the_order_found_so_far() -> None:
    scorer = Scorer(numbered(200))
    combine(scorer, 10)
    for groups in scorer.rounds[-4:]:
        rising = Counter(
            scorer.sentences[a] < scorer.sentences[b]
            for group in groups
            for a, b in zip(group[:-1], group[1:], strict=True)
        )
        assert 0.35 < rising[True] / rising.total() < 0.65
    ways = {tuple(group) for groups in scorer.rounds for group in groups}
    assert len(ways) > 0.99 * scorer.calls, "a group that meets again is shown another way"


def test_strengths_are_in_the_unit_of_the_scores() -> None:
    sentences = numbered(60)
    one = combine(Scorer(sentences, 1.0), temperature=1.0)

    class Larger(Scorer):
        def score(self, shown: list[str]) -> list[float]:
            return [1000 * score + 7 for score in super().score(shown)]

    assert combine(Larger(sentences, 1.0), temperature=1000.0) == pytest.approx(
        [1000 * value for value in one], rel=1e-6
    )
    guessed = combine(Scorer(sentences, 1.0), temperature=None)
    larger = combine(Larger(sentences, 1.0), temperature=None)
    assert larger == pytest.approx([1000 * value for value in guessed], rel=1e-6)


def test_scores_that_are_all_the_same_give_strengths_that_are() -> None:
    scorer = Scorer(["a"] * 30)
    assert combine(scorer, temperature=None) == [0.0] * 30


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_passed_on(broken: float) -> None:
    calls = []

    def score(groups: Groups) -> list[list[float]]:
        calls.append(groups)
        return [[broken] * len(group) for group in groups]

    found = combine_groups(numbered(20), score, lengths=[1] * 20, room=99, group_size=4)
    assert len(found) == 20 and all(map(math.isnan, found))
    assert len(calls) == 1, "and at once"


def brute_force(
    rounds: list[tuple[Groups, list[list[float]]]], strengths: torch.Tensor, prior: float = BradleyTerry.PRIOR
) -> torch.Tensor:
    """The log-likelihood, pair by pair, and the prior."""
    total = -prior / 2 * (strengths**2).sum()
    for groups, rows in rounds:
        for group, row in zip(groups, rows, strict=True):
            for a in range(len(group)):
                for b in range(a):
                    win = 1 / (1 + math.exp(row[b] - row[a]))
                    difference = strengths[group[a]] - strengths[group[b]]
                    total = total + win * torch.nn.functional.logsigmoid(difference)
                    total = total + (1 - win) * torch.nn.functional.logsigmoid(-difference)
    return total


@settings(max_examples=40, deadline=None)
@given(data=st.data(), number=st.integers(2, 9))
def test_the_fit_is_the_maximum(data: st.DataObject, number: int) -> None:
    rounds = []
    model = BradleyTerry(number)
    for _ in range(data.draw(st.integers(1, 4))):
        line = data.draw(st.permutations(range(number)))
        cuts = sorted(data.draw(st.sets(st.integers(0, number))) | {0, number})
        groups = [line[a:b] for a, b in zip(cuts, cuts[1:], strict=False) if b - a > 1]
        rows = [[data.draw(st.sampled_from([-40.0, -2.0, 0.0, 0.5, 3.0, 50.0])) for _ in group] for group in groups]
        model.add(groups, rows)
        rounds.append((groups, rows))
    model.fit()
    found = model.strengths.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(brute_force(rounds, found), found)
    assert gradient.abs().max() < 1e-5
    found = found.detach()
    above = []
    for strengths in (torch.zeros_like(found), found.flip(0), found):
        model.strengths = strengths.clone()
        above.append(float(brute_force(rounds, strengths) + model.loss()))
    assert above == pytest.approx([above[0]] * 3, abs=1e-8)
    model.strengths = torch.linspace(-30, 30, number, dtype=torch.float64)
    model.fit()
    assert model.strengths.tolist() == pytest.approx(found.tolist(), abs=1e-3), "wherever it begins"


def test_a_long_chain_of_comparisons_is_fitted_to_its_end() -> None:
    """1,000 sentences, each compared only with its neighbours: what L-BFGS needs the most iterations for."""
    number = 1000
    model = BradleyTerry(number)
    model.add([[i, i + 1] for i in range(number - 1)], [[0.0, 1.0]] * (number - 1))
    model.fit()
    model.loss()
    assert model.strengths.grad is not None and model.strengths.grad.abs().max() < 1e-5


def test_two_sentences_are_as_far_apart_as_their_scores_say() -> None:
    model = BradleyTerry(3)
    for _ in range(1000):  # the prior has no weight against so many
        model.add([[2, 0]], [[0.5, -1.0]])
    model.fit()
    assert model.strengths[2] - model.strengths[0] == pytest.approx(1.5, abs=1e-3)
    assert model.strengths[1] == 0, "never compared"
