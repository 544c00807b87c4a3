"""From stories to batches: sentences to token ids, the order in which they are shown, and the data collator.

    marker, tokens of sentence 1, marker, tokens of sentence 2, ..., separator (if the encoder has one)

Data set, collator and pipeline all call `StoryTokenizer`, so that training and inference see the same sequences.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import islice
from math import factorial, prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .configuration_sentence_ordering import SentenceOrderingConfig, whole_number
from .objectives_sentence_ordering import PADDING
from .repository_sentence_ordering import rust_errors

LONGEST_TEXT = 4096
"""The most tokens of a text that an encoder without a limit is shown at once."""
LONGEST_SENTENCE = 2**20
"""The most characters of a sentence that are tokenized where only its first tokens are needed."""
# A sentence is cut to this many characters for each wanted token; if that gives too few tokens, to twice as many.
_CHARACTERS_PER_TOKEN = 8
# The last tokens before a cut may differ from those of the whole sentence (a word is cut in two), so these are spare.
# WordPiece makes one unknown token of a word of more than 100 characters, but up to 100 tokens of a shorter one.
_SPARE_TOKENS = 256
MOST_PERMUTATIONS = 1000
"""The most arrangements of a story: each costs as much as ordering the story once."""


def arrangements(sentences: Sequence[str], count: int = 1) -> list[list[int]]:
    """Orders in which to show the sentences to the encoder, which depend on their texts alone.

    A model's scores depend a little on the order in which it reads the sentences. Sorted by a hash of their texts, the
    same sentences are always read in the same order, and the answer is the same. The orders look as random as the
    shuffles that models are trained on. The first one is the same for every count.

    Args:
        sentences: of one story. Identical ones are told apart by their index in the input.
        count: how many different ones; there are no more than the sentences have permutations.

    Returns:
        `count` permutations of the input indices, or as many as there are; one even for an empty story.

    Raises:
        ValueError: if the count is not a whole number from 1 to `MOST_PERMUTATIONS`.
    """
    count = whole_number("num_permutations", count, at_least=1)
    if count > MOST_PERMUTATIONS:
        raise ValueError(f"num_permutations must be at most {MOST_PERMUTATIONS:,}")
    if count > 1:
        copies = Counter(sentences).values()
        count = min(count, factorial(len(sentences)) // prod(factorial(number) for number in copies))
    found: dict[tuple[str, ...], list[int]] = {}
    draw = 0
    while len(found) < count:
        way = arrangement(sentences, draw)
        found.setdefault(tuple(sentences[i] for i in way), way)
        draw += 1
    return list(found.values())


def arrangement(sentences: Sequence[str], draw: int) -> list[int]:
    """Input indices, sorted by a hash of each sentence, of the number of identical ones before it, and of `draw`."""
    seen: Counter[str] = Counter()
    keys = []
    for sentence in sentences:
        # hashlib, since Python's own hash of a string differs from process to process. Half of a surrogate pair is
        # refused when the sentence is tokenized, not here.
        text = f"{draw} {seen[sentence]} {sentence}".encode("utf-8", "surrogatepass")
        keys.append(hashlib.sha256(text).digest())
        seen[sentence] += 1
    return sorted(range(len(sentences)), key=keys.__getitem__)


class TokenizedStory(NamedTuple):
    """One story as a token sequence.

    Attributes:
        input_ids: the ids, at most `max_input_tokens` of them.
        marker_positions: the position of the marker of each sentence in the sequence. Shorter than the story where the
            encoder's limit cut off the last sentences.
        num_sentences: sentences of the story, including those cut off.
    """

    input_ids: list[int]
    marker_positions: list[int]
    num_sentences: int


class StoryTokenizer:
    """Turns stories into ids for one model.

    Sentences are tokenized once and shuffled in every epoch: `tokenize` turns each sentence into ids, `assemble` puts
    the ids of sentences into one sequence, `collate` pads a batch.

    Args:
        tokenizer: the encoder's tokenizer, with the marker in its vocabulary (see `load_tokenizer`).
        config: the model's config, with marker, separator and the limit of the encoder.

    Raises:
        ValueError: if the tokenizer cannot belong to this model.
    """

    def __init__(self, tokenizer: Any, config: SentenceOrderingConfig) -> None:
        if config.marker_token_id is None:
            raise ValueError("the model's config has no marker_token_id, so sentences cannot be marked")
        vocab_size = getattr(config.backbone_config, "vocab_size", None)
        if vocab_size is not None and len(tokenizer) > vocab_size:
            raise ValueError(
                f"the tokenizer has {len(tokenizer)} tokens but the model's embedding has {vocab_size} rows: they do "
                "not belong together; load the tokenizer from the folder or repository of the model"
            )
        self.tokenizer = tokenizer
        self.marker_token_id: int = config.marker_token_id
        self.separator_token_id: int | None = config.separator_token_id
        self.max_input_tokens: int | None = config.max_input_tokens
        self.pad_token_id: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        unknown = tokenizer.unk_token_id
        special = {*tokenizer.all_special_ids, config.marker_token_id} - {unknown}
        self._replacement = [unknown] if unknown is not None and unknown != config.marker_token_id else []
        self._special_ids = frozenset(special if self._replacement else {*special, unknown} - {None})

    def tokenize(self, sentences: Sequence[str], *, longest: int | None = None) -> list[list[int]]:
        """The ids of each sentence by itself, without special tokens.

        A special token written in a sentence (`[CLS]`, `</s>`) is text like any other. Most tokenizers split it
        into pieces when told to; Unigram and WordLevel vocabularies return its id all the same, and then it is replaced
        by the unknown token (or left out, if there is none): a marker inside a sentence would begin another one.

        Args:
            sentences: of one story.
            longest: the number of tokens of a sentence that are needed. The rest of a very long sentence is not
                tokenized: it gets more than `longest` ids, and the first `longest` are those of the whole sentence.
                Characters after `LONGEST_SENTENCE` are not read.

        Raises:
            ValueError: if a sentence contains half of a surrogate pair, which is not valid text.
        """
        return self.tokenize_stories([sentences], longest=longest)[0]

    def tokenize_stories(
        self, stories: Sequence[Sequence[str]], *, longest: int | None = None
    ) -> list[list[list[int]]]:
        """The ids of each sentence of each story, as `tokenize`, by one call of the tokenizer: it uses all cores."""
        for story in stories:
            _check_unicode(story)
        sentences = [sentence for story in stories for sentence in story]
        ids = iter(self._tokenize(sentences) if longest is None else self._first_tokens(sentences, longest))
        return [list(islice(ids, len(story))) for story in stories]

    def _first_tokens(self, sentences: list[str], longest: int) -> list[list[int]]:
        wanted = longest + _SPARE_TOKENS
        cut = _CHARACTERS_PER_TOKEN * wanted
        found = self._tokenize([sentence[:cut] for sentence in sentences])
        while cut < LONGEST_SENTENCE:
            unfinished = [i for i, ids in enumerate(found) if len(ids) < wanted and len(sentences[i]) > cut]
            if not unfinished:
                break
            cut = min(2 * cut, LONGEST_SENTENCE)
            for i, ids in zip(unfinished, self._tokenize([sentences[i][:cut] for i in unfinished]), strict=True):
                found[i] = ids
        return found

    def _tokenize(self, sentences: list[str]) -> list[list[int]]:
        if not sentences:
            return []
        with rust_errors("the tokenizer fails on this text"):
            encoded = self.tokenizer(
                sentences,
                add_special_tokens=False,
                split_special_tokens=True,
                padding=False,
                truncation=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,  # no warning about sentences longer than the encoder's limit: they are handled here
            )["input_ids"]
        return [ids if self._special_ids.isdisjoint(ids) else self._without_special(ids) for ids in encoded]

    def _without_special(self, ids: list[int]) -> list[int]:
        return [new for i in ids for new in (self._replacement if i in self._special_ids else (i,))]

    def assemble(self, sentence_ids: Sequence[Sequence[int]]) -> TokenizedStory:
        """The sequence for sentences in the given order, cut off at the encoder's limit.

        The last sentence that still fits in part keeps its first tokens; those after it are left out, so that
        `len(marker_positions) < num_sentences`.
        """
        closing = [] if self.separator_token_id is None else [self.separator_token_id]
        room = None if self.max_input_tokens is None else self.max_input_tokens - len(closing)
        ids: list[int] = []
        positions: list[int] = []
        for sentence in sentence_ids:
            # A marker without any token of its sentence would be scored on nothing.
            if room is not None and len(ids) + 1 + bool(sentence) > room:
                break
            positions.append(len(ids))
            ids.append(self.marker_token_id)
            ids.extend(sentence)
            if room is not None:
                del ids[room:]
        return TokenizedStory(ids + closing, positions, len(sentence_ids))

    def length(self, sentence_ids: Sequence[Sequence[int]]) -> int:
        """Tokens of the whole story, markers and separator included, before anything is cut off."""
        return sum(len(ids) + 1 for ids in sentence_ids) + (self.separator_token_id is not None)

    @property
    def room(self) -> int:
        """The most tokens of sentences and markers of a text to be ordered, without the separator.

        At most `LONGEST_TEXT` where nothing limits the encoder: its memory may grow with the square of the length.
        """
        longest = LONGEST_TEXT if self.max_input_tokens is None else self.max_input_tokens
        return longest - (self.separator_token_id is not None)

    def fits(self, sentence_ids: Sequence[Sequence[int]]) -> bool:
        """Whether a text to be ordered goes through the encoder in one piece."""
        return sum(len(ids) + 1 for ids in sentence_ids) <= self.room

    def shortened(self, sentence_ids: Sequence[list[int]]) -> tuple[list[list[int]], list[int]]:
        """The sentences of a text to be ordered, each short enough to be shown together with any other one.

        A text that fits is unchanged. In other texts a sentence that takes more than half of `room`, including its
        marker, is cut to that.

        Returns:
            The ids of each sentence, and the indices of the sentences that were cut.
        """
        if self.fits(sentence_ids):
            return list(sentence_ids), []
        most = max(self.room // 2 - 1, 0)
        return [ids[:most] for ids in sentence_ids], [i for i, ids in enumerate(sentence_ids) if len(ids) > most]

    def collate(
        self,
        stories: Sequence[TokenizedStory],
        labels: Sequence[Sequence[int]] | None = None,
        *,
        pad_to_multiple_of: int | None = None,
        num_stories: float | None = None,
        twins: bool = False,
    ) -> dict[str, Tensor]:
        """Pads tokenized stories to one batch.

        Args:
            stories: the batch.
            labels: for each story, the original index (0 … N-1) of each of its sentences in input order.
            pad_to_multiple_of: of the tokens.
            num_stories: for the loss, see `SentenceOrderingModel.forward`; each story counts once, also with twins.
            twins: whether each story is followed by itself in another shuffle, for the consistency term of the loss.

        Returns:
            int64 tensors: `input_ids` and `attention_mask` `(batch, tokens)`; `marker_positions`
            `(batch, max_sentences)`, -1 where a story has no such sentence or it was cut off; with labels,
            `labels` `(batch, max_sentences)`, -100 for padding. A sentence that was cut off keeps its label; it
            has no score and does not contribute to the loss, but counts for the length of the story in a scaled target.
            `num_stories` as the number of rows, and `is_twin` `(batch,)`, bool, if given.
        """
        tokens = max((len(story.input_ids) for story in stories), default=0)
        tokens += -tokens % (pad_to_multiple_of or 1)
        sentences = max((story.num_sentences for story in stories), default=0)
        batch = {
            "input_ids": _padded([story.input_ids for story in stories], tokens, self.pad_token_id),
            "attention_mask": _padded([[1] * len(story.input_ids) for story in stories], tokens, 0),
            "marker_positions": _padded([story.marker_positions for story in stories], sentences, -1),
        }
        if labels is not None:
            batch["labels"] = _padded(labels, sentences, PADDING)
        if num_stories is not None:
            batch["num_stories"] = torch.tensor((2 if twins else 1) * float(num_stories))
        if twins:
            batch["is_twin"] = torch.arange(len(stories)) % 2 == 1
        return batch


def batches_by_length(
    lengths: Sequence[int], *, batch_size: int | None = None, batch_tokens: int | None = None
) -> list[list[int]]:
    """Indices of sequences in batches of similar length, longest first, so that a batch too large for memory is first.

    Args:
        lengths: tokens of each sequence.
        batch_size: the most sequences in a batch.
        batch_tokens: the most tokens in a batch, padding included; a longer sequence is a batch of its own.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        count = len(batches[-1]) + 1 if batches else 0
        is_full = count == 0 or (batch_size is not None and count > batch_size)
        if is_full or (batch_tokens is not None and count * lengths[batches[-1][0]] > batch_tokens):
            batches.append([])
        batches[-1].append(index)
    return batches


def _check_unicode(sentences: Sequence[str]) -> None:
    for index, sentence in enumerate(sentences):
        try:
            sentence.encode()
        except UnicodeEncodeError as error:
            half = sentence[error.start]
            raise ValueError(f"sentence {index} is not text: it contains {half!r}, half of a surrogate pair") from None


def _padded(rows: Sequence[Sequence[int]], width: int, value: int) -> Tensor:
    """Rows padded on the right to one int64 tensor `(len(rows), width)`."""
    padded = [[*row, *[value] * (width - len(row))] for row in rows]
    return torch.tensor(padded, dtype=torch.long).view(len(rows), width)


def as_list(value: Any) -> Any:
    """An array, tensor, Series, or column or table of Arrow or pandas as a list; other values unchanged."""
    for method in ("to_pylist", "tolist"):  # Arrow; NumPy, pandas, torch and `array.array`
        if hasattr(value, method):
            return getattr(value, method)()
    if hasattr(value, "to_dict") and hasattr(value, "columns"):  # a pandas DataFrame
        return value.to_dict("records")
    is_lazy = hasattr(value, "column_names")  # a `datasets.Dataset`, which is read row by row
    is_other_sequence = isinstance(value, Sequence) and not isinstance(value, (str, bytes, list, tuple))
    return list(value) if is_other_sequence and not is_lazy else value


def as_sentences(story: Any) -> list[str]:
    """The sentences of one story, from a list or anything that `as_list` converts.

    Raises:
        TypeError: if it is one string, or a sentence is not a string.
    """
    story = as_list(story)
    if isinstance(story, (str, bytes)) or not isinstance(story, Sequence):
        raise TypeError(f"a story is a list of sentences, not {type(story).__name__}")
    for index, sentence in enumerate(story):
        if not isinstance(sentence, str):
            raise TypeError(f"sentence {index} of a story is {type(sentence).__name__}, not a string")
    return list(story)


@dataclass
class DataCollatorForSentenceOrdering:
    """Data collator that tokenizes stories and pads them to a batch for [`SentenceOrderingModel`].

    A row is a story, in one of these forms:

    - `sentences` in shuffled order and `labels`, the original index (0 … N-1) of each sentence, as in the data set
      `shuffled_rocstories`;
    - `sentences` in their true order, without labels, and `shuffle=True`;
    - `input_ids`, `marker_positions` and `labels`, as `dataset.map(collator.tokenize, batched=True)` makes them.
      `Trainer` then needs no `remove_unused_columns=False`;
    - any of them without labels, to predict.

    Other columns are ignored.

    Args:
        tokenizer: the model's tokenizer.
        config: the model's config.
        shuffle: show the sentences of each story in a random order. The order depends on the seed and on the stories
            in the batch: a story is shuffled anew in each epoch if batches are drawn at random, and equal batches are
            always equal, also after resuming and in a worker process.
        seed: of the shuffles.
        twins: with `shuffle=True`, show each story twice, in two shuffles, for the consistency term of the loss; if
            None, where the config has a `consistency` above 0. `is_twin` of the batch marks the second ones.
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
            ValueError: if a row has none of the forms above, or its labels do not match its sentences.
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
        batch = self._story_tokenizer.collate(
            tokenized,
            known,
            pad_to_multiple_of=self.pad_to_multiple_of,
            num_stories=features[0].get("num_stories") if features else None,
            twins=twins,
        )
        return batch if self.return_tensors == "pt" else {name: tensor.numpy() for name, tensor in batch.items()}

    def tokenize(self, rows: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Tokenizes stories, for `dataset.map(collator.tokenize, batched=True)`.

        Args:
            rows: columns; `sentences` of each story, and `labels` if there are any.

        Returns:
            The columns `input_ids` and `marker_positions`, -1 for a sentence that the encoder's limit cut off, and
            `labels` if there are any, so that all other columns can be removed. With `shuffle=True` and without
            labels the sentences are in their true order, and so are the `labels`.
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
        return self._story_tokenizer.tokenize_stories(stories, longest=self._story_tokenizer.max_input_tokens)

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
        num_sentences: sentences of the story, including those cut off.
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
