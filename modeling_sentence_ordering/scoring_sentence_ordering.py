"""Scores of many stories at once, for the pipeline, `order` and `evaluate` alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .arrangement_sentence_ordering import arrangements, average_scores
from .encoding_sentence_ordering import StoryTokenizer, batches_by_length
from .long_texts_sentence_ordering import score_long_text

BATCH_TOKENS = 8192
"""Tokens, padding included, that go through the encoder at once where nobody says otherwise."""


def score_stories(
    model: Any,
    story_tokenizer: StoryTokenizer,
    stories: Sequence[Sequence[str]],
    sentence_ids: Sequence[list[list[int]]],
    *,
    batch_size: int | None = None,
    batch_tokens: int | None = BATCH_TOKENS,
    num_permutations: int = 1,
) -> list[list[float | None]]:
    """Scores every sentence, averaged over arrangements of its story, whatever order the sentences come in.

    Arrangements of similar length go through the model together, the longest first.

    Args:
        model: a `SentenceOrderingModel` in eval mode, or what is called like one.
        story_tokenizer: the model's.
        stories: sentences of each story.
        sentence_ids: their ids, see `StoryTokenizer.shortened`.
        batch_size: arrangements, of whichever stories, that go through the model at once at most.
        batch_tokens: tokens that do, padding included.
        num_permutations: arrangements of each story, fewer where it has not so many; of one that does not fit into the
            encoder, see `score_long_text`.

    Returns:
        For each story one score per sentence in input order, see `average_scores`.
    """
    fits = [story_tokenizer.fits(ids) for ids in sentence_ids]
    ways = [
        arrangements(sentences, num_permutations) if fit else [] for sentences, fit in zip(stories, fits, strict=True)
    ]
    rows: list[list[list[float]]] = [[[] for _ in story] for story in ways]
    places = [(story, number) for story, shown in enumerate(ways) for number in range(len(shown))]
    lengths = [story_tokenizer.length(sentence_ids[story]) for story, _ in places]
    with torch.inference_mode():
        for batch in batches_by_length(lengths, batch_size=batch_size, batch_tokens=batch_tokens):
            chosen = [places[i] for i in batch]
            # A story of no sentence goes through the model as one bare marker.
            tokenized = [
                story_tokenizer.assemble([sentence_ids[story][i] for i in ways[story][number]] or [[]])
                for story, number in chosen
            ]
            inputs = story_tokenizer.collate(tokenized)
            logits = model(**{key: value.to(model.device) for key, value in inputs.items()}).logits.tolist()
            for (story, number), shown, row in zip(chosen, tokenized, logits, strict=True):
                rows[story][number] = row[: len(shown.marker_positions)]
        scores = [average_scores(*story) for story in zip(stories, ways, rows, strict=True)]
        for place, fit in enumerate(fits):
            if not fit:
                long_text = (stories[place], sentence_ids[place])
                scores[place] = list(
                    score_long_text(model, story_tokenizer, *long_text, num_permutations=num_permutations)
                )
    return scores
