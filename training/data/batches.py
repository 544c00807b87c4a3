"""Batch samplers, the same for every framework: the stories of each batch, step and epoch.

They yield `Draw`s instead of indices. A draw has the epoch, which decides the shuffle of the sentences, and the number
of stories that the loss is averaged over. So a batch is the same in a worker, after resuming, under gradient
accumulation and in every framework.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch.utils.data import Sampler

from dataset_builder import UserError
from modeling_sentence_ordering import batches_by_length
from training.system.processes import Processes

# Number of batches among which stories are sorted by length: enough for little padding, few enough that batches are
# still random.
BATCHES_PER_SORT = 64


@dataclass(frozen=True, slots=True)
class Draw:
    """One story of a training batch.

    Attributes:
        index: index of the story in the data set.
        epoch: the epoch, counted from 0.
        num_stories: divisor of the loss of the batch, see `objective_loss`.
    """

    index: int
    epoch: int
    num_stories: float


class EpochBatchSampler(Sampler[list[Draw]]):
    """Batches of an epoch, the same for the same seed in every process and framework.

    Each iteration increments the epoch; `set_epoch` sets it.

    Attributes:
        epoch: epoch of the next iteration, counted from 0.
        steps_per_epoch: optimizer steps in an epoch.
        gradient_accumulation_steps: batches in an optimizer step.
    """

    gradient_accumulation_steps: int
    steps_per_epoch: int
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration."""
        self.epoch = epoch

    def _begin_epoch(self) -> int:
        """The epoch of an iteration that begins; increments `epoch`."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        return epoch

    def will_skip(self, batches: int) -> None:
        """Announces that the first batches of the next iteration will be discarded.

        A sampler that reads stories for its batches may yield empty batches instead.
        """

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.steps_per_epoch * self.gradient_accumulation_steps

    def __iter__(self) -> Iterator[list[Draw]]:
        """The batches of the next epoch."""
        epoch = self._begin_epoch()
        for step in self._steps(epoch):
            share = sum(len(batch) for batch in step) / len(step)
            for batch in step:
                yield [Draw(int(index), epoch, share) for index in batch]

    def _steps(self, epoch: int) -> list[list[np.ndarray]]:
        """Story indices of each batch of each step."""
        raise NotImplementedError


class StoryBatchSampler(EpochBatchSampler):
    """Batches of a fixed number of stories.

    Every optimizer step has `gradient_accumulation_steps` batches, including the last step of an epoch: the remaining
    stories are spread evenly over its batches, because frameworks treat an incomplete step differently. If there are
    fewer stories than batches left, they join the step before.

    Args:
        lengths: tokens of each story, `(stories,)`; or a function of the epoch that returns them, equally many in
            each epoch.
        batch_size: stories in a batch.
        gradient_accumulation_steps: batches in a step of the optimizer.
        seed: seed of the order of stories, together with the epoch.
        group_by_length: batches of similar length, themselves in random order; if false, stories in the order of the
            transformers `Trainer`.

    Raises:
        UserError: if there are fewer stories than one step has batches.
    """

    def __init__(
        self,
        lengths: np.ndarray | Callable[[int], np.ndarray],
        batch_size: int,
        *,
        gradient_accumulation_steps: int = 1,
        seed: int = 42,
        group_by_length: bool = True,
    ) -> None:
        self._lengths_in = lengths if callable(lengths) else None
        self.lengths = np.asarray(lengths(0) if callable(lengths) else lengths)
        refuse_too_few(len(self.lengths), gradient_accumulation_steps)
        self.batch_size = batch_size
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.seed = seed
        self.group_by_length = group_by_length
        per_step = batch_size * gradient_accumulation_steps
        full_steps, left_over = divmod(len(self.lengths), per_step)
        if left_over == 0:
            self._tail_steps, self._tail_size = 0, 0
        elif left_over >= gradient_accumulation_steps:
            self._tail_steps, self._tail_size = 1, left_over
        else:  # not a story for each batch of another step: it shares with the step before, or joins it
            full_steps -= 1
            self._tail_size = per_step + left_over
            self._tail_steps = 2 if self._tail_size >= 2 * gradient_accumulation_steps else 1
        self.steps_per_epoch = full_steps + self._tail_steps

    def _steps(self, epoch: int) -> list[list[np.ndarray]]:
        if self._lengths_in is not None:
            self.lengths = self._lengths_in(epoch)
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self.lengths)) if self.group_by_length else self._trainer_order(epoch)
        body, tail = np.split(order, [len(order) - self._tail_size])
        batches = self._body_batches(body, generator)
        for step in np.array_split(tail, self._tail_steps) if self._tail_steps else []:
            batches += np.array_split(self._by_length(step), self.gradient_accumulation_steps)
        size = self.gradient_accumulation_steps
        return [batches[i : i + size] for i in range(0, len(batches), size)]

    def _trainer_order(self, epoch: int) -> np.ndarray:
        """The order in which the transformers `Trainer` draws examples by default."""
        generator = torch.Generator().manual_seed(self.seed + epoch)
        return torch.randperm(len(self.lengths), generator=generator).numpy()

    def _body_batches(self, order: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
        if not self.group_by_length:
            return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        batches: list[np.ndarray] = []
        stretch = BATCHES_PER_SORT * self.batch_size
        for start in range(0, len(order), stretch):
            near = self._by_length(order[start : start + stretch])
            batches += [near[i : i + self.batch_size] for i in range(0, len(near), self.batch_size)]
        return [batches[i] for i in generator.permutation(len(batches))]

    def _by_length(self, indices: np.ndarray) -> np.ndarray:
        return indices[np.argsort(self.lengths[indices], kind="stable")] if self.group_by_length else indices


class TokenBatchSampler(EpochBatchSampler):
    """Batches of stories of similar length with at most a number of tokens, padding included.

    The sorted lengths are cut into batches once; every epoch assigns the stories of equal length anew. So all epochs
    have equally many batches, and none has more tokens than `batch_tokens`, unless a single story has more or there are
    fewer such batches than accumulation needs.

    Args:
        lengths: tokens of each story, `(stories,)`.
        batch_tokens: most tokens of a batch, padding included.
        gradient_accumulation_steps: batches in a step of the optimizer.
        seed: seed of the order of stories, together with the epoch.

    Raises:
        UserError: if there are fewer stories than one step has batches.
    """

    def __init__(
        self, lengths: np.ndarray, batch_tokens: int, *, gradient_accumulation_steps: int = 1, seed: int = 42
    ) -> None:
        refuse_too_few(len(lengths), gradient_accumulation_steps)
        self.lengths = np.asarray(lengths)
        self.batch_tokens = batch_tokens
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.seed = seed
        sizes = _in_whole_steps(_sizes_within(np.sort(self.lengths), batch_tokens), gradient_accumulation_steps)
        self._ends = np.cumsum(sizes)[:-1]
        self.steps_per_epoch = len(sizes) // gradient_accumulation_steps

    def _steps(self, epoch: int) -> list[list[np.ndarray]]:
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self.lengths))
        batches = np.split(order[np.argsort(self.lengths[order], kind="stable")], self._ends)
        size = self.gradient_accumulation_steps
        steps = generator.permutation(len(batches)).reshape(-1, size)
        return [[batches[i] for i in step] for step in steps]


class BatchShare(Sampler[list[Draw]]):
    """The batches of one process: an equal share of every optimizer step.

    Args:
        sampler: the batches of all processes; their number in a step is a multiple of the number of processes.
        processes: this process and their number.

    Attributes:
        sampler: the batches of all processes; Lightning calls its `set_epoch`.
        gradient_accumulation_steps: batches of this process in an optimizer step.
        steps_per_epoch: optimizer steps in an epoch.
        first: index of the first batch of the next iteration, among those of this process.
    """

    def __init__(self, sampler: EpochBatchSampler, processes: Processes) -> None:
        self.sampler = sampler
        self.processes = processes
        self.gradient_accumulation_steps = sampler.gradient_accumulation_steps // processes.world_size
        self.steps_per_epoch = sampler.steps_per_epoch
        self.first = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration."""
        self.sampler.set_epoch(epoch)

    def will_skip(self, batches: int) -> None:
        """See `EpochBatchSampler.will_skip`; counts batches of this process."""
        self.sampler.will_skip(batches * self.processes.world_size)

    def __len__(self) -> int:
        """Batches of this process in an epoch."""
        return self.steps_per_epoch * self.gradient_accumulation_steps

    def __iter__(self) -> Iterator[list[Draw]]:
        """The batches of this process in the next epoch, from `first` on."""
        size = self.processes.world_size
        if self.first:
            self.will_skip(self.first)
        return islice(self.sampler, self.first * size + self.processes.rank, None, size)


def refuse_too_few(stories: int, gradient_accumulation_steps: int) -> None:
    """Raises UserError for fewer stories than a step has batches."""
    if stories < gradient_accumulation_steps:
        raise UserError(
            f"{stories} training stories are too few for the {gradient_accumulation_steps} batches of a step of "
            "the optimizer"
        )


def _sizes_within(ascending: np.ndarray, batch_tokens: int) -> list[int]:
    """The size of each batch, filled from the longest story down."""
    sizes: list[int] = []
    left = len(ascending)
    while left:
        size = min(left, max(1, batch_tokens // int(ascending[left - 1])))
        sizes.append(size)
        left -= size
    return sizes[::-1]


def _in_whole_steps(sizes: list[int], batches_in_step: int) -> list[int]:
    """Splits the largest batches until their number is a multiple of `batches_in_step`.

    If all batches have a single story, some of the shortest are merged instead.
    """
    sizes = list(sizes)
    missing, too_many = -len(sizes) % batches_in_step, len(sizes) % batches_in_step
    if missing <= sum(sizes) - len(sizes):
        for _ in range(missing):
            largest = int(np.argmax(sizes))
            sizes[largest : largest + 1] = [sizes[largest] // 2, sizes[largest] - sizes[largest] // 2]
        return sizes
    return [
        first + second for first, second in zip(sizes[: 2 * too_many : 2], sizes[1 : 2 * too_many : 2], strict=True)
    ] + sizes[2 * too_many :]


def evaluation_batches(lengths: np.ndarray | Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches of all stories, longest first, so that running out of memory shows at once."""
    return batches_by_length(np.asarray(lengths).tolist(), batch_size=batch_size)


def evaluation_share(
    lengths: np.ndarray | Sequence[int], batch_size: int, processes: Processes
) -> tuple[list[list[int]], int]:
    """One process's share of `evaluation_batches`: every n-th batch.

    Returns:
        The batches, equally many for each process, since a sharded model needs all processes in each forward pass; and
        how many of them count. The rest are duplicates, whose outputs must be ignored.
    """
    batches = evaluation_batches(lengths, batch_size)
    own = batches[processes.rank :: processes.world_size]
    rounds = -(-len(batches) // processes.world_size)
    return own + batches[: rounds - len(own)], len(own)
