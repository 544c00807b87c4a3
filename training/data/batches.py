"""Which stories make up which batch, in which step of which epoch: decided here for every framework.

A batch sampler yields `Draw`s instead of bare indices. A draw names the epoch, by which the story's sentences are
shuffled, and the number of stories that its loss is averaged over, so that a batch means the same wherever it is
made: in a worker, after resuming, under accumulation, in whichever framework.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch.utils.data import Sampler

from dataset_builder import UserError
from modeling_sentence_ordering import batches_by_length
from training.system.processes import Processes

# Batches of similar length are cut from stretches of so many batches: long enough that padding nearly vanishes,
# short enough that a batch still holds a random choice of stories.
STRETCH = 64


@dataclass(frozen=True, slots=True)
class Draw:
    """One story as it is drawn in training.

    Attributes:
        index: which story of the data set.
        epoch: the epoch, counted from 0.
        num_stories: what the loss of the whole batch is divided by, see `objective_loss`.
    """

    index: int
    epoch: int
    num_stories: float


class EpochBatchSampler(Sampler[list[Draw]]):
    """Batches of one epoch after the other; the same for the same seed in every process and framework.

    Every iteration is a new epoch. `set_epoch` says which one the next iteration is.

    Attributes:
        epoch: which epoch the next iteration is, counted from 0.
        steps_per_epoch: steps of the optimizer in every epoch.
        gradient_accumulation_steps: batches in a step of the optimizer.
    """

    gradient_accumulation_steps: int
    steps_per_epoch: int
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is."""
        self.epoch = epoch

    def _begin_epoch(self) -> int:
        """The epoch of an iteration that begins, after which it is the turn of the one behind it."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        return epoch

    def will_skip(self, batches: int) -> None:
        """Says that the next iteration is only asked for its first so many batches to get beyond them.

        A sampler for which batches are work may then yield empty ones in their place.
        """

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.steps_per_epoch * self.gradient_accumulation_steps

    def __iter__(self) -> Iterator[list[Draw]]:
        """The batches of the next epoch, from its beginning."""
        epoch = self._begin_epoch()
        for step in self._steps(epoch):
            share = sum(len(batch) for batch in step) / len(step)
            for batch in step:
                yield [Draw(int(index), epoch, share) for index in batch]

    def _steps(self, epoch: int) -> list[list[np.ndarray]]:
        """Steps of batches of story indices."""
        raise NotImplementedError


class StoryBatchSampler(EpochBatchSampler):
    """Batches of so many stories.

    Every optimizer step has exactly `gradient_accumulation_steps` batches, the last one of an epoch too: stories
    that are left over are spread evenly over its batches, so that no framework's treatment of an incomplete step
    matters. Where too few are left for that, they join the step before, and the two share evenly.

    Args:
        lengths: tokens of each story, `(stories,)`.
        batch_size: stories in a batch.
        gradient_accumulation_steps: batches in a step of the optimizer.
        seed: decides the order of stories, together with the epoch.
        group_by_length: batches of similar length, themselves in random order; if false, stories in the order of the
            transformers `Trainer`.

    Raises:
        UserError: if there are fewer stories than one step has batches.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        *,
        gradient_accumulation_steps: int = 1,
        seed: int = 42,
        group_by_length: bool = True,
    ) -> None:
        _refuse_too_few(lengths, gradient_accumulation_steps)
        self.lengths = np.asarray(lengths)
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
        """Steps of batches of story indices."""
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self.lengths)) if self.group_by_length else self._trainer_order(epoch)
        body, tail = np.split(order, [len(order) - self._tail_size])
        batches = self._body_batches(body, generator)
        for step in np.array_split(tail, self._tail_steps) if self._tail_steps else []:
            batches += np.array_split(self._by_length(step), self.gradient_accumulation_steps)
        size = self.gradient_accumulation_steps
        return [batches[i : i + size] for i in range(0, len(batches), size)]

    def _trainer_order(self, epoch: int) -> np.ndarray:
        """The order in which the transformers `Trainer` draws examples by default, for the same seed."""
        generator = torch.Generator().manual_seed(self.seed + epoch)
        return torch.randperm(len(self.lengths), generator=generator).numpy()

    def _body_batches(self, order: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
        if not self.group_by_length:
            return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        batches: list[np.ndarray] = []
        stretch = STRETCH * self.batch_size
        for start in range(0, len(order), stretch):
            near = self._by_length(order[start : start + stretch])
            batches += [near[i : i + self.batch_size] for i in range(0, len(near), self.batch_size)]
        return [batches[i] for i in generator.permutation(len(batches))]

    def _by_length(self, indices: np.ndarray) -> np.ndarray:
        return indices[np.argsort(self.lengths[indices], kind="stable")] if self.group_by_length else indices


class TokenBatchSampler(EpochBatchSampler):
    """Batches of as many stories of similar length as so many tokens are enough for, padding included.

    Sorted by length, the stories are cut once and for all into places of a batch; every epoch deals stories of equal
    length anew to the places that there are for them. So no batch of any epoch has more tokens than was asked for
    (but for a story that alone has more, and where accumulation leaves no choice), and all epochs have equally many.

    Args:
        lengths: tokens of each story, `(stories,)`.
        batch_tokens: tokens of a batch, its padding included.
        gradient_accumulation_steps: batches in a step of the optimizer.
        seed: decides which story is where, together with the epoch.

    Raises:
        UserError: if there are fewer stories than one step has batches.
    """

    def __init__(
        self, lengths: np.ndarray, batch_tokens: int, *, gradient_accumulation_steps: int = 1, seed: int = 42
    ) -> None:
        _refuse_too_few(lengths, gradient_accumulation_steps)
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
        places = generator.permutation(len(batches)).reshape(-1, size)
        return [[batches[i] for i in step] for step in places]


class BatchShare(Sampler[list[Draw]]):
    """One process's share of the batches, from a place in the epoch on.

    The batches of a step of the optimizer follow each other, as many as all processes together have in it: each
    takes its share of every step.

    Args:
        sampler: all batches; those of a step are as many for each process as for every other.
        processes: whose share it is.

    Attributes:
        sampler: all batches; Lightning looks here for `set_epoch`.
        gradient_accumulation_steps: batches of this process in a step of the optimizer.
        steps_per_epoch: steps of the optimizer in every epoch.
        first: where the next iteration begins, in batches of this process.
    """

    def __init__(self, sampler: EpochBatchSampler, processes: Processes) -> None:
        self.sampler = sampler
        self.processes = processes
        self.gradient_accumulation_steps = sampler.gradient_accumulation_steps // processes.world_size
        self.steps_per_epoch = sampler.steps_per_epoch
        self.first = 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is."""
        self.sampler.set_epoch(epoch)

    def will_skip(self, batches: int) -> None:
        """As `EpochBatchSampler.will_skip`, of so many batches of this process."""
        self.sampler.will_skip(batches * self.processes.world_size)

    def __len__(self) -> int:
        """This process's batches in an epoch."""
        return self.steps_per_epoch * self.gradient_accumulation_steps

    def __iter__(self) -> Iterator[list[Draw]]:
        """This process's batches of the next epoch, from the `first` on."""
        size = self.processes.world_size
        if self.first:
            self.will_skip(self.first)
        return islice(self.sampler, self.first * size + self.processes.rank, None, size)


def _refuse_too_few(lengths: np.ndarray, gradient_accumulation_steps: int) -> None:
    if len(lengths) < gradient_accumulation_steps:
        raise UserError(
            f"{len(lengths)} training stories are too few for the {gradient_accumulation_steps} batches of a step of "
            "the optimizer"
        )


def _sizes_within(ascending: np.ndarray, batch_tokens: int) -> list[int]:
    """How many stories each batch has, cut from the longest down: what is left over in the end are short ones."""
    sizes: list[int] = []
    left = len(ascending)
    while left:
        size = min(left, max(1, batch_tokens // int(ascending[left - 1])))
        sizes.append(size)
        left -= size
    return sizes[::-1]


def _in_whole_steps(sizes: list[int], batches_in_step: int) -> list[int]:
    """The sizes of batches with some of them halved until there is a whole number of steps.

    Where every story has a batch of its own and none can be halved, some of the shortest share one.
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
    """Every story once, longest first, so that a batch that does not fit into memory is met at once."""
    return batches_by_length(np.asarray(lengths).tolist(), batch_size=batch_size)


def evaluation_share(
    lengths: np.ndarray | Sequence[int], batch_size: int, processes: Processes
) -> tuple[list[list[int]], int]:
    """One process's share of `evaluation_batches`, in turn, so that the batches are those of one process.

    Returns:
        As many batches for each process as for every other, since models that are shared out, too, are computed by all
        at once; and how many of them count. What is beyond that has been met before, and is not to be looked at.
    """
    batches = evaluation_batches(lengths, batch_size)
    own = batches[processes.rank :: processes.world_size]
    rounds = -(-len(batches) // processes.world_size)
    return own + batches[: rounds - len(own)], len(own)
