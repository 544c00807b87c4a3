"""The stories of a recipe: tables, or with `streaming` a stream."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from datasets import Dataset, DatasetDict

from dataset_builder import SPLITS, StoryStream, load_stories, stream_stories
from modeling_sentence_ordering import StoryTokenizer
from training.recipe.recipe import Recipe

from .passages import TextPassages
from .stories import TokenizedStories, sentences_of

# The vocabulary of an encoder from scratch is trained on this number of stories of a stream.
VOCABULARY_STORIES = 100_000


@dataclass(frozen=True)
class RecipeStories:
    """The stories that a recipe trains and evaluates on.

    Attributes:
        splits: tables of stories, named `train`, `validation` or `test`; without `train` if it is streamed.
        stream: the training stories if they are streamed.
        seed: the recipe's, for the order of a stream.
        passage_sentences: the recipe's.
    """

    splits: DatasetDict
    stream: StoryStream | None
    seed: int
    passage_sentences: list[int] | None = None

    @property
    def sentences(self) -> Iterable[list[str]]:
        """The sentences of the training stories, read lazily; of a stream, of its first `VOCABULARY_STORIES`.

        Empty if there is no training split.
        """
        if self.stream is None:
            return sentences_of(self.splits["train"]) if "train" in self.splits else ()
        stories = self.stream.read(self.stream.order(self.seed, epoch=0))
        return (list(story.sentences) for _, story in islice(stories, VOCABULARY_STORIES))

    def digests(self) -> dict[str, str]:
        """A hash of the sentences of each split in order; a resumed run compares them."""
        streamed = {} if self.stream is None else {"train": self.stream.digest()}
        return streamed | {name: stories_digest(split) for name, split in self.splits.items()}

    def counts(self) -> str:
        """The number of stories in each split, for messages."""
        streamed = [] if self.stream is None else [f"{len(self.stream):,} train (streamed)"]
        return ", ".join(streamed + [f"{len(split):,} {name}" for name, split in self.splits.items()])

    def tokenized(
        self, story_tokenizer: StoryTokenizer, data_seed: int, wanted: Container[str] = SPLITS
    ) -> dict[str, TokenizedStories]:
        """The wanted splits that are tables, see `tokenized_split`."""
        return {
            name: tokenized_split(name, split, story_tokenizer, data_seed, self.passage_sentences)
            for name, split in self.splits.items()
            if name in wanted
        }


def tokenized_split(
    name: str,
    stories: Any,
    story_tokenizer: StoryTokenizer,
    data_seed: int,
    passage_sentences: Sequence[int] | None,
) -> TokenizedStories:
    """A split as `TokenizedStories`; with `passage_sentences`, the fixed passages of a split other than `train`."""
    tokenized = TokenizedStories(stories, story_tokenizer, data_seed)
    return tokenized if passage_sentences is None or name == "train" else fixed_passages(tokenized, passage_sentences)


def fixed_passages(texts: TokenizedStories, sizes: Sequence[int]) -> TokenizedStories:
    """Passages of texts, to evaluate on: those of epoch 0 with the seed of the data. They are held in memory.

    Args:
        texts: the texts.
        sizes: fewest and most sentences of a passage.

    Returns:
        The passages as stories. The id of a passage has the numbers of its first and last sentence, such as `id-7:1-9`.
    """
    passages = TextPassages(texts, sizes, texts.data_seed)
    rows: dict[str, list[Any]] = {"storyid": [], "sentences": []}
    for index, story in enumerate(texts.stories.select_columns(["storyid", "sentences"])):
        sentences = story["sentences"]
        for start, stop in passages.bounds(index, epoch=0):
            whole = stop - start == len(sentences)
            rows["storyid"].append(story["storyid"] if whole else f"{story['storyid']}:{start + 1}-{stop}")
            rows["sentences"].append(sentences[start:stop])
    return TokenizedStories(Dataset.from_dict(rows), texts.story_tokenizer, texts.data_seed)


def stories_digest(stories: Dataset) -> str:
    """A hash of the sentences of all stories, in order."""
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
        return RecipeStories(splits, stream, recipe.seed, recipe.passage_sentences)
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
    return RecipeStories(splits, None, recipe.seed, recipe.passage_sentences)
