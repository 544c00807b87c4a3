"""Orders stories from files of any size: read, score and write in portions, in input order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from dataset_builder import BadRecord, Story
from modeling_sentence_ordering import (
    FixedPoints,
    SentenceOrderingModel,
    StoryScores,
    StoryTokenizer,
    in_order,
    score_stories,
)
from modeling_sentence_ordering.pipeline_sentence_ordering import BATCH_TOKENS, PORTION


@dataclass(frozen=True)
class OrderedStory:
    """One story put in order, or why it could not be.

    Attributes:
        story: as it was read; None for a record that could not be read.
        sentences: in order.
        order: for each of them its index in the input.
        scores: one per input sentence; lower comes first.
        confidence: for each sentence but the last, the probability that it comes before the next; None of a model
            whose scores have not been calibrated.
        truncated: indices of input sentences of which only the beginning was read.
        error: what was wrong, or None.
    """

    story: Story | None
    sentences: list[str] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    confidence: list[float] | None = None
    truncated: list[int] = field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True)
class _Portion:
    """Records of the input, and of those that can be ordered what the model needs.

    Attributes:
        records: stories, and the records that could not be read as one.
        errors: why a story cannot be ordered, by its place.
        waiting: of the others place, story, ids of its sentences, those that were cut, and what is known of its order.
    """

    records: list[Story | BadRecord]
    errors: dict[int, str]
    waiting: list[tuple[int, Story, list[list[int]], list[int], FixedPoints]]


def order_stories(
    model: SentenceOrderingModel,
    tokenizer: Any,
    stories: Iterable[Story | BadRecord],
    *,
    batch_size: int | None = None,
    batch_tokens: int | None = BATCH_TOKENS,
    num_permutations: int = 1,
    read_ahead: bool = False,
) -> Iterator[OrderedStory]:
    """Puts stories in order, one answer for each record that comes in, in its order.

    Args:
        model: a trained model, in eval mode.
        tokenizer: the model's.
        stories: stories with their sentences as given, and the records that could not be read as one.
        batch_size, batch_tokens, num_permutations: see `score_stories`.
        read_ahead: read and tokenize the next portion while the model is at this one. Not for input that somebody
            types: the answers would wait for it.
    """
    story_tokenizer = StoryTokenizer(tokenizer, model.config)
    records = iter(stories)

    def scored(portion: _Portion) -> list[OrderedStory]:
        texts, ids = [story.sentences for _, story, *_ in portion.waiting], [ids for _, _, ids, *_ in portion.waiting]
        scores = score_stories(
            model,
            story_tokenizer,
            texts,
            ids,
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            num_permutations=num_permutations,
        )
        return _answers(portion, scores, model.config.confidence_temperature)

    # Tokenizers let go of Python's lock, and so does the model. Reading stays in this thread: one that waits for
    # standard input cannot be ended.
    with ThreadPoolExecutor(1) as executor:
        coming: Future[_Portion] | None = None
        while coming is not None or (read := list(islice(records, PORTION))):
            portion = _prepared(read, story_tokenizer) if coming is None else coming.result()
            coming = None
            try:
                read = list(islice(records, PORTION)) if read_ahead else []
            except Exception:
                yield from scored(portion)  # what came before is answered all the same
                raise
            if read:
                coming = executor.submit(_prepared, read, story_tokenizer)
            yield from scored(portion)


def _prepared(records: list[Story | BadRecord], story_tokenizer: StoryTokenizer) -> _Portion:
    portion = _Portion(records, {}, [])
    places = [place for place, record in enumerate(records) if isinstance(record, Story)]
    stories = [record for record in records if isinstance(record, Story)]
    try:
        tokenized: list[list[list[int]] | None] = list(
            story_tokenizer.tokenize_stories([story.sentences for story in stories], longest=story_tokenizer.room)
        )
    except ValueError:  # one of them is no text: which one shows when they are taken one by one
        tokenized = [None] * len(stories)
    for place, story, ids in zip(places, stories, tokenized, strict=True):
        try:
            shortened = story_tokenizer.shortened(
                story_tokenizer.tokenize(story.sentences, longest=story_tokenizer.room) if ids is None else ids
            )
            fixed = FixedPoints.read(story.fixed_points, len(story.sentences))
        except ValueError as error:
            portion.errors[place] = str(BadRecord(story.file, story.row, str(error)))
        else:
            portion.waiting.append((place, story, *shortened, fixed))
    return portion


def _answers(portion: _Portion, scores: list[StoryScores], temperature: float | None) -> list[OrderedStory]:
    answers: dict[int, OrderedStory] = {}
    for place, record in enumerate(portion.records):
        if isinstance(record, BadRecord):
            answers[place] = OrderedStory(None, error=str(record))
        elif place in portion.errors:
            answers[place] = OrderedStory(record, error=portion.errors[place])
    for (place, story, _, truncated, fixed), found in zip(portion.waiting, scores, strict=True):
        try:
            answer = in_order(
                story.sentences, found.scores, pair_logits=found.pair_logits, temperature=temperature, fixed=fixed
            )
        except ValueError as error:  # its scores are not finite
            answers[place] = OrderedStory(story, error=str(BadRecord(story.file, story.row, str(error))))
        else:
            answers[place] = OrderedStory(story, **answer, truncated=truncated)
    return [answers[place] for place in range(len(portion.records))]
