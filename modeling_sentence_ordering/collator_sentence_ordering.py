"""Rows of a data set to batches: what `Trainer`, Lightning or a plain `DataLoader` needs to train a model."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch

from .configuration_sentence_ordering import SentenceOrderingConfig
from .encoding_sentence_ordering import StoryTokenizer, as_list, as_sentences
from .objectives_sentence_ordering import PADDING


@dataclass
class DataCollatorForSentenceOrdering:
    """Data collator that tokenizes stories and pads them to a batch for [`SentenceOrderingModel`].

    A row is a story, in one of these forms:

    - `sentences` in shuffled order and `labels`, the original index (0 … N-1) of each sentence, as the data set
      `shuffled_rocstories` has them;
    - `sentences` in their true order, without labels, and `shuffle=True`;
    - `input_ids`, `marker_positions` and `labels`, which `tokenize` makes:
      `dataset.map(collator.tokenize, batched=True)`. `Trainer` then needs no `remove_unused_columns=False`;
    - either of them without labels, to predict.

    Other columns are ignored.

    Args:
        tokenizer: the model's tokenizer.
        config: the model's config.
        shuffle: show the sentences of each story in a random order. The order depends on the seed and on the stories
            in the batch: a story is shuffled anew in each epoch if batches are drawn at random, and equal batches are
            always equal, after resuming and in a worker process as well.
        seed: of the shuffles.
        twins: with `shuffle=True`, show each story twice, in two shuffles, for the consistency term of the loss; where
            the config has a `consistency` above 0, if None. `is_twin` of the batch says which rows are the second ones.
        pad_to_multiple_of: pad `input_ids` to a multiple of this.
        return_tensors: `"pt"` for torch, `"np"` for NumPy.
    """

    tokenizer: Any
    config: SentenceOrderingConfig
    shuffle: bool = False
    seed: int = 42
    twins: bool | None = None
    pad_to_multiple_of: int | None = None
    return_tensors: str = "pt"

    def __post_init__(self) -> None:
        if self.return_tensors not in ("pt", "np"):
            raise ValueError(f"return_tensors must be 'pt' or 'np', not {self.return_tensors!r}")
        self._story_tokenizer = StoryTokenizer(self.tokenizer, self.config)

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Makes one batch.

        Args:
            features: the rows.

        Returns:
            `input_ids`, `attention_mask` and `marker_positions`, see `StoryTokenizer.collate`; `labels`
            `(batch, max_sentences)` if any row has labels, -100 for padding; `num_stories` if the rows have it.

        Raises:
            ValueError: if a row has none of the forms above, or its labels do not belong to its sentences.
            TypeError: if `sentences` is not a list of strings.
        """
        stories = self._read(features)
        twins = self.shuffle and (self.config.consistency > 0 if self.twins is None else self.twins)
        if twins:
            stories = [row for story in stories for row in (story, copy(story))]
        if self.shuffle:
            _shuffle(stories, self.seed)
        tokenized = [
            self._story_tokenizer.assemble(story.sentence_ids)._replace(num_sentences=story.num_sentences)
            for story in stories
        ]
        labels = [story.labels for story in stories]
        known = None if all(row is None for row in labels) else [row or [] for row in labels]
        batch = self._story_tokenizer.collate(tokenized, known, pad_to_multiple_of=self.pad_to_multiple_of)
        if features and features[0].get("num_stories") is not None:
            batch["num_stories"] = torch.tensor((2 if twins else 1) * float(features[0]["num_stories"]))
        if twins:
            batch["is_twin"] = torch.arange(len(stories)) % 2 == 1
        return batch if self.return_tensors == "pt" else {name: tensor.numpy() for name, tensor in batch.items()}

    def tokenize(self, rows: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Tokenizes stories, for `dataset.map(collator.tokenize, batched=True)`.

        Args:
            rows: columns; of each story `sentences`, and `labels` if there are any.

        Returns:
            The columns `input_ids` and `marker_positions`, -1 for a sentence that the encoder's limit cut off, and
            `labels` if there are any, so that all other columns can be removed. With `shuffle=True` and without
            labels the sentences are in their true order, and `labels` say so.
        """
        stories = [as_sentences(sentences) for sentences in rows["sentences"]]
        tokenized = [self._story_tokenizer.assemble(ids) for ids in self._tokenized(stories)]
        columns: dict[str, list[Any]] = {
            "input_ids": [story.input_ids for story in tokenized],
            "marker_positions": [
                story.marker_positions + [-1] * (story.num_sentences - len(story.marker_positions))
                for story in tokenized
            ],
        }
        if "labels" in rows:
            columns["labels"] = list(rows["labels"])
        elif self.shuffle:
            columns["labels"] = [list(range(len(story))) for story in stories]
        return columns

    def _tokenized(self, stories: Sequence[Sequence[str]]) -> list[list[list[int]]]:
        tokenizer = self._story_tokenizer
        return tokenizer.tokenize_stories(stories, longest=tokenizer.max_input_tokens)

    def _read(self, rows: Sequence[Mapping[str, Any]]) -> list[_Story]:
        untokenized = [as_sentences(row["sentences"]) for row in rows if "input_ids" not in row and "sentences" in row]
        tokenized = iter(self._tokenized(untokenized))
        stories = []
        for row in rows:
            if "input_ids" in row and "marker_positions" in row:
                positions = as_list(row["marker_positions"])
                ids, count = self._split(as_list(row["input_ids"]), positions), len(positions)
            elif "input_ids" not in row and "sentences" in row:
                ids = next(tokenized)
                count = len(ids)
            else:
                raise ValueError(
                    "a row needs 'sentences', or 'input_ids' and 'marker_positions'; this one has only "
                    f"{', '.join(map(repr, row))}. Trainer removes columns that the model does not take: map the data "
                    "set with collator.tokenize, or set remove_unused_columns=False"
                )
            stories.append(_Story(ids, self._labels(row, count), count))
        return stories

    def _split(self, input_ids: list[int], positions: list[int]) -> list[list[int]]:
        """The ids of each sentence of a tokenized story, without sentences that were cut off."""
        if input_ids and input_ids[-1] == self._story_tokenizer.separator_token_id:
            input_ids = input_ids[:-1]
        kept = [position for position in positions if position >= 0]
        ends = [*kept[1:], len(input_ids)]
        return [input_ids[begin + 1 : end] for begin, end in zip(kept, ends, strict=True)]

    def _labels(self, row: Mapping[str, Any], count: int) -> list[int] | None:
        if row.get("labels") is None:
            return list(range(count)) if self.shuffle else None
        labels = as_list(row["labels"])
        indices = [label for label in labels if label != PADDING]
        if len(labels) != count or len(set(indices)) < len(indices) or not set(indices) <= set(range(count)):
            raise ValueError(
                f"labels are the original index of each sentence, for {count} sentences a permutation of 0 to "
                f"{count - 1}, not {labels}"
            )
        return labels


@dataclass
class _Story:
    """One row.

    Attributes:
        sentence_ids: of each sentence, without sentences that were cut off at the end.
        labels: of each sentence, or None.
        num_sentences: sentences of the story, including what was cut off.
    """

    sentence_ids: list[list[int]]
    labels: list[int] | None
    num_sentences: int


def _shuffle(stories: Sequence[_Story], seed: int) -> None:
    """Shuffles the sentences of each story in place; the same stories and seed give the same shuffles."""
    digest = hashlib.sha256(repr([seed, [story.sentence_ids for story in stories]]).encode()).digest()
    generator = random.Random(digest)
    for story in stories:
        count = len(story.sentence_ids)
        order = generator.sample(range(count), count)
        story.sentence_ids = [story.sentence_ids[i] for i in order]
        if story.labels is not None:
            story.labels = [story.labels[i] for i in order] + story.labels[count:]
