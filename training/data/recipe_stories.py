"""The stories that a recipe names, in tables or, with `streaming`, to be read while they are trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable
from dataclasses import dataclass
from itertools import islice

from datasets import Dataset, DatasetDict

from dataset_builder import SPLITS, StoryStream, load_stories, stream_stories
from modeling_sentence_ordering import StoryTokenizer
from training.recipe.recipe import Recipe

from .stories import TokenizedStories, sentences_of

# How many stories of a stream the vocabulary of an encoder from scratch is trained on: the first of the first epoch.
VOCABULARY_STORIES = 100_000


@dataclass(frozen=True)
class RecipeStories:
    """What a recipe trains and judges on.

    Attributes:
        splits: stories in tables, some of `train`, `validation` and `test`; without `train` where it is streamed.
        stream: the training stories where they are streamed.
        seed: the recipe's, which decides what the first stories of a stream are.
    """

    splits: DatasetDict
    stream: StoryStream | None
    seed: int

    @property
    def sentences(self) -> Iterable[list[str]]:
        """Of the training stories; of a stream, of `VOCABULARY_STORIES` of them. Nothing is read before it is used.

        None, where the data have no training split.
        """
        if self.stream is None:
            return sentences_of(self.splits["train"]) if "train" in self.splits else ()
        stories = self.stream.read(self.stream.order(self.seed, epoch=0))
        return (list(story.sentences) for _, story in islice(stories, VOCABULARY_STORIES))

    def digests(self) -> dict[str, str]:
        """A hash of the sentences of each split, in its order, by which a run that is resumed knows its stories."""
        streamed = {} if self.stream is None else {"train": self.stream.digest()}
        return streamed | {name: stories_digest(split) for name, split in self.splits.items()}

    def counts(self) -> str:
        """How many stories there are, in words."""
        streamed = [] if self.stream is None else [f"{len(self.stream):,} train (streamed)"]
        return ", ".join(streamed + [f"{len(split):,} {name}" for name, split in self.splits.items()])

    def tokenized(
        self, story_tokenizer: StoryTokenizer, data_seed: int, wanted: Container[str] = SPLITS
    ) -> dict[str, TokenizedStories]:
        """What stands in tables, as ids: of the splits that are wanted."""
        return {
            name: TokenizedStories(split, story_tokenizer, data_seed)
            for name, split in self.splits.items()
            if name in wanted
        }


def stories_digest(stories: Dataset) -> str:
    """A hash of the sentences of stories, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for sentences in sentences_of(stories):
        digest.update(json.dumps(sentences).encode())
    return digest.hexdigest()


def open_stories(recipe: Recipe) -> RecipeStories:
    """The stories of a recipe.

    Raises:
        ValueError: as `load_stories` and `stream_stories`.
    """
    if recipe.streaming:
        stream, splits = stream_stories(
            recipe.data, validation_sources=recipe.validation_data, split_sentences=recipe.split_sentences
        )
        return RecipeStories(splits, stream, recipe.seed)
    splits = load_stories(
        recipe.data,
        validation_sources=recipe.validation_data,
        seed=recipe.data_seed,
        test_size=recipe.test_size,
        validation_size=recipe.validation_size,
        split_sentences=recipe.split_sentences,
    )
    if recipe.max_train_samples is not None and "train" in splits:
        splits["train"] = splits["train"].select(range(min(recipe.max_train_samples, len(splits["train"]))))
    return RecipeStories(splits, None, recipe.seed)
