"""What training reads of texts that are too long for the encoder, as lines for the user before training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from training.recipe.recipe import Recipe

from .passages import TextPassages
from .stories import TrainingTexts, drawn_stories
from .streaming import StreamedStories
from .tokenizing import tokenize_stories

FIRST_TEXTS = 1000
"""The texts of a stream that are looked at before training."""


def describe_long_texts(stories: TrainingTexts, recipe: Recipe) -> str | None:
    """How many training texts are cut, or how many passages are drawn from them; None if every text is read whole."""
    if recipe.passage_sentences is None:
        return _cut_texts(stories)
    passages = drawn_stories(stories, recipe)
    line = f"passages: {len(passages):,} in an epoch, of {len(stories):,} texts"
    if not isinstance(passages, TextPassages):
        return line
    read = sum(stop - start for text in range(len(stories)) for start, stop in passages.bounds(text, epoch=0))
    left_out = 1 - read / passages.texts.num_sentences.sum()
    if left_out < 0.005:
        return line
    return (
        f"{line}; {left_out:.0%} of the sentences are left out in an epoch, because not all passages fit into "
        f"{passages.story_tokenizer.room:,} tokens: lower --passage_sentences {_words(recipe.passage_sentences)}"
    )


def _cut_texts(stories: TrainingTexts) -> str | None:
    tokenizer = stories.story_tokenizer
    if tokenizer.max_input_tokens is None:
        return None
    if isinstance(stories, StreamedStories):
        read = islice(stories.stream.read(stories.stream.order()), FIRST_TEXTS)
        fits = [tokenizer.fits(ids) for ids in tokenize_stories(tokenizer, [story.sentences for _, story in read])]
        of = f"the first {len(fits):,} training texts" if len(fits) < len(stories) else f"{len(fits):,} training texts"
    else:
        fits, of = stories.fits.tolist(), f"{len(stories):,} training texts"
    if all(fits):
        return None
    return (
        f"{fits.count(False):,} of {of} are longer than the {tokenizer.max_input_tokens:,} tokens that the encoder "
        "reads: training cuts them. Use --passage_sentences MIN MAX to train on passages of all their sentences"
    )


def _words(sizes: Sequence[int]) -> str:
    return " ".join(map(str, sizes))
