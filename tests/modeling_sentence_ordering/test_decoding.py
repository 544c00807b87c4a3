"""The order with the highest sum of log-probabilities: exact for short stories, never worse than its start for long."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modeling_sentence_ordering import FixedPoints, best_order, best_orders, decoded_ranks, in_order
from modeling_sentence_ordering.decoding_sentence_ordering import EXACT_LIMIT

checked = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**31)


def random_logits(seed: int, count: int, *, whole: bool = False) -> Tensor:
    """Antisymmetric; whole numbers are few, so that there are ties."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, count, generator=generator, dtype=torch.float64) * 3
    values = (values / 3).round() if whole else values
    return values.triu(1) - values.triu(1).T


def log_probability(pair_logits: Tensor, order: list[int]) -> float:
    logits = [float(pair_logits[i, j]) for place, i in enumerate(order) for j in order[place + 1 :]]
    return float(torch.nn.functional.logsigmoid(torch.tensor(logits, dtype=torch.float64)).sum())


def keeps(order: list[int], kept: list[tuple[int, int]]) -> bool:
    return all(order.index(i) < order.index(j) for i, j in kept)


def kept_pairs(seed: int, count: int) -> list[tuple[int, int]]:
    """Some pairs of a hidden order, so that they contradict each other nowhere."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randperm(count, generator=generator).tolist()
    pairs = [(hidden[a], hidden[b]) for a in range(count) for b in range(a + 1, count)]
    return [pair for pair in pairs if torch.rand(1, generator=generator) < 0.2]


@checked
@given(seeds, st.integers(0, 6), st.booleans())
def test_it_is_the_best_of_all_orders_and_of_equal_ones_the_first(seed: int, count: int, whole: bool) -> None:
    logits = random_logits(seed, count, whole=whole)
    values = {order: log_probability(logits, list(order)) for order in permutations(range(count))}
    best = max(values.values())
    expected = min(order for order, value in values.items() if value > best - 1e-9)
    assert best_order(logits) == list(expected)


@checked
@given(seeds, st.integers(2, 6))
def test_of_the_orders_that_keep_pairs_it_is_the_best(seed: int, count: int) -> None:
    logits, kept = random_logits(seed, count), kept_pairs(seed + 1, count)
    allowed = [list(order) for order in permutations(range(count)) if keeps(list(order), kept)]
    found = best_order(logits, kept)
    assert keeps(found, kept)
    assert log_probability(logits, found) == pytest.approx(max(log_probability(logits, one) for one in allowed))


def test_the_largest_exact_search_finds_a_hidden_order() -> None:
    hidden = torch.randperm(EXACT_LIMIT, generator=torch.Generator().manual_seed(0))
    place = hidden.argsort().double()
    assert best_order(0.01 * (place - place.unsqueeze(1))) == hidden.tolist()


def test_a_batch_is_decoded_as_each_story_by_itself() -> None:
    logits = torch.stack([random_logits(seed, 5, whole=seed % 2 == 0) for seed in range(40)])
    assert best_orders(logits).tolist() == [best_order(one) for one in logits]
    assert best_orders(torch.zeros(0, 3, 3)).shape == (0, 3)
    long = torch.stack([random_logits(seed, EXACT_LIMIT + 2) for seed in range(3)])
    assert best_orders(long).tolist() == [best_order(one) for one in long]


@checked
@given(seeds, st.integers(EXACT_LIMIT + 1, 30), st.booleans())
def test_local_search_is_never_worse_than_its_start_and_no_move_improves_it(seed: int, count: int, whole: bool) -> None:
    logits = random_logits(seed, count, whole=whole)
    found = best_order(logits)
    value = log_probability(logits, found)
    assert sorted(found) == list(range(count))
    assert value >= log_probability(logits, list(range(count)))
    for sentence in found[::5]:
        others = [other for other in found if other != sentence]
        for place in range(count):
            moved = [*others[:place], sentence, *others[place:]]
            assert log_probability(logits, moved) <= value + 1e-6
    assert all(logits[i, j] >= -1e-9 for i, j in zip(found, found[1:], strict=False))


def test_local_search_comes_near_the_exact_order(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = [random_logits(seed, 9) for seed in range(30)]
    best = [log_probability(one, best_order(one)) for one in logits]
    starts = [(-one.sum(dim=1)).argsort() for one in logits]
    monkeypatch.setattr("modeling_sentence_ordering.decoding_sentence_ordering.EXACT_LIMIT", 8)
    found = [
        log_probability(one, [int(start[i]) for i in best_order(one[start][:, start])])
        for one, start in zip(logits, starts, strict=True)
    ]
    assert all(one <= other + 1e-9 for one, other in zip(found, best, strict=True))
    assert sum(found) >= 1.03 * sum(best), "log-probabilities are negative: within three percent, of random logits"


@checked
@given(seeds, st.integers(EXACT_LIMIT + 1, 24))
def test_local_search_keeps_pairs(seed: int, count: int) -> None:
    place = torch.randperm(count, generator=torch.Generator().manual_seed(seed + 1)).tolist()
    # The input order keeps all pairs (i, j) with i < j.
    kept = [(i, j) for i, j in zip(place, place[1:], strict=False) if i < j]
    found = best_order(random_logits(seed, count), kept)
    assert keeps(found, kept) and sorted(found) == list(range(count))


@checked
@given(seeds, st.integers(1, 15), st.floats(1e-6, 1e6))
def test_the_unit_of_the_logits_does_not_matter(seed: int, count: int, unit: float) -> None:
    logits = random_logits(seed, count)
    assert best_order(logits * unit) == best_order(logits)


@checked
@given(seeds, st.integers(2, 16))
def test_ranks_follow_the_sentences_if_the_input_is_permuted(seed: int, count: int) -> None:
    logits = random_logits(seed, count)
    scores = -logits.mean(dim=1)
    permutation = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(1, count, dtype=torch.bool)
    ranks = decoded_ranks(logits.unsqueeze(0), scores.unsqueeze(0), mask)[0]
    permuted = decoded_ranks(logits[permutation][:, permutation].unsqueeze(0), scores[permutation].unsqueeze(0), mask)[
        0
    ]
    assert torch.equal(permuted, ranks[permutation])
    assert sorted(ranks.tolist()) == list(range(count))


def test_what_cannot_be_told_apart_shares_a_rank() -> None:
    mask = torch.ones(2, 3, dtype=torch.bool)
    assert decoded_ranks(torch.zeros(2, 3, 3), torch.zeros(2, 3), mask).tolist() == [[1.0] * 3] * 2
    first_and_twins = torch.tensor([[[0.0, -2.0, 0.0], [2.0, 0.0, 2.0], [0.0, -2.0, 0.0]]])
    assert decoded_ranks(first_and_twins, torch.tensor([[1.0, -1.0, 1.0]]), mask[:1]).tolist() == [[1.5, 0.0, 1.5]]


def test_padding_and_other_stories_have_no_part_in_ranks() -> None:
    masks = torch.tensor([[True] * 4, [True, False, True, True], [False] * 4, [True, True, False, False]])
    logits = torch.stack([random_logits(seed, 4) for seed in range(4)])
    scores = -logits.mean(dim=2)
    together = decoded_ranks(logits, scores, masks)
    for row, mask in enumerate(masks):
        there = mask.nonzero().flatten()
        order = best_order(logits[row][there][:, there])
        assert together[row, there[order]].tolist() == list(range(len(there)))
        assert not together[row, ~mask].any()


def test_an_answer_follows_the_pairs_where_scores_say_something_else() -> None:
    # c before a by much, everything else by a little: the scores put c first, the pairs have no such order.
    logits = torch.tensor(
        [[0.0, 4.0, 1.0, -2.0], [-4.0, 0.0, 3.0, 1.0], [-1.0, -3.0, 0.0, 5.0], [2.0, -1.0, -5.0, 0.0]]
    )
    scores = (-logits.mean(dim=1)).tolist()
    answer = in_order(list("abcd"), scores, pair_logits=logits, temperature=2.0)
    best = max(permutations(range(4)), key=lambda order: log_probability(logits, list(order)))
    assert answer["order"] == list(best)
    neighbours = zip(best, best[1:], strict=False)
    assert answer["confidence"] == pytest.approx([float(torch.sigmoid(logits[i, j] / 2)) for i, j in neighbours])
    assert answer["scores"] == scores


@checked
@given(seeds, st.integers(2, 15))
def test_an_answer_keeps_fixed_points(seed: int, count: int) -> None:
    logits = random_logits(seed, count)
    fixed = FixedPoints(first=1, last=0, before=((3, 2),) if count > 3 else ())
    answer = in_order(
        [str(i) for i in range(count)], (-logits.mean(dim=1)).tolist(), pair_logits=logits, temperature=1.0, fixed=fixed
    )
    order = answer["order"]
    assert sorted(order) == list(range(count)) and (order[0], order[-1]) == (1, 0)
    assert count <= 3 or order.index(3) < order.index(2)
    assert answer["confidence"][0] == answer["confidence"][-1] == 1.0


@checked
@given(seeds, st.lists(st.sampled_from("abcdef"), min_size=2, max_size=15), st.booleans())
def test_an_answer_depends_on_the_texts_alone(seed: int, texts: list[str], whole: bool) -> None:
    """The logits are those of the texts, some of which are the same, and tie in many ways."""
    names = sorted(set(texts))
    of_names = random_logits(seed, len(names), whole=whole)
    numbers = [names.index(text) for text in texts]
    permutation = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed)).tolist()
    answers = []
    for way in (list(range(len(texts))), permutation):
        index = torch.tensor([numbers[i] for i in way])
        logits = of_names[index][:, index]
        scores = [-float(logits[i].double().sum()) for i in range(len(way))]
        answers.append(in_order([texts[i] for i in way], scores, pair_logits=logits))
        for text in names:
            copies = [i for i in answers[-1]["order"] if texts[way[i]] == text]
            assert copies == sorted(copies)
    if not whole:  # sums of whole numbers are exact; others may differ in their last digit, and so may the start
        assert len(texts) > EXACT_LIMIT or answers[0]["sentences"] == answers[1]["sentences"]
    else:
        assert answers[0]["sentences"] == answers[1]["sentences"]
