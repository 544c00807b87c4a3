"""`pipeline("sentence-ordering")`: puts the sentences of anybody's stories in order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers.pipelines.base import ChunkPipeline

from .answer_sentence_ordering import in_order
from .arrangement_sentence_ordering import arrangements, average_scores
from .configuration_sentence_ordering import SentenceOrderingConfig
from .encoding_sentence_ordering import StoryTokenizer
from .fixed_points_sentence_ordering import FIXED_POINT_NAMES, FixedPoints
from .long_texts_sentence_ordering import score_long_text
from .repository_sentence_ordering import save_tokenizer


class SentenceOrderingPipeline(ChunkPipeline):
    """Orders sentences.

    ```python
    from transformers import pipeline

    order = pipeline("sentence-ordering", model=repo, trust_remote_code=True)
    order(["He ate it.", "Tom baked a cake."])
    # {"sentences": ["Tom baked a cake.", "He ate it."], "order": [1, 0], "scores": [1.1, 0.2]}
    ```

    Each answer is a dictionary: `sentences` in order, `order` the input indices in that order (always a permutation),
    `scores` one float per input sentence, lower comes first. Sentences of equal score are ordered by their text,
    identical ones by their place in the input.

    A model whose scores have been calibrated (`confidence_temperature` in its config) gives `confidence` as well: for
    each sentence but the last, the probability that it does stand before the next one. It is lowest where the order is
    most in doubt.

    What is known of the order already is kept: `order(story, first=2, before=[(0, 3), (3, 1)])` names sentences by
    their places in the input, counted from 0. In a batch each story has its own, as a dictionary:
    `order([{"sentences": story, "first": 2}, {"sentences": another, "last": 0}])`. What this does to the other
    sentences is told by `order_by_scores`; the confidence of two neighbours that are fixed is 1.

    A text of more sentences than the encoder holds is ordered by groups of them, see `score_long_text`; with
    `num_permutations`, by so many times as many groups. Its scores are the strengths that explain best what the model
    says of all groups, in the same unit, and the rest is as for a short one. If a sentence is so long that no other
    may fit beside it, its beginning stands for it, and the answer has a key more, `truncated`, the indices of such.

    The order in which the sentences come in does not matter: the model is shown them in an order that their texts
    decide, see `arrangements`. Among other stories in a batch, and so with other padding, scores may differ in their
    last digits.
    """

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not hasattr(self, "modelcard"):  # transformers 5.2 and some after it read it when a pipeline is saved
            self.modelcard = None
        if self.tokenizer is None:
            raise ValueError("this model came without its tokenizer: pass tokenizer=…, or save one beside the model")
        # transformers pads a batch on this side, and most encoders number their positions from the left.
        self.tokenizer.padding_side = "right"
        config: SentenceOrderingConfig = self.model.config
        self.story_tokenizer = StoryTokenizer(self.tokenizer, config)

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Orders one story or many.

        Args:
            inputs: a `list[str]` is one story and gives one answer, a `list[list[str]]` is a batch and gives a list.
                A generator of stories gives a generator of answers, as does a `datasets.Dataset` with a column
                `sentences`; a dictionary with the key `sentences` is a story, too, and may have the keys `first`,
                `last` and `before`.
            **kwargs: of one story `first`, the sentence that begins it, `last`, the one that ends it, and `before`,
                pairs (i, j) where sentence i stands somewhere before sentence j;
                `num_permutations`, the arrangements of each story that scores are averaged over (1 by default);
                `batch_size`, the arrangements, of whichever stories, that go through the model at once;
                `num_workers`.

        Raises:
            TypeError: if a story is not a list of strings, or `first`, `last` or `before` is given for many stories.
            ValueError: if a sentence is not valid Unicode, no order can be as `first`, `last` and `before` say, or
                `num_permutations` is less than 1.
        """
        known = {name: kwargs.pop(name) for name in FIXED_POINT_NAMES if name in kwargs}
        known = {name: value for name, value in known.items() if value is not None}
        if known:
            inputs = _with_fixed_points(inputs, known)
        if _is_story(inputs):
            return super().__call__([inputs], **kwargs)[0]
        if isinstance(inputs, (str, bytes)):
            raise TypeError("a story is a list of sentences, not one string: split it into sentences first")
        if isinstance(inputs, Sequence) and not hasattr(inputs, "column_names"):
            return super().__call__(list(inputs), **kwargs) if len(inputs) else []
        try:
            stories = iter(inputs)
        except TypeError:
            raise TypeError(f"a story is a list of sentences, not {type(inputs).__name__}") from None
        return super().__call__(_stream(stories), **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Writes model, code and tokenizer, the tokenizer for transformers 4 as well; see `save_tokenizer`."""
        super().save_pretrained(save_directory, **kwargs)
        save_tokenizer(self.tokenizer, save_directory)

    def _sanitize_parameters(
        self, num_permutations: int | None = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if kwargs:
            raise TypeError(f"the sentence-ordering pipeline has no {', '.join(sorted(kwargs))}")
        if num_permutations is None:
            return {}, {}, {}
        arrangements((), num_permutations)  # refuses what is no number of arrangements, before anything is read
        return {"num_permutations": num_permutations}, {}, {}

    def preprocess(self, story: Any, num_permutations: int = 1) -> Iterator[dict[str, Any]]:
        """One story to ids `(1, tokens)`, once for each arrangement; what the answer needs travels along."""
        sentences = _sentences(story)
        fixed = FixedPoints.read(story, len(sentences)) if isinstance(story, Mapping) else None
        tokenizer = self.story_tokenizer
        ids, truncated = tokenizer.shortened(tokenizer.tokenize(sentences))
        is_long = not tokenizer.fits(ids)
        # A long text is scored in `_forward`, whose groups depend on the scores of others: here it is an empty story.
        ways = [[]] if is_long else arrangements(sentences, num_permutations)
        for number, way in enumerate(ways, 1):
            # A story of no sentence still goes through the model, as one marker, so that batches stay whole.
            batch = tokenizer.collate([tokenizer.assemble([ids[i] for i in way] or [[]])])
            yield {
                "input_ids": batch["input_ids"],
                "attention_mask": batch["attention_mask"],
                "sentences": sentences,
                "arrangement": way,
                "fixed": fixed,
                "truncated": truncated,
                "long_text": _LongText(sentences, ids, num_permutations) if is_long else None,
                "is_last": number == len(ways),
            }

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        # Without marker positions: batches are padded by transformers, with 0, which is a position. The model finds
        # the markers itself.
        inputs = {name: model_inputs.pop(name) for name in ("input_ids", "attention_mask")}
        texts = model_inputs.pop("long_text")
        # In a batch each value is a list, and a single story's is not.
        strengths = [self._strengths(text) for text in texts] if isinstance(texts, list) else self._strengths(texts)
        return {"scores": self.model(**inputs).logits, "strengths": strengths, **model_inputs}

    def _strengths(self, text: _LongText | None) -> list[float] | None:
        if text is None:
            return None
        return score_long_text(
            self.model,
            self.story_tokenizer,
            text.sentences,
            text.sentence_ids,
            num_permutations=text.num_permutations,
        )

    def postprocess(self, model_outputs: list[dict[str, Any]]) -> dict[str, Any]:
        """The scores of all arrangements to the answer for one story."""
        first = model_outputs[0]
        sentences, scores = first["sentences"], first["strengths"]
        if scores is None:
            ways = [output["arrangement"] for output in model_outputs]
            rows = [output["scores"][0].tolist() for output in model_outputs]
            scores = average_scores(sentences, ways, rows)
        temperature = self.model.config.confidence_temperature
        answer = in_order(sentences, scores, temperature=temperature, fixed=first["fixed"])
        return {**answer, "truncated": first["truncated"]} if first["truncated"] else answer


@dataclass(frozen=True)
class _LongText:
    """A text that does not fit into the encoder, on its way through a batch."""

    sentences: list[str]
    sentence_ids: list[list[int]]
    num_permutations: int


def _is_story(value: Any) -> bool:
    """Whether a value is one story: a dictionary, or a list with a string (or nothing) in it."""
    if isinstance(value, Mapping):
        return True
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or hasattr(value, "column_names"):
        return False
    return isinstance(value, (list, tuple)) and (not value or any(isinstance(item, str) for item in value))


def _with_fixed_points(story: Any, known: dict[str, Any]) -> dict[str, Any]:
    """The one story that was handed in, as a dictionary in which its fixed points are."""
    if not _is_story(story):
        raise TypeError(
            f"{', '.join(known)}: for one story; of many, give each with its own as a dictionary such as "
            '{"sentences": [...], "first": 0, "before": [[1, 2]]}'
        )
    return {**(story if isinstance(story, Mapping) else {"sentences": story}), **known}


def _sentences(story: Any) -> list[str]:
    if isinstance(story, Mapping):
        if "sentences" not in story:
            raise TypeError(f"a story given as a dictionary needs the key 'sentences'; this has {sorted(story)}")
        story = story["sentences"]
    if isinstance(story, (str, bytes)) or not isinstance(story, Sequence):
        raise TypeError(f"a story is a list of sentences, not {type(story).__name__}")
    for place, sentence in enumerate(story):
        if not isinstance(sentence, str):
            raise TypeError(f"sentence {place} of a story is {type(sentence).__name__}, not a string")
    return list(story)


def _stream(stories: Iterable[Any]) -> Iterator[Any]:
    """A generator, which transformers reads lazily: it would take a `datasets.Dataset` for one input."""
    yield from stories
