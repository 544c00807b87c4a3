"""Orders stories from files of any size: read, score and write in portions, in input order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from dataset_builder.story import BadRecord, Story
from modeling_sentence_ordering import FixedPoints, SentenceOrderingModel, StoryTokenizer, in_order

from .scoring import score_stories

# Stories that are read before any is scored: enough to find batches of similar length among them.
PORTION = 1024


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


def order_stories(
    model: SentenceOrderingModel,
    tokenizer: Any,
    stories: Iterable[Story | BadRecord],
    *,
    batch_size: int = 64,
    num_permutations: int = 1,
) -> Iterator[OrderedStory]:
    """Puts stories in order, one answer for each record that comes in, in its order.

    Args:
        model: a trained model, in eval mode.
        tokenizer: the model's.
        stories: stories with their sentences as given, and the records that could not be read as one.
        batch_size: arrangements, of whichever stories, that go through the model at once.
        num_permutations: arrangements of each story that its scores are averaged over.
    """
    story_tokenizer = StoryTokenizer(tokenizer, model.config)
    records = iter(stories)
    while portion := list(islice(records, PORTION)):
        yield from _order_portion(model, story_tokenizer, portion, batch_size, num_permutations)


def _order_portion(
    model: SentenceOrderingModel,
    story_tokenizer: StoryTokenizer,
    portion: list[Story | BadRecord],
    batch_size: int,
    num_permutations: int,
) -> list[OrderedStory]:
    answers: list[OrderedStory | None] = [None] * len(portion)
    waiting: list[tuple[int, Story, list[list[int]], list[int], FixedPoints]] = []
    for place, record in enumerate(portion):
        if isinstance(record, BadRecord):
            answers[place] = OrderedStory(None, error=str(record))
            continue
        try:
            ids, truncated = story_tokenizer.shortened(story_tokenizer.tokenize(record.sentences))
            fixed = FixedPoints.read(record.fixed_points, len(record.sentences))
        except ValueError as error:
            answers[place] = OrderedStory(record, error=str(BadRecord(record.file, record.row, str(error))))
        else:
            waiting.append((place, record, ids, truncated, fixed))
    texts, tokenized = [story.sentences for _, story, *_ in waiting], [ids for _, _, ids, *_ in waiting]
    scores = score_stories(
        model, story_tokenizer, texts, tokenized, batch_size=batch_size, num_permutations=num_permutations
    )
    temperature = model.config.confidence_temperature
    for (place, story, _, truncated, fixed), row in zip(waiting, scores, strict=True):
        answer = in_order(story.sentences, row, temperature=temperature, fixed=fixed)
        answers[place] = OrderedStory(story, **answer, truncated=truncated)
    return [answer for answer in answers if answer is not None]
