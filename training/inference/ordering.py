"""Orders stories from files of any size, in portions and in input order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice, repeat
from typing import Any

from dataset_builder import BadRecord, Story
from modeling_sentence_ordering import (
    AnswerOptions,
    FixedPoints,
    SentenceOrderingModel,
    StoryScores,
    StoryTokenizer,
    answer_of,
    score_stories,
)
from modeling_sentence_ordering.pipeline_sentence_ordering import BATCH_TOKENS, PORTION


@dataclass(frozen=True)
class OrderedStory:
    """An ordered story, or the error for its record.

    Attributes:
        story: the input; None for a record that could not be read.
        sentences: in the predicted order.
        order: their indices in the input.
        scores: one per input sentence; the lowest comes first.
        confidence: for each sentence but the last, the probability that it comes before the next; None if the model is
            not calibrated.
        truncated: indices of input sentences whose beginning alone was read.
        pairwise, layers, moved, coherence: see `SentenceOrderingPipeline`; None unless asked for.
        error: error message, or None.
    """

    story: Story | None
    sentences: list[str] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    confidence: list[float] | None = None
    truncated: list[int] = field(default_factory=list)
    pairwise: list[list[float]] | None = None
    layers: list[list[int]] | None = None
    moved: list[int] | None = None
    coherence: dict[str, Any] | None = None
    error: str | None = None


@dataclass(frozen=True)
class _Tokenized:
    """A story for the model: token ids of each sentence, indices of truncated ones, and constraints on the order."""

    story: Story
    ids: list[list[int]]
    truncated: list[int]
    fixed: FixedPoints


_Portion = list[OrderedStory | _Tokenized]
"""One entry for each record of the input: the story to score, or its error."""


def order_stories(
    model: SentenceOrderingModel,
    tokenizer: Any,
    stories: Iterable[Story | BadRecord],
    *,
    batch_size: int | None = None,
    batch_tokens: int | None = BATCH_TOKENS,
    num_permutations: int = 1,
    answer_options: AnswerOptions = AnswerOptions(),  # noqa: B008 - frozen
    read_ahead: bool = False,
) -> Iterator[OrderedStory]:
    """Orders stories; yields one answer for each record, in input order.

    Args:
        model: a trained model, in eval mode.
        tokenizer: the model's.
        stories: the input, with the records that could not be read.
        batch_size, batch_tokens, num_permutations: see `score_stories`.
        answer_options: what the answers contain in addition to the order.
        read_ahead: read and tokenize the next portion while the model scores this one. Not for input from a terminal:
            the answers would wait for it.
    """
    story_tokenizer = StoryTokenizer(tokenizer, model.config)
    records = iter(stories)

    def scored(portion: _Portion) -> list[OrderedStory]:
        stories = [entry for entry in portion if isinstance(entry, _Tokenized)]
        scores = iter(
            score_stories(
                model,
                story_tokenizer,
                [entry.story.sentences for entry in stories],
                [entry.ids for entry in stories],
                batch_size=batch_size,
                batch_tokens=batch_tokens,
                num_permutations=num_permutations,
            )
        )
        temperature = model.config.confidence_temperature
        return [
            entry if isinstance(entry, OrderedStory) else _answer(entry, next(scores), temperature, answer_options)
            for entry in portion
        ]

    # Tokenizers and model release the GIL. Reading stays in this thread, because a thread that waits for standard input
    # cannot be stopped.
    with ThreadPoolExecutor(1) as executor:
        coming: Future[_Portion] | None = None
        while coming is not None or (read := list(islice(records, PORTION))):
            portion = _prepared(read, story_tokenizer) if coming is None else coming.result()
            coming = None
            try:
                read = list(islice(records, PORTION)) if read_ahead else []
            except Exception:
                yield from scored(portion)  # answers for what was read before the error
                raise
            if read:
                coming = executor.submit(_prepared, read, story_tokenizer)
            yield from scored(portion)


def _prepared(records: list[Story | BadRecord], story_tokenizer: StoryTokenizer) -> _Portion:
    stories = [record.sentences for record in records if isinstance(record, Story)]
    tokenized: Iterator[list[list[int]] | None]
    try:
        tokenized = iter(list(story_tokenizer.tokenize_stories(stories, longest=story_tokenizer.room)))
    except ValueError:  # one of them is not text: `_tokenized` finds out which
        tokenized = repeat(None)
    return [
        OrderedStory(None, error=str(record))
        if isinstance(record, BadRecord)
        else _tokenized(record, next(tokenized), story_tokenizer)
        for record in records
    ]


def _tokenized(story: Story, ids: list[list[int]] | None, story_tokenizer: StoryTokenizer) -> OrderedStory | _Tokenized:
    try:
        if ids is None:
            ids = story_tokenizer.tokenize(story.sentences, longest=story_tokenizer.room)
        fixed = FixedPoints.read(story.fixed_points, len(story.sentences))
        return _Tokenized(story, *story_tokenizer.shortened(ids), fixed)
    except ValueError as error:
        return OrderedStory(story, error=str(BadRecord(story.file, story.row, str(error))))


def _answer(
    entry: _Tokenized, scores: StoryScores, temperature: float | None, answer_options: AnswerOptions
) -> OrderedStory:
    story = entry.story
    try:
        answer = answer_of(story.sentences, scores, temperature=temperature, fixed=entry.fixed, options=answer_options)
    except ValueError as error:  # scores that are not finite, or a text too long for its pairs
        return OrderedStory(story, error=str(BadRecord(story.file, story.row, str(error))))
    return OrderedStory(story, **answer, truncated=entry.truncated)
