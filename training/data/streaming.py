"""Batches of streamed stories: the same for the same seed in any process, also when an epoch is resumed.

An epoch with A batches in an optimizer step, those of all processes included:

1. The files of the stream and the row groups in each are put in random order (`StoryStream.order`), and cut into A
   *lanes* of equally many stories, up to one. Each step has one batch of each lane. A lane is read by one process
   alone: two processes with one batch each train on the same stories as one process with two batches.
2. Each lane has a share of the shuffle buffer: that number of stories is read, shuffled and trained on before the
   next ones are read.
3. The shuffled stories are cut into stretches of 64 batches. Workers tokenize a stretch; sorted by length, it is cut
   into batches, which are put in random order. The number of workers does not change the batches.

The order of an epoch is known before it is read. So a resumed run skips the stories before its checkpoint without
reading them, except the beginning of one buffer and one row group in each lane.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from dataset_builder import Story, StoryStream, story_key
from modeling_sentence_ordering import StoryTokenizer
from training.system.processes import Processes

from .batches import BATCHES_PER_SORT, Draw, EpochBatchSampler, refuse_too_few
from .passages import PassageStream, StreamedPassage, fitting
from .tokenizing import tokenize_stories

Numbered = tuple[int, Story | StreamedPassage]


class StreamedStories:
    """Training stories that are read while they are trained on.

    Args:
        stream: the stories.
        story_tokenizer: turns sentences into ids.

    Attributes:
        passages: the passages that are drawn of them, see `in_passages`; None to draw whole stories.
    """

    def __init__(self, stream: StoryStream, story_tokenizer: StoryTokenizer) -> None:
        self.stream = stream
        self.story_tokenizer = story_tokenizer
        self.passages: PassageStream | None = None
        self._num_sentences: np.ndarray | None = None

    def __len__(self) -> int:
        """Stories in an epoch, or passages."""
        return len(self.stream if self.passages is None else self.passages)

    def in_passages(self, sizes: Sequence[int]) -> StreamedStories:
        """These stories, read in passages with this number of sentences.

        The first call reads all stories, to count their sentences: the number of passages must be known before.
        """
        if self._num_sentences is None:
            counts = (len(story.sentences) for _, story in self.stream.read(self.stream.order()))
            self._num_sentences = np.fromiter(counts, np.int32, len(self.stream))
        stories = StreamedStories(self.stream, self.story_tokenizer)
        stories.passages = PassageStream(self.stream, self._num_sentences, sizes)
        return stories

    def key_and_ids(self, draw: Draw) -> tuple[str, list[list[int]]]:
        """The `story_key` of a story that was drawn, and the ids of its sentences in true order."""
        assert isinstance(draw, StreamedDraw)
        return draw.story.key, draw.story.sentence_ids

    def storyid(self, draw: Draw) -> str:
        """The id of a story that was drawn."""
        assert isinstance(draw, StreamedDraw)
        return draw.story.storyid


@dataclass(frozen=True, slots=True)
class StreamedStory:
    """A tokenized story of a stream.

    Attributes:
        row: the story's number in the order of the files.
        storyid: the story's id, for messages.
        key: see `story_key`.
        sentence_ids: ids of each sentence, in true order.
    """

    row: int
    storyid: str
    key: str
    sentence_ids: list[list[int]]


@dataclass(frozen=True, slots=True)
class StreamedDraw(Draw):
    """A draw with its story, which cannot be read by index."""

    story: StreamedStory


class StreamBatchSampler(EpochBatchSampler):
    """Batches of a fixed number of streamed stories; see the module's docstring.

    Every step has `gradient_accumulation_steps` batches, including the last step of an epoch, whose batches have the
    remaining stories of each lane. If some lanes have none left, the last two batches of each lane share its stories.

    Batches of other processes are empty and not read (see `BatchShare`), as are those that `will_skip` announced.

    Args:
        stories: the stories.
        batch_size: stories in a batch.
        gradient_accumulation_steps: batches in an optimizer step, those of all processes included.
        seed: seed of the order of stories, together with the epoch.
        buffer_size: stories in the shuffle buffers of all processes together.
        group_by_length: batches of similar length, themselves in random order.
        processes: this process and their number.
        num_workers: processes that tokenize.

    Raises:
        UserError: if there are fewer stories than one step has batches.
    """

    def __init__(
        self,
        stories: StreamedStories,
        batch_size: int,
        *,
        gradient_accumulation_steps: int = 1,
        seed: int = 42,
        buffer_size: int = 10_000,
        group_by_length: bool = True,
        processes: Processes = Processes(),  # noqa: B008 - frozen
        num_workers: int = 0,
    ) -> None:
        lanes = gradient_accumulation_steps
        refuse_too_few(len(stories), lanes)
        self.stories = stories
        self.batch_size = batch_size
        self.gradient_accumulation_steps = lanes
        self.seed = seed
        self.group_by_length = group_by_length
        self.num_workers = num_workers
        self._own_lanes = range(processes.rank, lanes, processes.world_size)
        self._bounds = [len(stories) * lane // lanes for lane in range(lanes + 1)]
        shortest, some_have_more = divmod(len(stories), lanes)
        self._full_steps, left_over = divmod(shortest, batch_size)
        self._tail_steps = int(left_over > 0)
        if not left_over and some_have_more:
            self._full_steps -= 1
            self._tail_steps = min(2, batch_size)
        self.steps_per_epoch = self._full_steps + self._tail_steps
        self._block_steps = max(1, buffer_size // lanes // batch_size)
        self._skipped = 0

    def will_skip(self, batches: int) -> None:
        """The first batches of the next iteration are empty and not read."""
        self._skipped = batches

    def __iter__(self) -> Iterator[list[Draw]]:
        """The batches of the next epoch."""
        epoch, skipped, self._skipped = self._begin_epoch(), self._skipped, 0
        lanes = self.gradient_accumulation_steps
        yield from ([] for _ in range(skipped))
        blocks = self._blocks(skipped // lanes)
        tokenized = self._tokenized(self._read(epoch, blocks))
        for first, steps in (stretch for block in blocks for stretch in block.stretches):
            batches = {lane: self._batches(next(tokenized), epoch, lane, first, steps) for lane in self._own_lanes}
            for batch in range(max(first * lanes, skipped), (first + steps) * lanes):
                step, lane = divmod(batch, lanes)
                drawn = batches[lane][step - first] if lane in batches else []
                share = self._mean_batch(step)
                yield [StreamedDraw(story.row, epoch, share, story) for story in drawn]

    def stories_in(self, steps: int) -> int:
        """Number of different stories in the first steps of a run."""
        in_epoch = min(steps, self.steps_per_epoch)
        batches = min(in_epoch, self._full_steps) * self.batch_size + sum(
            self._mean_batch(step) for step in range(self._full_steps, in_epoch)
        )
        return round(batches * self.gradient_accumulation_steps)

    def stories_of_steps(self, steps: int) -> Iterator[Story | StreamedPassage]:
        """The stories in the first steps of a run, each once. They are read again; few of them are tokenized."""
        blocks = self._blocks(0)
        reading = self._read(0, blocks)
        for first, count in (stretch for block in blocks for stretch in block.stretches):
            if first >= steps:
                return
            for lane in self._own_lanes:
                stories = next(reading)
                if first + count > steps:
                    tokenized = _Tokenizing(self.stories.story_tokenizer).__getitems__(stories)
                    batches = self._batches(tokenized, 0, lane, first, count)[: steps - first]
                    rows = {story.row for batch in batches for story in batch}
                    stories = [(row, story) for row, story in stories if row in rows]
                yield from (story for _, story in stories)

    def _blocks(self, begin: int) -> list[_Block]:
        """The blocks of an epoch from the step `begin` on, without the stretches before it."""
        blocks = []
        for first in range(0, self._full_steps, self._block_steps):
            end = min(first + self._block_steps, self._full_steps)
            stretches = [(start, min(BATCHES_PER_SORT, end - start)) for start in range(first, end, BATCHES_PER_SORT)]
            blocks.append(_Block(first, stretches, (end - first) * self.batch_size))
        if self._tail_steps:
            blocks.append(_Block(self._full_steps, [(self._full_steps, self._tail_steps)], None))
        for block in blocks:
            block.stretches = [(start, steps) for start, steps in block.stretches if start + steps > begin]
        return [block for block in blocks if block.stretches]

    def _read(self, epoch: int, blocks: list[_Block]) -> Iterator[list[Numbered]]:
        """The stories of each stretch, for each lane of this process."""
        if not blocks:
            return
        stream: Any = self.stories.passages or self.stories.stream
        already = blocks[0].first * self.batch_size
        order = stream.order(self.seed, epoch)
        readers = [
            (lane, stream.read(order, self._bounds[lane] + already, self._bounds[lane + 1])) for lane in self._own_lanes
        ]
        for block in blocks:
            shuffled = []
            for lane, reader in readers:
                stories = list(islice(reader, block.stories))
                permutation = np.random.default_rng([self.seed, epoch, lane, block.first]).permutation(len(stories))
                shuffled.append([stories[index] for index in permutation])
            for start, steps in block.stretches:
                first = (start - block.first) * self.batch_size
                last = None if block.stories is None else first + steps * self.batch_size
                for stories in shuffled:
                    yield stories[first:last]

    def _tokenized(self, stretches: Iterator[list[Numbered]]) -> Iterator[list[StreamedStory]]:
        """The same stretches tokenized; each worker prefetches two."""
        loader = DataLoader(
            _Tokenizing(self.stories.story_tokenizer),
            batch_sampler=stretches,
            collate_fn=_unchanged,
            num_workers=self.num_workers,
            generator=torch.Generator().manual_seed(self.seed),  # see `training_loader`
        )
        return iter(loader)

    def _batches(
        self, stories: list[StreamedStory], epoch: int, lane: int, first: int, steps: int
    ) -> list[list[StreamedStory]]:
        """The batches of a stretch of one lane, one for each step."""
        if first == self._full_steps:
            return [[stories[index] for index in part] for part in np.array_split(np.arange(len(stories)), steps)]
        order = np.arange(steps)
        if self.group_by_length:
            length = self.stories.story_tokenizer.length
            stories = sorted(stories, key=lambda story: length(story.sentence_ids))
            order = np.random.default_rng([self.seed, epoch, lane, first, 1]).permutation(steps)
        return [stories[batch * self.batch_size : (batch + 1) * self.batch_size] for batch in order]

    def _mean_batch(self, step: int) -> float:
        """Mean number of stories in the batches of a step, those of other processes included."""
        if step < self._full_steps:
            return float(self.batch_size)
        counts = np.diff(self._bounds) - self._full_steps * self.batch_size
        sizes = counts // self._tail_steps + (step - self._full_steps < counts % self._tail_steps)
        return float(sizes.sum() / self.gradient_accumulation_steps)


@dataclass
class _Block:
    """Steps whose stories each lane reads and shuffles together.

    Attributes:
        first: the first step.
        stretches: first step and number of steps of each stretch.
        stories: number of stories of each lane; None for all remaining ones.
    """

    first: int
    stretches: list[tuple[int, int]]
    stories: int | None


class _Tokenizing(TorchDataset[StreamedStory]):
    """Tokenizes the stories of a stretch, in a worker."""

    def __init__(self, story_tokenizer: StoryTokenizer) -> None:
        self._story_tokenizer = story_tokenizer

    def __getitems__(self, stories: list[Numbered]) -> list[StreamedStory]:
        ids = tokenize_stories(self._story_tokenizer, [story.sentences for _, story in stories])
        return [self._tokenized(row, story, own) for (row, story), own in zip(stories, ids, strict=True)]

    def _tokenized(self, row: int, story: Story | StreamedPassage, ids: list[list[int]]) -> StreamedStory:
        if isinstance(story, Story):
            return StreamedStory(row, story.storyid, story_key(story.storyid, story.sentences), ids)
        room, tokens = self._story_tokenizer.room, [len(sentence) + 1 for sentence in ids]
        start, stop = fitting(tokens, room, story.key, story.seed, story.epoch)
        if stop - start == len(ids):
            return StreamedStory(row, story.storyid, story.key, ids)
        fitted = self._story_tokenizer.shortened(ids[start:stop])[0]
        return StreamedStory(row, story.storyid, f"{story.key}/{start}-{stop}", fitted)


def _unchanged(stories: list[StreamedStory]) -> list[StreamedStory]:
    return stories
