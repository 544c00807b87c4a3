"""Passages of texts that are too long to be trained on whole: `--passage_sentences MIN MAX`.

In every epoch a long text is cut anew into passages of MIN to MAX consecutive sentences (`cut_story`). Each sentence is
in one of them, except in passages that have more tokens than the encoder reads: of those, a part that fits is drawn
(`fitting`). The number of passages of a text depends on its length only, so that all epochs have equally many steps.

`TextPassages` draws from a table, `PassageStream` from a stream; samplers and loaders treat a passage as a story.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dataset_builder import Story, StoryStream, generator_of_story, story_key
from dataset_builder.streaming import ReadingOrder

from .batches import Draw

if TYPE_CHECKING:
    from .stories import TokenizedStories


def passage_counts(
    sentences: np.ndarray, sizes: Sequence[int], tokens: np.ndarray | None = None, room: int = 0
) -> np.ndarray:
    """Number of passages in an epoch, `(texts,)` int: 1 for a text that is taken whole.

    Args:
        sentences: of each text, `(texts,)` int.
        sizes: fewest and most sentences of a passage.
        tokens: of each text with its markers, `(texts,)` int; None if unknown, as in a stream. A text has enough
            passages for all of its tokens.
        room: see `StoryTokenizer.room`.
    """
    fewest, most = sizes
    possible = np.maximum(sentences // fewest, 1)
    counts = np.rint(2 * sentences / (fewest + most)).astype(np.int64)
    counts = np.clip(np.maximum(counts, -(-sentences // most)), 1, possible)
    if tokens is None:
        return np.where(sentences <= most, 1, counts)
    counts = np.maximum(counts, np.minimum(-(-tokens // room), np.maximum(sentences // 2, 1)))
    return np.where((sentences <= most) & (tokens <= room), 1, counts)


def cut_story(
    key: str, num_sentences: int, count: int, sizes: Sequence[int], seed: int, epoch: int
) -> list[tuple[int, int]]:
    """Cuts a story into passages; the result depends only on the arguments, as that of `shuffle_of_story`.

    Args:
        key: from `story_key`.
        num_sentences: sentences of the story.
        count: number of passages, from `passage_counts`.
        sizes: fewest and most sentences of a passage.
        seed: the seed.
        epoch: epoch of training, counted from 0. Evaluation has the passages of epoch 0.

    Returns:
        First sentence of each passage and the one after its last. Passages do not overlap. They have fewer sentences
        than the fewest only if the count requires it, and leave out sentences only if the most requires it.
    """
    if count == 1 and num_sentences <= sizes[1]:
        return [(0, num_sentences)]
    generator = generator_of_story(f"{key}/passages", seed, epoch)
    fewest, most = min(sizes[0], num_sentences // count), sizes[1]
    left = min(num_sentences, count * most)
    start = generator.randint(0, num_sentences - left)
    lengths = []
    for after in range(count - 1, -1, -1):
        lengths.append(generator.randint(max(fewest, left - after * most), min(most, left - after * fewest)))
        left -= lengths[-1]
    generator.shuffle(lengths)  # the limits of the last ones are narrower
    ends = (start + np.cumsum(lengths)).tolist()
    return list(zip([start, *ends[:-1]], ends, strict=True))


def fitting(tokens: Sequence[int] | np.ndarray, room: int, key: str, seed: int, epoch: int) -> tuple[int, int]:
    """A random part of a passage that has at most `room` tokens, or two sentences; the whole passage if it fits.

    Args:
        tokens: of each sentence, marker included.
        room: see `StoryTokenizer.room`.
        key: identifies the passage.
        seed, epoch: as for `cut_story`.

    Returns:
        First sentence and the one after the last.
    """
    ends = np.cumsum(tokens)
    if len(ends) <= 2 or ends[-1] <= room:
        return 0, len(ends)
    last_start = int(np.searchsorted(ends, ends[-1] - room)) + 1  # the rest after it fits
    start = generator_of_story(key, seed, epoch).randint(0, min(last_start, len(ends) - 2))
    before = ends[start - 1] if start else 0
    return start, max(int(np.searchsorted(ends, before + room, side="right")), start + 2)


class TextPassages:
    """Passages of tokenized texts. Draws have the number of a passage among those of all texts.

    Args:
        texts: the texts.
        sizes: fewest and most sentences of a passage.
        seed: seed of the passages.
    """

    def __init__(self, texts: TokenizedStories, sizes: Sequence[int], seed: int) -> None:
        self.texts = texts
        self.story_tokenizer = texts.story_tokenizer
        self.sizes = tuple(sizes)
        self.seed = seed
        self.counts = passage_counts(texts.num_sentences, sizes, texts.num_tokens, self.story_tokenizer.room)
        self._ends = np.cumsum(self.counts)

    def __len__(self) -> int:
        """Passages in an epoch."""
        return int(self.counts.sum())

    def key_and_ids(self, draw: Draw) -> tuple[str, list[list[int]]]:
        """The key of a passage that was drawn, which is that of its text if it is the whole text, and its ids."""
        text = self._text(draw)
        key, ids = self.texts.key(text), self.texts.sentence_ids(text)
        number = draw.index - int(self._ends[text] - self.counts[text])
        start, stop = self._cut(text, key, len(ids), draw.epoch)[number]
        start, stop = self._fitting(key, [len(sentence) + 1 for sentence in ids], start, stop, draw.epoch)
        if stop - start == len(ids):
            return key, ids
        return f"{key}/{start}-{stop}", self.story_tokenizer.shortened(ids[start:stop])[0]

    def storyid(self, draw: Draw) -> str:
        """The id of the text of a passage that was drawn."""
        return self.texts.storyid(replace(draw, index=self._text(draw)))

    def bounds(self, text: int, epoch: int) -> list[tuple[int, int]]:
        """First sentence of each passage of a text, and the one after its last."""
        key, tokens = self.texts.key(text), self.texts.sentence_tokens(text)
        cut = self._cut(text, key, len(tokens), epoch)
        return [self._fitting(key, tokens, start, stop, epoch) for start, stop in cut]

    def _cut(self, text: int, key: str, num_sentences: int, epoch: int) -> list[tuple[int, int]]:
        return cut_story(key, num_sentences, int(self.counts[text]), self.sizes, self.seed, epoch)

    def _fitting(
        self, key: str, tokens: Sequence[int] | np.ndarray, start: int, stop: int, epoch: int
    ) -> tuple[int, int]:
        own = f"{key}/{start}-{stop}"
        first, last = fitting(tokens[start:stop], self.story_tokenizer.room, own, self.seed, epoch)
        return start + first, start + last

    def lengths_in(self, epoch: int) -> np.ndarray:
        """Tokens of each passage in the input of the encoder, `(passages,)` int."""
        lengths = np.repeat(self.texts.lengths, self.counts)
        for text in np.flatnonzero((self.counts > 1) | ~self.texts.fits).tolist():
            ends = np.cumsum([0, *self.texts.sentence_tokens(text)])
            own = [ends[stop] - ends[start] for start, stop in self.bounds(text, epoch)]
            separator = self.story_tokenizer.separator_token_id is not None
            lengths[self._ends[text] - self.counts[text] : self._ends[text]] = np.array(own) + separator
        return self._limited(lengths)

    @property
    def longest(self) -> np.ndarray:
        """The most tokens that each passage can have in any epoch, `(passages,)` int."""
        longest = self.texts.lengths
        for text in np.flatnonzero(self.counts > 1).tolist():
            ends = np.cumsum([0, *self.texts.sentence_tokens(text)])
            most = min(self.sizes[1], len(ends) - 1)
            longest[text] = min(longest[text], (ends[most:] - ends[:-most]).max() + 1)
        return self._limited(np.repeat(longest, self.counts))

    def _limited(self, lengths: np.ndarray) -> np.ndarray:
        most = self.story_tokenizer.max_input_tokens
        return lengths if most is None else np.minimum(lengths, most)

    def _text(self, draw: Draw) -> int:
        return int(np.searchsorted(self._ends, draw.index, side="right"))


@dataclass(frozen=True)
class StreamedPassage:
    """A passage of a streamed text, which stands for a `Story`.

    Attributes:
        sentences: of the passage, before it is shortened to fit.
        storyid: of the text.
        key: identifies the passage; the text's `story_key` if it is the whole text.
        text_hash: the text's `story_hash`.
        seed, epoch: of `fitting`.
    """

    sentences: tuple[str, ...]
    storyid: str
    key: str
    text_hash: str
    seed: int
    epoch: int


@dataclass(frozen=True)
class PassageOrder:
    """The passages of an epoch in reading order.

    Attributes:
        texts: of the row groups.
        ends: cumulative number of passages, `(texts,)` int.
        seed, epoch: of the passages.
    """

    texts: ReadingOrder
    ends: np.ndarray
    seed: int
    epoch: int


class PassageStream:
    """Passages of streamed texts, with the methods of `StoryStream` that a sampler calls.

    Args:
        stream: the texts.
        num_sentences: sentences of each text in the order of the files, `(texts,)` int.
        sizes: fewest and most sentences of a passage.
    """

    def __init__(self, stream: StoryStream, num_sentences: np.ndarray, sizes: Sequence[int]) -> None:
        self.texts = stream
        self._sizes = sizes
        self._counts = passage_counts(num_sentences, sizes)
        self._first = np.cumsum(self._counts) - self._counts

    def __len__(self) -> int:
        """Passages in an epoch."""
        return int(self._counts.sum())

    def order(self, seed: int, epoch: int = 0) -> PassageOrder:
        """The passages of an epoch in the order in which `StoryStream.order` reads their texts."""
        texts = self.texts.order(seed, epoch)
        groups = map(self.texts.rows_of, texts.files.tolist(), texts.groups.tolist())
        counts = np.concatenate([self._counts[rows.start : rows.stop] for rows in groups])
        return PassageOrder(texts, np.cumsum(counts), seed, epoch)

    def read(
        self, order: PassageOrder, start: int = 0, stop: int | None = None
    ) -> Iterator[tuple[int, StreamedPassage]]:
        """The passages from `start` to `stop` in an order, each with its number in the order of the files."""
        stop = len(self) if stop is None else stop
        if start >= stop:
            return
        first, last = (int(np.searchsorted(order.ends, passage, side="right")) for passage in (start, stop - 1))
        position = int(order.ends[first - 1]) if first else 0
        for row, story in self.texts.read(order.texts, first, last + 1):
            for number, passage in enumerate(self._passages(row, story, order), int(self._first[row])):
                if start <= position < stop:
                    yield number, passage
                position += 1

    def _passages(self, row: int, story: Story, order: PassageOrder) -> Iterator[StreamedPassage]:
        key, count, whole = story_key(story.storyid, story.sentences), int(self._counts[row]), len(story.sentences)
        for start, stop in cut_story(key, whole, count, self._sizes, order.seed, order.epoch):
            own = key if stop - start == whole else f"{key}/{start}-{stop}"
            sentences, text_hash = story.sentences[start:stop], key.rpartition("/")[2]
            yield StreamedPassage(sentences, story.storyid, own, text_hash, order.seed, order.epoch)
