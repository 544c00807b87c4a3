"""Texts of more sentences than the encoder holds at once: scored in groups, by one piece of code for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.utils.logging import tqdm

from .aggregation_sentence_ordering import combine_groups, number_of_rounds
from .encoding_sentence_ordering import StoryTokenizer, batches_by_length

GROUP_SIZE = 10
"""Sentences of a group at most, unless the model's config says otherwise: about as many as the stories have that
models are trained on. Larger groups are fewer and tell more, but only to a model that has seen such."""
# In one batch of groups, padding included. Not up to the caller's batch size: between different batches scores differ
# in their last digits, and of two sentences of nearly the same strength another one would go into the next group.
_TOKENS_AT_ONCE = 8192


def score_long_text(
    model: Any,
    story_tokenizer: StoryTokenizer,
    sentences: Sequence[str],
    sentence_ids: Sequence[Sequence[int]],
    *,
    num_permutations: int = 1,
) -> list[float]:
    """Scores of a text that does not fit into the encoder, see `combine_groups`.

    Depends on nothing but model and sentences: neither on their order, nor on what else is in a batch. Shows its
    progress on a terminal after some seconds.

    Args:
        model: a `SentenceOrderingModel` in eval mode.
        story_tokenizer: the model's.
        sentences: of the text.
        sentence_ids: their ids, none longer than `StoryTokenizer.shortened` leaves it.
        num_permutations: so many times as many groups.

    Returns:
        For each sentence a score in the unit of the model's own, so that its `confidence_temperature` holds.
    """
    with tqdm(desc="Ordering a long text", unit=" groups", disable=None, delay=3, leave=False) as progress:

        def score_groups(groups: list[list[int]]) -> list[list[float]]:
            if progress.total is None:
                progress.total = number_of_rounds(len(groups), num_permutations) * len(groups)
            scores: list[list[float]] = [[] for _ in groups]
            lengths = [story_tokenizer.length([sentence_ids[i] for i in group]) for group in groups]
            for batch in batches_by_length(lengths, batch_tokens=_TOKENS_AT_ONCE):
                stories = [story_tokenizer.assemble([sentence_ids[i] for i in groups[place]]) for place in batch]
                inputs = story_tokenizer.collate(stories)
                with torch.inference_mode():
                    logits = model(**{name: value.to(model.device) for name, value in inputs.items()}).logits.tolist()
                for place, row in zip(batch, logits, strict=True):
                    scores[place] = row[: len(groups[place])]
                progress.update(len(batch))
            return scores

        return combine_groups(
            sentences,
            score_groups,
            lengths=[len(ids) + 1 for ids in sentence_ids],
            room=story_tokenizer.room,
            group_size=model.config.group_size or GROUP_SIZE,
            temperature=model.config.confidence_temperature,
            num_permutations=num_permutations,
        )
