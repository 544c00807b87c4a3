"""Scores of many stories at once, for the pipeline, `order` and `evaluate` alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .arrangement_sentence_ordering import arrangements, average_pair_logits, average_scores
from .encoding_sentence_ordering import StoryTokenizer, batches_by_length
from .long_texts_sentence_ordering import score_long_text

BATCH_TOKENS = 8192
"""Tokens, padding included, that go through the encoder at once where nobody says otherwise."""


@dataclass(frozen=True)
class StoryScores:
    """What a model says of one story.

    Attributes:
        scores: one per sentence in input order, see `average_scores`.
        pair_logits: `(sentences, sentences)`, float64, of a model with `head="pairs"`: [i, j] is the logit of
            «sentence i stands before sentence j». None for `head="score"`, and for a text of very many sentences, see
            `score_long_text`.
    """

    scores: list[float | None]
    pair_logits: Tensor | None = None


def score_stories(
    model: Any,
    story_tokenizer: StoryTokenizer,
    stories: Sequence[Sequence[str]],
    sentence_ids: Sequence[list[list[int]]],
    *,
    batch_size: int | None = None,
    batch_tokens: int | None = BATCH_TOKENS,
    num_permutations: int = 1,
) -> list[StoryScores]:
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
        For each story its scores, and pair logits if the model gives them, for `in_order`.
    """
    fits = [story_tokenizer.fits(ids) for ids in sentence_ids]
    ways = [
        arrangements(sentences, num_permutations) if fit else [] for sentences, fit in zip(stories, fits, strict=True)
    ]
    rows: list[list[list[float]]] = [[[] for _ in story] for story in ways]
    pairs: list[dict[int, Tensor]] = [{} for _ in ways]
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
            output = model(**{key: value.to(model.device) for key, value in inputs.items()})
            logits = output.logits.tolist()
            pair_logits = None if output.pair_logits is None else output.pair_logits.cpu().double()
            for place, ((story, number), shown) in enumerate(zip(chosen, tokenized, strict=True)):
                size = len(shown.marker_positions)
                rows[story][number] = logits[place][:size]
                if pair_logits is not None:
                    pairs[story][number] = pair_logits[place, :size, :size]
        found = []
        for story, (sentences, fit) in enumerate(zip(stories, fits, strict=True)):
            if fit:
                scores = average_scores(sentences, ways[story], rows[story])
                matrices = [pairs[story][number] for number in sorted(pairs[story])]
                of_pairs = average_pair_logits(sentences, ways[story], rows[story], matrices) if matrices else None
                found.append(StoryScores(scores, of_pairs))
            else:
                long_text = (sentences, sentence_ids[story])
                long_scores, of_pairs = score_long_text(
                    model, story_tokenizer, *long_text, num_permutations=num_permutations
                )
                found.append(StoryScores(list(long_scores), of_pairs))
    return found
