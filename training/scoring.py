"""Scores of stories shown in the arrangements that their sentences decide, for `order` and `evaluate` alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from modeling_sentence_ordering import (
    SentenceOrderingModel,
    StoryTokenizer,
    arrangements,
    average_scores,
    score_long_text,
)

from .batches import evaluation_batches


def score_stories(
    model: SentenceOrderingModel,
    story_tokenizer: StoryTokenizer,
    stories: Sequence[Sequence[str]],
    sentence_ids: Sequence[list[list[int]]],
    *,
    batch_size: int,
    num_permutations: int = 1,
) -> list[list[float | None]]:
    """Scores every sentence, averaged over arrangements of its story, whatever order the sentences come in.

    Args:
        model: in eval mode.
        story_tokenizer: the model's.
        stories: sentences of each story.
        sentence_ids: their ids, see `StoryTokenizer.shortened`.
        batch_size: arrangements, of whichever stories, that go through the model at once.
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
    for batch in evaluation_batches(lengths, batch_size):
        chosen = [places[i] for i in batch]
        # A story of no sentence goes through the model as one bare marker.
        tokenized = [
            story_tokenizer.assemble([sentence_ids[story][i] for i in ways[story][number]] or [[]])
            for story, number in chosen
        ]
        inputs = story_tokenizer.collate(tokenized)
        with torch.inference_mode():
            logits = model(**{key: value.to(model.device) for key, value in inputs.items()}).logits.tolist()
        for (story, number), shown, row in zip(chosen, tokenized, logits, strict=True):
            rows[story][number] = row[: len(shown.marker_positions)]
    scores = [average_scores(*story) for story in zip(stories, ways, rows, strict=True)]
    for place, fit in enumerate(fits):
        if not fit:
            scores[place] = list(
                score_long_text(
                    model,
                    story_tokenizer,
                    stories[place],
                    sentence_ids[place],
                    num_permutations=num_permutations,
                )
            )
    return scores
