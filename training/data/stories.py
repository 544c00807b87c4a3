"""From stories to batches: tokenized once, shuffled when drawn, padded by the model's own code."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import torch
from datasets import Dataset
from datasets.fingerprint import Hasher
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from dataset_builder import shuffle_of_story, stories_of_rows, story_key
from modeling_sentence_ordering import StoryTokenizer
from modeling_sentence_ordering.objectives_sentence_ordering import PADDING
from modeling_sentence_ordering.tokenization_sentence_ordering import arrangement
from training.recipe.recipe import Recipe
from training.system.processes import Processes

from .batches import BatchShare, Draw, EpochBatchSampler, StoryBatchSampler, TokenBatchSampler, evaluation_share
from .passages import TextPassages
from .streaming import StreamBatchSampler, StreamedStories
from .token_cache import cached_map
from .tokenizing import tokenize_stories

_READ_AT_ONCE = 1000  # stories


class TokenizedStories:
    """Token ids of many stories, each in true order, memory-mapped from the cache of `datasets`.

    Args:
        stories: rows of one split in any layout that `stories_of_rows` takes. Rows with `labels` are put in order by
            them.
        story_tokenizer: turns sentences into ids.
        data_seed: seed of `dataset_labels`.
    """

    def __init__(self, stories: Any, story_tokenizer: StoryTokenizer, data_seed: int = 42) -> None:
        self.stories = stories_of_rows(stories)
        self.story_tokenizer = story_tokenizer
        self.data_seed = data_seed
        tokenized = _tokenized(self.stories, story_tokenizer).data
        self._keys = tokenized.column("key")
        self._parts = [_MappedStories.from_arrow(part) for part in tokenized.column("sentence_ids").chunks]
        self._ends = np.cumsum([len(part.story_starts) - 1 for part in self._parts], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.stories)

    @property
    def num_sentences(self) -> np.ndarray:
        """Sentences of each story, `(stories,)` int."""
        return _joined([np.diff(part.story_starts) for part in self._parts])

    @property
    def num_tokens(self) -> np.ndarray:
        """Tokens and markers of each whole story, without the separator, `(stories,)` int."""
        tokens = _joined([np.diff(part.sentence_starts[part.story_starts]) for part in self._parts])
        return np.asarray(tokens + self.num_sentences)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each story in the input of the encoder, `(stories,)` int."""
        tokenizer = self.story_tokenizer
        lengths = self.num_tokens + (tokenizer.separator_token_id is not None)
        return lengths if tokenizer.max_input_tokens is None else np.minimum(lengths, tokenizer.max_input_tokens)

    @property
    def fits(self) -> np.ndarray:
        """Whether each story is within the encoder's limit, `(stories,)` bool; see `StoryTokenizer.fits`."""
        return np.asarray(self.num_tokens <= self.story_tokenizer.room)

    def sentence_ids(self, index: int) -> list[list[int]]:
        """The ids of each sentence of a story, in true order."""
        part, starts = self._sentence_starts(index)
        ids = part.ids[starts[0] : starts[-1]].tolist()
        offsets = (starts - starts[0]).tolist()
        return [ids[begin:end] for begin, end in pairwise(offsets)]

    def sentence_tokens(self, index: int) -> np.ndarray:
        """Tokens of each sentence of a story with its marker, `(sentences,)` int."""
        return np.asarray(np.diff(self._sentence_starts(index)[1]) + 1)

    def _sentence_starts(self, index: int) -> tuple[_MappedStories, np.ndarray]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        part = self._parts[number]
        row = index - (int(self._ends[number - 1]) if number else 0)
        first, last = part.story_starts[row], part.story_starts[row + 1]
        return part, part.sentence_starts[first : last + 1]

    def key_and_ids(self, draw: Draw) -> tuple[str, list[list[int]]]:
        """The `story_key` of a story that was drawn, and the ids of its sentences in true order."""
        return self.key(draw.index), self.sentence_ids(draw.index)

    def key(self, index: int) -> str:
        """The `story_key` of a story."""
        return str(self._keys[int(index)].as_py())

    def storyid(self, draw: Draw) -> str:
        """The id of a story that was drawn."""
        return str(self.stories[draw.index]["storyid"])

    def dataset_labels(self, index: int) -> list[int]:
        """The shuffle of a story in the data set's configuration `shuffled`."""
        return shuffle_of_story(self.key(index), len(self.sentence_ids(index)), self.data_seed)

    def evaluation_labels(self, index: int) -> list[int]:
        """The order in which a story is evaluated, as original indices.

        The pipeline's `arrangement` of the story in its configuration `shuffled`. It depends on the texts alone, except
        that identical sentences keep their shuffled order, so that their true order does not leak.
        """
        labels, sentences = self.dataset_labels(index), self.stories[int(index)]["sentences"]
        return [labels[i] for i in arrangement([sentences[label] for label in labels], 0)]


@dataclass(frozen=True, slots=True)
class _MappedStories:
    """Consecutive stories as three flat arrays over the mapped file.

    Attributes:
        story_starts: where each story begins among the sentences, `(stories + 1,)`.
        sentence_starts: where each sentence begins among the ids, `(sentences + 1,)`.
        ids: of all of them.
    """

    story_starts: np.ndarray
    sentence_starts: np.ndarray
    ids: np.ndarray

    @classmethod
    def from_arrow(cls, part: Any) -> _MappedStories:
        """From an Arrow array of lists of lists of ids, without copying."""
        sentences = part.values
        return cls(part.offsets.to_numpy(), sentences.offsets.to_numpy(), sentences.values.to_numpy())


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def sentences_of(stories: Dataset) -> Iterator[list[str]]:
    """The sentences of each story, in order, read in batches: a column of a `Dataset` is read as a whole."""
    for batch in stories.select_columns("sentences").iter(_READ_AT_ONCE):
        yield from batch["sentences"]


def _tokenized(stories: Dataset, story_tokenizer: StoryTokenizer) -> Dataset:
    """`sentence_ids` and `key` of each story, from the cache of `datasets` if they were tokenized before."""

    def tokenize(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        ids = tokenize_stories(story_tokenizer, batch["sentences"])
        return {"sentence_ids": ids, "key": list(map(story_key, batch["storyid"], batch["sentences"]))}

    tokenizer = story_tokenizer.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    # `datasets` would hash the tokenizer itself, whose hash differs between processes and after its first call.
    settings = [vocabulary, story_tokenizer.marker_token_id, story_tokenizer.max_input_tokens, "sentence_ids-3"]
    fingerprint = Hasher.hash([stories._fingerprint, *settings])
    return cached_map(stories, tokenize, fingerprint, "Tokenizing")


@dataclass(frozen=True)
class ShuffledStory:
    """One shuffled story of a batch.

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


TrainingTexts: TypeAlias = TokenizedStories | StreamedStories
"""Stories to train on, in a table or a stream."""


def drawn_stories(stories: TrainingTexts, recipe: Recipe) -> TrainingTexts | TextPassages:
    """What an epoch of training draws from: the stories, or with `passage_sentences` their passages."""
    if recipe.passage_sentences is None:
        return stories
    if isinstance(stories, StreamedStories):
        return stories.in_passages(recipe.passage_sentences)
    return TextPassages(stories, recipe.passage_sentences, recipe.seed)


class TrainingStories(TorchDataset[ShuffledStory]):
    """Stories to train on, each shuffled by its seed and epoch; see `shuffle_of_story`.

    Args:
        stories: the stories.
        seed: seed of the shuffles.
        fresh: a new shuffle in every epoch; else always that of epoch 0.
        twins: add a second shuffle of each story, for the consistency term.
    """

    def __init__(
        self, stories: TrainingTexts | TextPassages, *, seed: int = 42, fresh: bool = True, twins: bool = False
    ) -> None:
        self.stories = stories
        self.seed = seed
        self.fresh = fresh
        self.twins = twins

    def __len__(self) -> int:
        return len(self.stories)

    def __getitem__(self, draw: Draw) -> ShuffledStory:
        key, sentence_ids = self.stories.key_and_ids(draw)
        story = self._shuffled(key, sentence_ids, draw)
        if not self.twins:
            return story
        return dataclasses.replace(story, twin=self._shuffled(f"{key}/twin", sentence_ids, draw))

    def _shuffled(self, key: str, sentence_ids: list[list[int]], draw: Draw) -> ShuffledStory:
        labels = shuffle_of_story(key, len(sentence_ids), self.seed, draw.epoch if self.fresh else 0)
        shuffled = [sentence_ids[label] for label in labels]
        # A single sentence, which a stream may have, has no order to learn.
        return ShuffledStory(shuffled, labels if len(labels) > 1 else [PADDING] * len(labels), draw.num_stories)


class EvaluationStories(TorchDataset[ShuffledStory]):
    """Stories to evaluate on, each in its `TokenizedStories.evaluation_labels` order."""

    def __init__(self, stories: TokenizedStories) -> None:
        self.stories = stories

    def __len__(self) -> int:
        return len(self.stories)

    def __getitem__(self, index: int) -> ShuffledStory:
        ids = self.stories.sentence_ids(index)
        labels = self.stories.evaluation_labels(index)
        return ShuffledStory([ids[label] for label in labels], labels)


class StoryCollator:
    """Makes a batch for the model's `forward`, see `StoryTokenizer.collate`; with `num_stories` in training."""

    def __init__(self, story_tokenizer: StoryTokenizer) -> None:
        self.story_tokenizer = story_tokenizer

    def __call__(self, stories: Sequence[ShuffledStory]) -> dict[str, torch.Tensor]:
        """Pads the stories of one batch, each followed by its twin if it has one."""
        twins = [story.twin is not None for story in stories]
        if any(twins):
            stories = [row for story in stories for row in (story, story.twin) if row is not None]
        tokenized = [self.story_tokenizer.assemble(story.sentence_ids) for story in stories]
        labels = [story.labels for story in stories]
        return self.story_tokenizer.collate(tokenized, labels, num_stories=stories[0].num_stories, twins=any(twins))


class StoryLoader(DataLoader[ShuffledStory]):
    """A `DataLoader` over training stories that passes the epoch on to its sampler."""

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration."""
        if isinstance(self.batch_sampler, (BatchShare, EpochBatchSampler)):
            self.batch_sampler.set_epoch(epoch)

    def will_resume_at(self, steps: int) -> None:
        """Announces that batches before this step of the run will be discarded, see `EpochBatchSampler.will_skip`."""
        sampler = self.batch_sampler
        if isinstance(sampler, BatchShare):
            sampler.will_skip(steps % sampler.steps_per_epoch * sampler.gradient_accumulation_steps)


def training_sampler(
    stories: TrainingTexts,
    recipe: Recipe,
    processes: Processes = Processes(),  # noqa: B008 - frozen
) -> BatchShare:
    """This process's share of the training batches of a recipe, as draws from `drawn_stories`."""
    batches_in_step = recipe.gradient_accumulation_steps * processes.world_size
    by_length = recipe.train_sampling_strategy == "group_by_length"
    sampler: EpochBatchSampler
    drawn = drawn_stories(stories, recipe)
    if isinstance(drawn, StreamedStories):
        sampler = StreamBatchSampler(
            drawn,
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
            drawn.longest if isinstance(drawn, TextPassages) else drawn.lengths,
            recipe.per_device_train_batch_tokens,
            gradient_accumulation_steps=batches_in_step,
            seed=recipe.seed,
        )
    else:
        sampler = StoryBatchSampler(
            drawn.lengths_in if isinstance(drawn, TextPassages) else drawn.lengths,
            recipe.per_device_train_batch_size,
            gradient_accumulation_steps=batches_in_step,
            seed=recipe.seed,
            group_by_length=by_length,
        )
    return BatchShare(sampler, processes)


def training_loader(
    stories: TrainingTexts,
    recipe: Recipe,
    processes: Processes = Processes(),  # noqa: B008 - frozen
) -> StoryLoader:
    """This process's share of the training batches, the same in every framework."""
    fresh = recipe.shuffle_sentences == "fresh"
    return StoryLoader(
        TrainingStories(
            drawn_stories(stories, recipe),
            seed=recipe.seed if fresh else recipe.data_seed,
            fresh=fresh,
            twins=recipe.consistency > 0,
        ),
        batch_sampler=training_sampler(stories, recipe, processes),
        collate_fn=StoryCollator(stories.story_tokenizer),
        # The sampler of a stream has the workers itself: it sorts stories by their number of tokens.
        num_workers=0 if isinstance(stories, StreamedStories) else recipe.dataloader_num_workers,
        # Without its own generator, every iteration would draw from the global one and change dropout.
        generator=torch.Generator().manual_seed(recipe.seed),
    )


def evaluation_loader(
    stories: TokenizedStories,
    batch_size: int,
    num_workers: int = 0,
    processes: Processes = Processes(),  # noqa: B008 - frozen
) -> DataLoader[ShuffledStory]:
    """This process's share of the evaluation batches, see `evaluation_share`."""
    batches, _ = evaluation_share(stories.lengths, batch_size, processes)
    return DataLoader(
        EvaluationStories(stories),
        batch_sampler=batches,
        collate_fn=StoryCollator(stories.story_tokenizer),
        num_workers=num_workers,
        generator=torch.Generator().manual_seed(0),
    )
