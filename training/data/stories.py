"""From stories to batches: tokenized once, shuffled when they are drawn, padded by the model's own code."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from datasets.fingerprint import Hasher
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from dataset_builder import shuffled_labels, stories_of_rows
from modeling_sentence_ordering import StoryTokenizer
from modeling_sentence_ordering.arrangement_sentence_ordering import arrangement
from modeling_sentence_ordering.objectives_sentence_ordering import PADDING
from training.recipe.recipe import Recipe
from training.system.processes import Processes

from .batches import BatchShare, Draw, EpochBatchSampler, StoryBatchSampler, TokenBatchSampler, evaluation_share
from .streaming import StreamBatchSampler, StreamedDraw, StreamedStories
from .token_cache import cached_map

_AT_A_TIME = 1000  # stories


class TokenizedStories:
    """The sentences of many stories as ids, in true order, where they lie in the file that `datasets` has mapped.

    Args:
        stories: rows of one split in any layout that `stories_of_rows` takes. Rows with `labels`, as the loading
            script gives them, are put in order by these.
        story_tokenizer: turns sentences into ids.
        data_seed: decides the order among identical sentences of a story that is evaluated.
    """

    def __init__(self, stories: Any, story_tokenizer: StoryTokenizer, data_seed: int = 42) -> None:
        self.stories = stories_of_rows(stories)
        self.story_tokenizer = story_tokenizer
        self.data_seed = data_seed
        column = _tokenized(self.stories, story_tokenizer).data.column("sentence_ids")
        self._parts = [_MappedStories.of(part) for part in column.chunks]
        self._ends = np.cumsum([len(part.story_starts) - 1 for part in self._parts], dtype=np.int64)

    def __len__(self) -> int:
        """Stories."""
        return len(self.stories)

    @property
    def num_sentences(self) -> np.ndarray:
        """Sentences of each story, `(stories,)` int."""
        return _joined([np.diff(part.story_starts) for part in self._parts])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each story as the encoder reads it, `(stories,)` int."""
        tokenizer = self.story_tokenizer
        tokens = _joined([np.diff(part.sentence_starts[part.story_starts]) for part in self._parts])
        lengths = tokens + self.num_sentences + (tokenizer.separator_token_id is not None)
        return lengths if tokenizer.max_input_tokens is None else np.minimum(lengths, tokenizer.max_input_tokens)

    @property
    def fits(self) -> np.ndarray:
        """Whether the encoder is shown each story in one piece, `(stories,)` bool; see `StoryTokenizer.fits`."""
        tokens = _joined([np.diff(part.sentence_starts[part.story_starts]) for part in self._parts])
        return np.asarray(tokens + self.num_sentences <= self.story_tokenizer.room)

    def sentence_ids(self, index: int) -> list[list[int]]:
        """The ids of each sentence of a story, in true order."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        part = self._parts[number]
        place = index - (int(self._ends[number - 1]) if number else 0)
        first, last = part.story_starts[place], part.story_starts[place + 1]
        starts = part.sentence_starts[first : last + 1]
        ids = part.ids[starts[0] : starts[-1]].tolist()
        places = (starts - starts[0]).tolist()
        return [ids[begin:end] for begin, end in zip(places[:-1], places[1:], strict=True)]

    def storyid(self, draw: Draw) -> str:
        """The id of a story that was drawn."""
        return str(self.stories[draw.index]["storyid"])

    def dataset_labels(self, index: int) -> list[int]:
        """The shuffle of a story in the data set's configuration `shuffled`."""
        story = self.stories[int(index)]
        return shuffled_labels(story["storyid"], story["sentences"], self.data_seed)

    def evaluation_labels(self, index: int) -> list[int]:
        """The order in which a story is shown to be judged, as original indices: that in which the pipeline shows it.

        It is the arrangement of the story's texts, whatever order they are in. Only identical sentences are told apart
        by their order, which is that of the data set's configuration `shuffled`: it does not tell the true one.
        """
        labels, sentences = self.dataset_labels(index), self.stories[int(index)]["sentences"]
        return [labels[place] for place in arrangement([sentences[label] for label in labels], 0)]


@dataclass(frozen=True, slots=True)
class _MappedStories:
    """Some stories that follow each other in the file, in three flat arrays over it.

    Attributes:
        story_starts: where each story begins among the sentences, `(stories + 1,)`.
        sentence_starts: where each sentence begins among the ids, `(sentences + 1,)`.
        ids: of all of them.
    """

    story_starts: np.ndarray
    sentence_starts: np.ndarray
    ids: np.ndarray

    @classmethod
    def of(cls, part: Any) -> _MappedStories:
        """Of an Arrow array of lists of lists of ids, nothing of which is copied."""
        sentences = part.values
        return cls(part.offsets.to_numpy(), sentences.offsets.to_numpy(), sentences.values.to_numpy())


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def sentences_of(stories: Dataset) -> Iterator[list[str]]:
    """The sentences of each story, in order; a column that `datasets` is asked for is a list of all that there is."""
    for batch in stories.select_columns("sentences").iter(_AT_A_TIME):
        yield from batch["sentences"]


def _tokenized(stories: Dataset, story_tokenizer: StoryTokenizer) -> Dataset:
    """`sentence_ids` for each story, from the cache of `datasets` if the same stories were tokenized the same way."""

    def tokenize(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {
            "sentence_ids": story_tokenizer.tokenize_stories(
                batch["sentences"], longest=story_tokenizer.max_input_tokens
            )
        }

    tokenizer = story_tokenizer.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    # Given by hand: a tokenizer does not hash the same in every process, nor before and after its first call.
    decides = [vocabulary, story_tokenizer.marker_token_id, story_tokenizer.max_input_tokens, "sentence_ids-2"]
    fingerprint = Hasher.hash([stories._fingerprint, *decides])
    return cached_map(stories, tokenize, fingerprint, "Tokenizing")


@dataclass(frozen=True)
class ShuffledStory:
    """One story on its way into a batch.

    Attributes:
        sentence_ids: ids of each sentence, in the order shown.
        labels: the original index of each sentence shown.
        num_stories: see `Draw`; None in evaluation.
        twin: the story in another shuffle, for the consistency term.
    """

    sentence_ids: list[list[int]]
    labels: list[int]
    num_stories: float | None = None
    twin: ShuffledStory | None = None


class TrainingStories(TorchDataset[ShuffledStory]):
    """Stories to train on; a draw's epoch decides how its sentences are shuffled.

    Args:
        stories: the stories.
        seed: decides the shuffles, together with story and epoch.
        fresh: a new shuffle in every epoch; else always the shuffle of the data set, see `dataset_labels`.
        twins: draw a second shuffle of each story.
    """

    def __init__(self, stories: TokenizedStories, *, seed: int = 42, fresh: bool = True, twins: bool = False) -> None:
        self.stories = stories
        self.seed = seed
        self.fresh = fresh
        self.twins = twins

    def __len__(self) -> int:
        """Stories."""
        return len(self.stories)

    def __getitem__(self, draw: Draw) -> ShuffledStory:
        """The story drawn, shuffled."""
        sentence_ids = self.stories.sentence_ids(draw.index)
        labels = None if self.fresh else self.stories.dataset_labels(draw.index)
        return _shuffled(sentence_ids, draw, self.seed, self.fresh, self.twins, labels)


class StreamedTraining(TorchDataset[ShuffledStory]):
    """As `TrainingStories`, where each draw brings its story along.

    A story's shuffle hangs on its number in the order of the files, as it does there: not on the process that reads it,
    nor on where in the epoch that is.

    Args:
        stories: the stories.
        seed, twins: as in `TrainingStories`.
        fresh: a new shuffle in every epoch; else that of epoch 0 always.
    """

    def __init__(self, stories: StreamedStories, *, seed: int = 42, fresh: bool = True, twins: bool = False) -> None:
        self.stories = stories
        self.seed = seed
        self.fresh = fresh
        self.twins = twins

    def __len__(self) -> int:
        """Stories."""
        return len(self.stories)

    def __getitem__(self, draw: StreamedDraw) -> ShuffledStory:
        """The story drawn, shuffled."""
        return _shuffled(draw.sentence_ids, draw, self.seed, self.fresh, self.twins)


def _shuffled(
    sentence_ids: list[list[int]],
    draw: Draw,
    seed: int,
    fresh: bool,
    twins: bool,
    labels: list[int] | None = None,
) -> ShuffledStory:
    """A story in the given shuffle, or in one of its own, and its twin in another."""
    generator = np.random.default_rng([seed, draw.epoch if fresh else 0, draw.index])

    def shown(labels: list[int] | None) -> ShuffledStory:
        labels = generator.permutation(len(sentence_ids)).tolist() if labels is None else labels
        shuffled = [sentence_ids[label] for label in labels]
        # A single sentence, which a stream may have, has no order, and so no label to learn.
        return ShuffledStory(shuffled, labels if len(labels) > 1 else [PADDING] * len(labels), draw.num_stories)

    story = shown(labels)
    return dataclasses.replace(story, twin=shown(None)) if twins else story


class EvaluationStories(TorchDataset[ShuffledStory]):
    """Stories to evaluate on, each in the arrangement in which the pipeline shows it."""

    def __init__(self, stories: TokenizedStories) -> None:
        self.stories = stories

    def __len__(self) -> int:
        """Stories."""
        return len(self.stories)

    def __getitem__(self, index: int) -> ShuffledStory:
        """The story as it is shown."""
        ids = self.stories.sentence_ids(index)
        labels = self.stories.evaluation_labels(index)
        return ShuffledStory([ids[label] for label in labels], labels)


class StoryCollator:
    """Makes a batch for the model's `forward`: see `StoryTokenizer.collate`; with `num_stories` in training."""

    def __init__(self, story_tokenizer: StoryTokenizer) -> None:
        self.story_tokenizer = story_tokenizer

    def __call__(self, stories: Sequence[ShuffledStory]) -> dict[str, torch.Tensor]:
        """Pads the stories of one batch, each followed by its twin if it has one."""
        twins = [story.twin is not None for story in stories]
        if any(twins):
            stories = [row for story in stories for row in (story, story.twin) if row is not None]
        tokenized = [self.story_tokenizer.assemble(story.sentence_ids) for story in stories]
        batch = self.story_tokenizer.collate(tokenized, [story.labels for story in stories])
        if stories[0].num_stories is not None:
            rows = 2 if any(twins) else 1
            batch["num_stories"] = torch.tensor(rows * stories[0].num_stories)
        if any(twins):
            batch["is_twin"] = torch.arange(len(stories)) % 2 == 1
        return batch


class StoryLoader(DataLoader[ShuffledStory]):
    """A `DataLoader` over training stories that passes the epoch on to its sampler, as frameworks ask loaders to."""

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is."""
        if isinstance(self.batch_sampler, (BatchShare, EpochBatchSampler)):
            self.batch_sampler.set_epoch(epoch)

    def pass_over_steps(self, steps: int) -> None:
        """Says that the next iteration is to go on after so many steps of a run, see `EpochBatchSampler.pass_over`."""
        sampler = self.batch_sampler
        if isinstance(sampler, BatchShare):
            sampler.pass_over(steps % sampler.steps_per_epoch * sampler.gradient_accumulation_steps)


def training_sampler(
    stories: TokenizedStories | StreamedStories,
    recipe: Recipe,
    processes: Processes = Processes(),  # noqa: B008 - frozen
) -> BatchShare:
    """The batches that a recipe makes of these stories: a process's share of them."""
    batches_in_step = recipe.gradient_accumulation_steps * processes.world_size
    by_length = recipe.train_sampling_strategy == "group_by_length"
    sampler: EpochBatchSampler
    if isinstance(stories, StreamedStories):
        sampler = StreamBatchSampler(
            stories,
            recipe.per_device_train_batch_size,
            gradient_accumulation_steps=batches_in_step,
            seed=recipe.seed,
            buffer_size=recipe.shuffle_buffer_size,
            group_by_length=by_length,
            processes=processes,
            num_workers=recipe.dataloader_num_workers,
        )
    elif recipe.per_device_train_batch_tokens is not None:
        sampler = TokenBatchSampler(
            stories.lengths,
            recipe.per_device_train_batch_tokens,
            gradient_accumulation_steps=batches_in_step,
            seed=recipe.seed,
        )
    else:
        sampler = StoryBatchSampler(
            stories.lengths,
            recipe.per_device_train_batch_size,
            gradient_accumulation_steps=batches_in_step,
            seed=recipe.seed,
            group_by_length=by_length,
        )
    return BatchShare(sampler, processes)


def training_loader(
    stories: TokenizedStories | StreamedStories,
    recipe: Recipe,
    processes: Processes = Processes(),  # noqa: B008 - frozen
) -> StoryLoader:
    """Batches to train on, the same in every framework: a process's share of them."""
    fresh, num_workers = recipe.shuffle_sentences == "fresh", recipe.dataloader_num_workers
    twins = recipe.consistency > 0
    dataset: TorchDataset[ShuffledStory]
    if isinstance(stories, StreamedStories):
        dataset = StreamedTraining(stories, seed=recipe.seed, fresh=fresh, twins=twins)
        num_workers = 0  # its sampler has them: to sort stories by length it needs their ids
    else:
        dataset = TrainingStories(stories, seed=recipe.seed, fresh=fresh, twins=twins)
    return StoryLoader(
        dataset,
        batch_sampler=training_sampler(stories, recipe, processes),
        collate_fn=StoryCollator(stories.story_tokenizer),
        num_workers=num_workers,
        # Its own generator: without one, every iteration takes a number from the global one, and dropout with it.
        generator=torch.Generator().manual_seed(recipe.seed),
    )


def evaluation_loader(
    stories: TokenizedStories,
    batch_size: int,
    num_workers: int = 0,
    processes: Processes = Processes(),  # noqa: B008 - frozen
) -> DataLoader[ShuffledStory]:
    """Every story once, in batches of similar length: a process's share of them, see `evaluation_share`."""
    batches, _ = evaluation_share(stories.lengths, batch_size, processes)
    return DataLoader(
        EvaluationStories(stories),
        batch_sampler=_FixedBatches(batches),
        collate_fn=StoryCollator(stories.story_tokenizer),
        num_workers=num_workers,
        generator=torch.Generator().manual_seed(0),
    )


class _FixedBatches(torch.utils.data.Sampler[list[int]]):
    """Batches that were decided beforehand."""

    def __init__(self, batches: list[list[int]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)
