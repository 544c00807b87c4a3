"""Texts of more sentences than the encoder holds at once: scored in groups, by one piece of code for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.utils.logging import tqdm

from .aggregation_sentence_ordering import combine_groups, number_of_rounds
from .encoding_sentence_ordering import StoryTokenizer, batches_by_length

GROUP_SIZE = 10
"""Sentences of a group at most, unless the model's config says otherwise: about as many as the stories have that
models are trained on. Larger groups are fewer and tell more, but only to a model that has seen such."""
MOST_PAIRS = 2000**2
"""Pairs of a text that are decided one by one by a model with `head="pairs"`: a longer text is sorted by its scores."""
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
) -> tuple[list[float], Tensor | None]:
    """Scores of a text that does not fit into the encoder, see `combine_groups`, and logits of its pairs.

    Depends on nothing but model and sentences: neither on their order, nor on what else is in a batch. Shows its
    progress on a terminal after some seconds.

    Args:
        model: a `SentenceOrderingModel` in eval mode.
        story_tokenizer: the model's.
        sentences: of the text.
        sentence_ids: their ids, none longer than `StoryTokenizer.shortened` leaves it.
        num_permutations: so many times as many groups.

    Returns:
        For each sentence a score in the unit of the model's own, so that its `confidence_temperature` holds. Of a model
        with `head="pairs"`, whose texts have no more than `MOST_PAIRS` pairs, `(sentences, sentences)` pair logits as
        well: of each pair the mean over all groups in which it met, and the difference of the scores if it never did.
    """
    pairs = _MeanPairLogits(len(sentences)) if model.config.head == "pairs" else None
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
                    output = model(**{name: value.to(model.device) for name, value in inputs.items()})
                for place, row in zip(batch, output.logits.tolist(), strict=True):
                    scores[place] = row[: len(groups[place])]
                if pairs is not None:
                    pairs.add([groups[place] for place in batch], output.pair_logits)
                progress.update(len(batch))
            return scores

        found = combine_groups(
            sentences,
            score_groups,
            lengths=[len(ids) + 1 for ids in sentence_ids],
            room=story_tokenizer.room,
            group_size=model.config.group_size or GROUP_SIZE,
            temperature=model.config.confidence_temperature,
            num_permutations=num_permutations,
        )
    return found, None if pairs is None else pairs.mean(found)


class _MeanPairLogits:
    """The mean logit of each pair over the groups in which it met.

    Args:
        num_sentences: of the text; nothing is kept of a text that has more than `MOST_PAIRS` pairs.
    """

    def __init__(self, num_sentences: int) -> None:
        self.is_kept = num_sentences**2 <= MOST_PAIRS
        size = num_sentences if self.is_kept else 0
        self.totals = torch.zeros(size, size, dtype=torch.float64)
        self.counts = torch.zeros(size, size)

    def add(self, groups: Sequence[Sequence[int]], pair_logits: Tensor) -> None:
        """Adds a batch of groups, and their logits `(groups, members, members)`."""
        for group, logits in zip(groups if self.is_kept else (), pair_logits.to("cpu", torch.float64), strict=False):
            index = torch.tensor(group)
            self.totals[index.unsqueeze(1), index] += logits[: len(group), : len(group)]
            self.counts[index.unsqueeze(1), index] += 1

    def mean(self, scores: Sequence[float]) -> Tensor | None:
        """`(sentences, sentences)`, the difference of two scores for a pair that never met."""
        if not self.is_kept:
            return None
        values = torch.tensor(scores, dtype=torch.float64)
        return torch.where(self.counts > 0, self.totals / self.counts, values - values.unsqueeze(1))
