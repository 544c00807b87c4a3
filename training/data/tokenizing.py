"""Tokenizes stories, with errors of the tokenizer as bad input."""

from __future__ import annotations

from collections.abc import Sequence

from dataset_builder import UserError
from modeling_sentence_ordering import StoryTokenizer


def tokenize_stories(story_tokenizer: StoryTokenizer, stories: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """Token ids of each sentence of each story, as many as the encoder can use.

    Raises:
        UserError: if the tokenizer fails on a sentence.
    """
    try:
        return story_tokenizer.tokenize_stories(stories, longest=story_tokenizer.max_input_tokens)
    except ValueError as error:
        raise UserError(str(error)) from error
