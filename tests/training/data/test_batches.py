"""Batches: every story once an epoch, whole steps, the same ones for the same seed, and little padding."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import numpy as np
import pytest
from accelerate.data_loader import SeedableRandomSampler
from hypothesis import assume, given
from hypothesis import strategies as st

from training.data.batches import (
    BatchShare,
    Draw,
    EpochBatchSampler,
    StoryBatchSampler,
    TokenBatchSampler,
    evaluation_batches,
    evaluation_share,
)
from training.system.processes import Processes

Step = list[list[Draw]]


@st.composite
def samplers(draw: st.DrawFn, **fixed: Any) -> StoryBatchSampler:
    """Any number of stories, of any length, in batches and steps of any size."""
    batches_in_step = draw(st.integers(1, 6))
    options = {
        "gradient_accumulation_steps": batches_in_step,
        "seed": draw(st.integers(0, 2**32 - 1)),
        "group_by_length": draw(st.booleans()),
    }
    lengths = draw(st.lists(st.integers(2, 500), min_size=batches_in_step, max_size=150))
    return StoryBatchSampler(np.array(lengths), draw(st.integers(1, 9)), **{**options, **fixed})


@st.composite
def token_samplers(draw: st.DrawFn) -> TokenBatchSampler:
    """Any number of stories, of any length, in batches of any number of tokens and steps of any size."""
    batches_in_step = draw(st.integers(1, 6))
    lengths = draw(st.lists(st.integers(2, 500), min_size=batches_in_step, max_size=150))
    return TokenBatchSampler(
        np.array(lengths),
        draw(st.integers(1, 4000)),
        gradient_accumulation_steps=batches_in_step,
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def steps_of(sampler: EpochBatchSampler, epoch: int = 0) -> list[Step]:
    sampler.set_epoch(epoch)
    batches, size = list(sampler), sampler.gradient_accumulation_steps
    assert len(batches) % size == 0
    return [batches[start : start + size] for start in range(0, len(batches), size)]


@given(samplers() | token_samplers(), st.integers(0, 100))
def test_every_story_comes_exactly_once_in_an_epoch(sampler: StoryBatchSampler | TokenBatchSampler, epoch: int) -> None:
    draws = [draw for step in steps_of(sampler, epoch) for batch in step for draw in batch]
    assert sorted(draw.index for draw in draws) == list(range(len(sampler.lengths)))
    assert {draw.epoch for draw in draws} == {epoch}
    assert all(type(draw.index) is int for draw in draws)


@given(samplers() | token_samplers())
def test_there_are_as_many_batches_and_steps_as_announced(sampler: EpochBatchSampler) -> None:
    assert len(steps_of(sampler)) == sampler.steps_per_epoch
    assert len(sampler) == len(list(sampler))


@given(samplers())
def test_steps_are_whole_and_no_batch_is_empty_or_much_larger_than_asked_for(sampler: StoryBatchSampler) -> None:
    steps = steps_of(sampler)
    sizes = [[len(batch) for batch in step] for step in steps]
    assert all(min(step) > 0 for step in sizes)
    # Only where a batch is one story may left over ones have to join a step: there is no room beside them.
    assert max(map(max, sizes)) <= max(sampler.batch_size, 2 if sampler.batch_size == 1 else 0)
    full = sampler.batch_size * sampler.gradient_accumulation_steps
    # All steps are full but the last or, where too little was left for a step of its own, the last two.
    assert all(sum(step) == full for step in sizes[:-2])
    assert all(max(step) - min(step) <= 1 for step in sizes)


@given(samplers() | token_samplers())
def test_a_batch_is_weighted_by_its_share_of_the_stories_of_its_step(sampler: EpochBatchSampler) -> None:
    """A batch's loss is a sum divided by `num_stories`, and k batches are averaged: the step's sum over its stories."""
    for step in steps_of(sampler):
        stories = sum(len(batch) for batch in step)
        weights = {draw.num_stories for batch in step for draw in batch}
        assert len(weights) == 1
        assert weights.pop() * len(step) == pytest.approx(stories)
        assert sum(batch[0].num_stories for batch in step) == pytest.approx(stories)


@given(samplers(), st.integers(0, 50))
def test_the_same_seed_gives_the_same_batches(sampler: StoryBatchSampler, epoch: int) -> None:
    again = StoryBatchSampler(
        sampler.lengths.copy(),
        sampler.batch_size,
        gradient_accumulation_steps=sampler.gradient_accumulation_steps,
        seed=sampler.seed,
        group_by_length=sampler.group_by_length,
    )
    steps_of(again, epoch + 1)  # whatever was asked for before
    np.random.seed(epoch)
    assert steps_of(again, epoch) == steps_of(sampler, epoch)


def order_of(sampler: StoryBatchSampler, epoch: int) -> list[int]:
    sampler.set_epoch(epoch)
    return [draw.index for batch in sampler for draw in batch]


@pytest.mark.parametrize("group_by_length", [True, False])
def test_each_epoch_and_each_seed_has_an_order_of_its_own(group_by_length: bool) -> None:
    lengths = np.random.default_rng(0).integers(20, 90, 200)
    samplers = [StoryBatchSampler(lengths, 8, seed=seed, group_by_length=group_by_length) for seed in (1, 9)]
    orders = [order_of(sampler, epoch) for sampler in samplers for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == len(orders)
    for order in orders:
        assert order != sorted(order)
        assert abs(np.corrcoef(order, range(200))[0, 1]) < 0.3


def test_random_order_is_that_of_a_plain_trainer() -> None:
    """Accelerate puts this sampler where `Trainer` asks for a random one, with the seed of the run."""
    sampler = StoryBatchSampler(np.full(200, 30), 8, seed=3, group_by_length=False)
    of_trainer = SeedableRandomSampler(range(200), data_seed=3)
    for epoch in range(3):
        assert order_of(sampler, epoch) == list(of_trainer)


def test_stories_of_a_batch_are_of_similar_length_and_the_batches_in_random_order() -> None:
    """On the lengths of ROCStories (57 tokens on average, 90 at most) padding all but vanishes."""
    lengths = np.random.default_rng(0).normal(57, 11, 20_000).clip(20, 90).astype(int)

    def padding(grouped: bool) -> float:
        sampler = StoryBatchSampler(lengths, 16, group_by_length=grouped)
        batches = [lengths[[draw.index for draw in batch]] for batch in sampler]
        return 1 - lengths.sum() / sum(batch.max() * len(batch) for batch in batches)

    assert padding(grouped=False) > 0.2
    assert padding(grouped=True) < 0.02
    sampler = StoryBatchSampler(lengths, 16)
    longest = [lengths[[draw.index for draw in batch]].max() for batch in sampler]
    assert abs(np.corrcoef(longest[:-1], longest[1:])[0, 1]) < 0.1


def test_stories_in_a_batch_differ_from_epoch_to_epoch_though_they_are_grouped_by_length() -> None:
    lengths = np.random.default_rng(0).integers(20, 90, 5_000)
    sampler = StoryBatchSampler(lengths, 16)
    together = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        together.append(
            {frozenset((a.index, b.index)) for batch in sampler for a in batch for b in batch if a.index < b.index}
        )
    assert len(together[0] & together[1]) < 0.2 * len(together[0])


@given(samplers(group_by_length=False), st.integers(2, 5))
def test_in_random_order_accumulated_steps_hold_the_stories_of_one_large_batch(
    sampler: StoryBatchSampler, factor: int
) -> None:
    """What makes accumulation comparable: 4 batches of 4 are the stories of 1 batch of 16, step by step."""
    size, stories = sampler.batch_size, len(sampler.lengths)
    assume(stories % (size * factor) == 0 or stories % (size * factor) >= factor)
    assume(stories >= factor)
    small, large = (
        StoryBatchSampler(sampler.lengths, batch, gradient_accumulation_steps=steps, group_by_length=False)
        for batch, steps in ((size, factor), (size * factor, 1))
    )
    contents = [
        [{draw.index for batch in step for draw in batch} for step in steps_of(some)] for some in (small, large)
    ]
    assert contents[0] == contents[1]


@pytest.mark.parametrize(("stories", "expected"), [(32, [16, 16]), (38, [16, 16, 6]), (34, [16, 9, 9]), (4, [4])])
def test_what_is_left_over_makes_a_step_of_its_own_or_shares_with_the_one_before(
    stories: int, expected: list[int]
) -> None:
    sampler = StoryBatchSampler(np.full(stories, 50), 4, gradient_accumulation_steps=4)
    assert [sum(map(len, step)) for step in steps_of(sampler)] == expected


def test_fewer_stories_than_a_step_has_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="3 training stories are too few for the 4 batches of a step"):
        StoryBatchSampler(np.full(3, 50), 4, gradient_accumulation_steps=4)


@given(token_samplers(), st.integers(0, 100))
def test_no_batch_has_more_tokens_than_asked_for(sampler: TokenBatchSampler, epoch: int) -> None:
    sampler.set_epoch(epoch)
    batches = [sampler.lengths[[draw.index for draw in batch]] for batch in sampler]
    too_many = [own for own in batches if own.max() * len(own) > sampler.batch_tokens and len(own) > 1]
    # Where nearly every story has a batch of its own, whole steps may be had only by putting some of them together.
    assert len(too_many) < sampler.gradient_accumulation_steps
    assert not too_many or len(sampler.lengths) - len(batches) < 2 * sampler.gradient_accumulation_steps


def test_batches_by_tokens_are_full_hardly_padded_and_of_other_stories_every_epoch() -> None:
    lengths = np.random.default_rng(0).normal(57, 11, 8_000).clip(20, 90).astype(int)
    sampler = TokenBatchSampler(lengths, 2048)
    pairs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        batches = [[draw.index for draw in batch] for batch in sampler]
        padded = np.array([lengths[batch].max() * len(batch) for batch in batches])
        assert lengths.sum() > 0.98 * padded.sum()
        assert padded.mean() > 0.95 * 2048
        longest = [lengths[batch].max() for batch in batches]
        assert abs(np.corrcoef(longest[:-1], longest[1:])[0, 1]) < 0.1
        pairs.append({frozenset((a, b)) for batch in batches for a in batch for b in batch if a < b})
    assert len(pairs[0] & pairs[1]) < 0.25 * len(pairs[0])


@given(st.lists(st.integers(0, 500), max_size=60), st.integers(1, 9))
def test_evaluation_batches_hold_every_story_once_longest_first(lengths: list[int], batch_size: int) -> None:
    batches = evaluation_batches(np.array(lengths), batch_size)
    flat = [index for batch in batches for index in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[index] for index in flat] == sorted(lengths, reverse=True)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert all(batches)


@given(
    stories=st.integers(12, 60),
    batch_size=st.integers(1, 5),
    accumulate=st.integers(1, 3),
    world_size=st.integers(1, 4),
    first=st.integers(0, 3),
)
def test_the_shares_of_the_processes_are_the_batches_of_one(
    stories: int, batch_size: int, accumulate: int, world_size: int, first: int
) -> None:
    """In each step of the optimizer, and from any place on."""
    sampler = StoryBatchSampler(
        np.arange(stories) % 7 + 3, batch_size, gradient_accumulation_steps=accumulate * world_size, seed=1
    )
    shares = [BatchShare(sampler, Processes(rank, world_size)) for rank in range(world_size)]
    first = min(first, len(shares[0]))
    for share in shares:
        share.first = first
    batches = []
    for share in shares:
        share.set_epoch(2)
        batches.append(list(share))
    assert {len(own) for own in batches} == {len(shares[0]) - first}
    together = [batch for turn in zip(*batches, strict=True) for batch in turn]
    sampler.set_epoch(2)
    assert together == list(sampler)[first * world_size :]


@given(stories=st.integers(1, 80), batch_size=st.integers(1, 9), world_size=st.integers(1, 5))
def test_no_process_evaluates_longer_than_another_and_every_batch_of_one_process_is_evaluated_once(
    stories: int, batch_size: int, world_size: int
) -> None:
    lengths = np.arange(stories) * 3 % 11
    shares = [evaluation_share(lengths, batch_size, Processes(rank, world_size)) for rank in range(world_size)]
    assert len({len(batches) for batches, _ in shares}) == 1
    counting = [batches[:count] for batches, count in shares]
    in_turn = [batch for turn in zip_longest(*counting) for batch in turn if batch is not None]
    assert in_turn == evaluation_batches(lengths, batch_size)
    assert all(set(map(tuple, batches)) <= set(map(tuple, in_turn)) for batches, _ in shares)
