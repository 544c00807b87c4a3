"""From sentences to ids: the one place where a story becomes the token sequence that the encoder reads.

    marker, tokens of sentence 1, marker, tokens of sentence 2, ..., separator (if the encoder has one)

Data set, collator and pipeline all call `StoryTokenizer`, so that a model is never shown anything it was not
trained on. It works in two steps, since sentences are tokenized once and shuffled in every epoch: `tokenize` turns
each sentence into ids, `assemble` puts the ids of sentences into one sequence. `collate` pads a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .configuration_sentence_ordering import SentenceOrderingConfig
from .repository_sentence_ordering import rust_errors

LONGEST_TEXT = 4096
"""Tokens that an encoder without a limit is shown at once of a text that is to be ordered."""
LONGEST_SENTENCE = 2**20
"""Characters of a sentence that are tokenized at most where only its first tokens are wanted."""
# A sentence is cut to so many characters for each wanted token; if that gives too few tokens, to twice as many.
_CHARACTERS_PER_TOKEN = 8
# The last tokens before a cut may differ from those of the whole sentence (a word is cut in two), so these are spare.
# WordPiece makes one unknown token of a word of more than 100 characters, but up to 100 tokens of a shorter one.
_SPARE_TOKENS = 256


class TokenizedStory(NamedTuple):
    """One story as a token sequence.

    Attributes:
        input_ids: the ids, at most `max_input_tokens` of them.
        marker_positions: for each sentence that is in the sequence, where its marker stands. Shorter than the story
            where the encoder's limit cut sentences off; it is always the last ones that are missing.
        num_sentences: sentences of the story, those cut off included.
    """

    input_ids: list[int]
    marker_positions: list[int]
    num_sentences: int


class StoryTokenizer:
    """Turns stories into ids for one model.

    Args:
        tokenizer: the encoder's tokenizer, with the marker in its vocabulary (see `load_tokenizer`).
        config: the model's config, which says what the marker and the separator are and how much fits.

    Raises:
        ValueError: if the tokenizer cannot belong to this model.
    """

    def __init__(self, tokenizer: Any, config: SentenceOrderingConfig) -> None:
        if config.marker_token_id is None:
            raise ValueError("the model's config names no marker_token_id, so sentences cannot be marked")
        vocab_size = getattr(config.backbone_config, "vocab_size", None)
        if vocab_size is not None and len(tokenizer) > vocab_size:
            raise ValueError(
                f"this tokenizer has {len(tokenizer)} tokens and the model's embedding {vocab_size} rows: "
                "they do not belong together; load the tokenizer from the folder or repository of the model"
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
        """The ids of each sentence by itself, without any special token.

        A special token written in a sentence (`[CLS]`, `</s>`) is text like any other. Most tokenizers split it
        into pieces when told to; Unigram and WordLevel vocabularies return its id all the same, and then the
        unknown token stands in for it (or nothing, where there is none): a marker inside of a sentence would be
        read as the beginning of another one.

        Args:
            sentences: of one story.
            longest: the number of tokens of a sentence that are wanted. The rest of a very long sentence is not
                tokenized: it gets more than `longest` ids, and the first `longest` are those of the whole sentence.
                Nothing beyond `LONGEST_SENTENCE` characters is read.

        Raises:
            ValueError: if a sentence has half of a surrogate pair in it, which is no text.
        """
        return self.tokenize_stories([sentences], longest=longest)[0]

    def tokenize_stories(
        self, stories: Sequence[Sequence[str]], *, longest: int | None = None
    ) -> list[list[list[int]]]:
        """The ids of each sentence of each story, see `tokenize`, by one call of the tokenizer: it uses all cores.

        Raises:
            ValueError: as `tokenize` does.
        """
        for story in stories:
            _refuse_what_is_no_text(story)
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
                verbose=False,  # a sentence longer than the encoder's limit is our business, not a warning
            )["input_ids"]
        return [ids if self._special_ids.isdisjoint(ids) else self._without_special(ids) for ids in encoded]

    def _without_special(self, ids: list[int]) -> list[int]:
        return [new for i in ids for new in (self._replacement if i in self._special_ids else (i,))]

    def assemble(self, sentence_ids: Sequence[Sequence[int]]) -> TokenizedStory:
        """The sequence for sentences in the given order, cut off at the encoder's limit.

        The last sentence that still fits in part keeps its first tokens; those after it are left out, and a reader
        of `TokenizedStory` sees it by `len(marker_positions) < num_sentences`.
        """
        closing = [] if self.separator_token_id is None else [self.separator_token_id]
        room = None if self.max_input_tokens is None else self.max_input_tokens - len(closing)
        ids: list[int] = []
        positions: list[int] = []
        for sentence in sentence_ids:
            # A marker with no token of its sentence behind it would be scored on nothing.
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

    def count_fitting(self, sentence_ids: Sequence[Sequence[int]]) -> int:
        """How many of these sentences, from the first on, the encoder takes whole."""
        if self.max_input_tokens is None:
            return len(sentence_ids)
        used = int(self.separator_token_id is not None)
        for count, ids in enumerate(sentence_ids):
            used += len(ids) + 1
            if used > self.max_input_tokens:
                return count
        return len(sentence_ids)

    @property
    def room(self) -> int:
        """Tokens for sentences and markers of a text that is to be ordered, the separator besides.

        `LONGEST_TEXT` at most where nothing limits the encoder: its memory may grow with the square of the length.
        """
        longest = LONGEST_TEXT if self.max_input_tokens is None else self.max_input_tokens
        return longest - (self.separator_token_id is not None)

    def shortened(self, sentence_ids: Sequence[list[int]]) -> tuple[list[list[int]], list[int]]:
        """The sentences of a text that is to be ordered, each short enough to be compared with any other.

        A text that fits is left as it is. Of one that does not, a sentence that takes more than half of `room`, its
        marker included, is cut to that, so that any two fit together.

        Returns:
            The ids of each sentence, and the indices of those that were cut.
        """
        if self.fits(sentence_ids):
            return list(sentence_ids), []
        most = max(self.room // 2 - 1, 0)
        return [ids[:most] for ids in sentence_ids], [i for i, ids in enumerate(sentence_ids) if len(ids) > most]

    def fits(self, sentence_ids: Sequence[Sequence[int]]) -> bool:
        """Whether a text that is to be ordered goes through the encoder in one piece."""
        return sum(len(ids) + 1 for ids in sentence_ids) <= self.room

    def collate(
        self,
        stories: Sequence[TokenizedStory],
        labels: Sequence[Sequence[int]] | None = None,
        *,
        pad_to_multiple_of: int | None = None,
    ) -> dict[str, Tensor]:
        """Pads tokenized stories to one batch.

        Args:
            stories: the batch.
            labels: for each story, the original index (0 … N-1) of each of its sentences in input order.
            pad_to_multiple_of: of the tokens.

        Returns:
            int64 tensors: `input_ids` and `attention_mask` `(batch, tokens)`; `marker_positions`
            `(batch, max_sentences)`, -1 where a story has no such sentence or it was cut off; with labels,
            `labels` `(batch, max_sentences)`, -100 for padding. A sentence that was cut off keeps its label; it
            has no score, and so no part in the loss, but a scaled target still knows how long the story was.
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
            batch["labels"] = _padded(labels, sentences, -100)
        return batch


def batches_by_length(
    lengths: Sequence[int], *, batch_size: int | None = None, batch_tokens: int | None = None
) -> list[list[int]]:
    """Indices of sequences in batches of similar length, longest first: a batch too large for memory is met at once.

    Args:
        lengths: tokens of each sequence.
        batch_size: sequences in a batch at most.
        batch_tokens: tokens in a batch at most, padding included; a sequence that has more is a batch of its own.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        count = len(batches[-1]) + 1 if batches else 0
        is_full = count == 0 or (batch_size is not None and count > batch_size)
        if is_full or (batch_tokens is not None and count * lengths[batches[-1][0]] > batch_tokens):
            batches.append([])
        batches[-1].append(index)
    return batches


def _refuse_what_is_no_text(sentences: Sequence[str]) -> None:
    for place, sentence in enumerate(sentences):
        try:
            sentence.encode()
        except UnicodeEncodeError as error:
            half = sentence[error.start]
            raise ValueError(f"sentence {place} is not text: {half!r} in it is half of a surrogate pair") from None


def _padded(rows: Sequence[Sequence[int]], width: int, value: int) -> Tensor:
    """Rows padded on the right to one int64 tensor `(len(rows), width)`."""
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=torch.long).view(
        len(rows), width
    )


def as_list(value: Any) -> Any:
    """A list of what an array, a tensor, a Series or a column or table of Arrow holds; other values as they are."""
    for method in ("to_pylist", "tolist"):  # Arrow; NumPy, pandas, torch and `array.array`
        if hasattr(value, method):
            return getattr(value, method)()
    if hasattr(value, "to_dict") and hasattr(value, "columns"):  # a pandas DataFrame
        return value.to_dict("records")
    is_lazy = hasattr(value, "column_names")  # a `datasets.Dataset`, which is read row by row
    is_other_sequence = isinstance(value, Sequence) and not isinstance(value, (str, bytes, list, tuple))
    return list(value) if is_other_sequence and not is_lazy else value


def as_sentences(story: Any) -> list[str]:
    """The sentences of one story, from a list or whatever `as_list` takes.

    Raises:
        TypeError: if it is one string, or a sentence is not a string.
    """
    story = as_list(story)
    if isinstance(story, (str, bytes)) or not isinstance(story, Sequence):
        raise TypeError(f"a story is a list of sentences, not {type(story).__name__}")
    for place, sentence in enumerate(story):
        if not isinstance(sentence, str):
            raise TypeError(f"sentence {place} of a story is {type(sentence).__name__}, not a string")
    return list(story)
