"""`pipeline("sentence-ordering")`, and how stories of any length are scored by a model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline
from transformers.utils.logging import tqdm

from .configuration_sentence_ordering import SentenceOrderingConfig, whole_number
from .decoding_sentence_ordering import (
    FIXED_POINT_NAMES,
    FixedPoints,
    assign_copies,
    average_pair_logits,
    average_scores,
    combine_groups,
    in_order,
    number_of_rounds,
)

# Needed only by the files imported here: from a local folder, transformers up to 5.9 copies the files that the
# pipeline's own file names, and no others.
from .objectives_sentence_ordering import PADDING  # noqa: F401
from .repository_sentence_ordering import save_tokenizer
from .tokenization_sentence_ordering import StoryTokenizer, arrangements, as_list, as_sentences, batches_by_length

BATCH_TOKENS = 8192
"""Tokens, padding included, that go through the encoder at once by default."""
GROUP_SIZE = 10
"""The most sentences of a group of a long text, unless the model's config says otherwise: about as many as the stories
that models are trained on. Larger groups need fewer rounds, but only a model trained on long stories orders them."""
MOST_PAIRS = 2000**2
"""A text with more pairs is sorted by its scores by a model with `head="pairs"`, without the logit of each pair."""


@dataclass(frozen=True)
class StoryScores:
    """What a model says about one story.

    Attributes:
        scores: one per sentence in input order, see `average_scores`.
        pair_logits: `(sentences, sentences)`, float64, of a model with `head="pairs"`: [i, j] is the logit of
            «sentence i comes before sentence j». None for `head="score"`, and for a text with more than `MOST_PAIRS`.
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
    """Scores every sentence, averaged over arrangements of its story, independently of the order of the input.

    Arrangements of similar length go through the model together, the longest first.

    Args:
        model: a `SentenceOrderingModel` in eval mode, or a callable like one.
        story_tokenizer: the model's.
        stories: sentences of each story.
        sentence_ids: their ids, see `StoryTokenizer.shortened`.
        batch_size: the most arrangements, of any stories, that go through the model at once.
        batch_tokens: the most tokens that do, padding included.
        num_permutations: arrangements of each story, fewer where it does not have as many; for a story that does not
            fit into the encoder, see `score_long_text`.

    Returns:
        For each story its scores, and pair logits if the model gives them, for `in_order`.
    """
    ways = [
        arrangements(sentences, num_permutations) if story_tokenizer.fits(ids) else []
        for sentences, ids in zip(stories, sentence_ids, strict=True)
    ]
    # A story without sentences goes through the model as one bare marker.
    shown = [[ids[i] for i in way] or [[]] for ids, story in zip(sentence_ids, ways, strict=True) for way in story]
    results = _run_model(model, story_tokenizer, shown, batch_size=batch_size, batch_tokens=batch_tokens)
    found = []
    for sentences, ids, story in zip(stories, sentence_ids, ways, strict=True):
        if not story:
            found.append(score_long_text(model, story_tokenizer, sentences, ids, num_permutations=num_permutations))
            continue
        rows, pairs = zip(*islice(results, len(story)), strict=True)
        pair_logits = None
        if pairs[0] is not None:
            shown_as = [assign_copies(sentences, way, row) for way, row in zip(story, rows, strict=True)]
            pair_logits, _ = average_pair_logits(len(sentences), shown_as, pairs)
        found.append(StoryScores(average_scores(sentences, story, rows), pair_logits))
    return found


def _run_model(
    model: Any,
    story_tokenizer: StoryTokenizer,
    shown: Sequence[Sequence[Sequence[int]]],
    *,
    batch_size: int | None = None,
    batch_tokens: int | None = BATCH_TOKENS,
    progress: Any = None,
) -> Iterator[tuple[list[float], Tensor | None]]:
    """For each story the scores of its sentences as shown, and their pair logits if the model gives them.

    Args:
        model, story_tokenizer, batch_size, batch_tokens: as for `score_stories`.
        shown: the ids of each sentence of each story.
        progress: a progress bar, updated by the number of stories.
    """
    results: list[tuple[list[float], Tensor | None]] = [([], None)] * len(shown)
    lengths = [story_tokenizer.length(sentences) for sentences in shown]
    with torch.inference_mode():
        for batch in batches_by_length(lengths, batch_size=batch_size, batch_tokens=batch_tokens):
            tokenized = [story_tokenizer.assemble(shown[i]) for i in batch]
            inputs = story_tokenizer.collate(tokenized)
            output = model(**{key: value.to(model.device) for key, value in inputs.items()})
            logits = output.logits.tolist()
            pair_logits = None if output.pair_logits is None else output.pair_logits.cpu().double()
            for place, (i, story) in enumerate(zip(batch, tokenized, strict=True)):
                size = len(story.marker_positions)
                pairs = None if pair_logits is None else pair_logits[place, :size, :size]
                results[i] = (logits[place][:size], pairs)
            if progress is not None:
                progress.update(len(batch))
    return iter(results)


def score_long_text(
    model: Any,
    story_tokenizer: StoryTokenizer,
    sentences: Sequence[str],
    sentence_ids: Sequence[Sequence[int]],
    *,
    num_permutations: int = 1,
) -> StoryScores:
    """Scores of a text that does not fit into the encoder, see `combine_groups`.

    The result depends on the model and the sentences alone, not on their order or on other texts in a batch. Shows a
    progress bar on a terminal after some seconds.

    Args:
        model: a `SentenceOrderingModel` in eval mode.
        story_tokenizer: the model's.
        sentences: of the text.
        sentence_ids: their ids, none longer than `StoryTokenizer.shortened` leaves it.
        num_permutations: factor for the number of groups.

    Returns:
        Scores in the unit of the model's own, so that its `confidence_temperature` holds. The logit of a pair is the
        mean over all groups in which it met, or the difference of its scores if it never did.
    """
    keeps_pairs = model.config.head == "pairs" and len(sentences) ** 2 <= MOST_PAIRS
    groups_shown: list[list[int]] = []
    pair_logits: list[Tensor] = []
    with tqdm(desc="Ordering a long text", unit=" groups", disable=None, delay=3, leave=False) as progress:

        def score_groups(groups: list[list[int]]) -> list[list[float]]:
            if progress.total is None:
                progress.total = number_of_rounds(len(groups), num_permutations) * len(groups)
            shown = [[sentence_ids[i] for i in group] for group in groups]
            # Not in batches of the caller's size: in other batches scores differ in their last digits, and the next
            # groups may depend on them.
            results = list(_run_model(model, story_tokenizer, shown, progress=progress))
            if keeps_pairs:
                groups_shown.extend(groups)
                pair_logits.extend(pairs for _, pairs in results if pairs is not None)
            return [scores for scores, _ in results]

        scores = combine_groups(
            sentences,
            score_groups,
            lengths=[len(ids) + 1 for ids in sentence_ids],
            room=story_tokenizer.room,
            group_size=model.config.group_size or GROUP_SIZE,
            temperature=model.config.confidence_temperature,
            num_permutations=num_permutations,
        )
    if not keeps_pairs:
        return StoryScores(list(scores))
    means, counts = average_pair_logits(len(sentences), groups_shown, pair_logits)
    values = torch.tensor(scores, dtype=torch.float64)
    return StoryScores(list(scores), torch.where(counts > 0, means, values - values.unsqueeze(1)))


TASK = "sentence-ordering"
PORTION = 1024
"""Stories that are read before any is scored: enough to form batches of similar length."""


class SentenceOrderingPipeline(Pipeline):
    """Orders sentences.

    ```python
    from transformers import pipeline

    order = pipeline("sentence-ordering", model=repo, trust_remote_code=True)
    order(["He ate it.", "Tom baked a cake."])
    # {"sentences": ["Tom baked a cake.", "He ate it."], "order": [1, 0], "scores": [1.1, 0.2]}
    ```

    Each answer is a dictionary:

    - `sentences`: in order.
    - `order`: the input indices in that order, always a permutation. Sentences of equal score are ordered by their
      text, identical ones by their index. With `head="pairs"` it is `best_order`, which may differ from the order of
      the scores.
    - `scores`: one float per input sentence, lower comes first. With `head="pairs"`, minus the mean log-odds of coming
      before the others.
    - `confidence`, if the scores have been calibrated (`confidence_temperature` in the config): for each sentence but
      the last, the probability that it comes before the next one; 1 if a constraint puts it there.
    - `truncated`, for a long text only: the indices of sentences of which only the beginning was read, because any two
      sentences must fit into the encoder together.

    Constraints restrict the order: `order(story, first=2, before=[(0, 3), (3, 1)])` names sentences by their index in
    the input. In a batch each story has its own:
    `order([{"sentences": story, "first": 2}, {"sentences": another, "last": 0}])`; see `order_by_scores`.

    A text of more sentences than the encoder holds is ordered by groups of them, see `score_long_text`;
    `num_permutations` is then a factor for the number of groups.

    The order of the input does not matter: the model is shown the sentences in an order that depends on their texts,
    see `arrangements`. Among other stories in a batch, and so with other padding, the last digits of scores may differ.
    """

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        places = getattr(model, "hf_device_map", None)
        if places is not None:
            model.hf_device_map = {"": model.device}  # transformers takes the first entry for a device, even "disk"
        super().__init__(model, *args, **kwargs)
        if places is not None:
            model.hf_device_map = places
        if not hasattr(self, "modelcard"):  # transformers 5.2 and some after it read it when a pipeline is saved
            self.modelcard = None
        if self.tokenizer is None:
            raise ValueError("the model has no tokenizer: pass tokenizer=…, or save one in the model's folder")
        # Most encoders number their positions from the left.
        self.tokenizer.padding_side = "right"
        config: SentenceOrderingConfig = self.model.config
        self.story_tokenizer = StoryTokenizer(self.tokenizer, config)

    def __call__(
        self, inputs: Any, *, batch_size: int | None = None, num_workers: int | None = None, **kwargs: Any
    ) -> Any:
        """Orders one story or many.

        Args:
            inputs: a `list[str]` is one story and gives one answer, a `list[list[str]]` is a batch and gives a list;
                arrays, Series, and columns and tables of Arrow or pandas are converted to lists. A generator of stories
                gives a generator of answers, as does a `datasets.Dataset` with a column `sentences`. A dictionary with
                the key `sentences` is a story, too, and may have the keys `first`, `last` and `before`.
            batch_size: the most arrangements, of any stories, that go through the model at once, and the stories that
                are read from a generator before the first answer. By default batches have up to `BATCH_TOKENS` tokens,
                and a generator is answered story by story.
            num_workers: has no effect: the tokenizer uses all cores by itself.
            **kwargs: for one story `first` and `last`, the index of its first and last sentence, and `before`, pairs
                (i, j) where sentence i comes somewhere before sentence j; `num_permutations`, the number of
                arrangements of each story that scores are averaged over (1 by default).

        Raises:
            TypeError: if a story is not a list of strings, or `first`, `last` or `before` is given for many stories.
            ValueError: if a sentence is not valid Unicode, no order satisfies the constraints, or `num_permutations`
                (1 to 1,000) or `batch_size` is out of range.
        """
        batch_size = self._batch_size if batch_size is None else batch_size
        batch_size = None if batch_size is None else whole_number("batch_size", batch_size, at_least=1)
        inputs = as_list(inputs)
        known = {name: kwargs.pop(name) for name in FIXED_POINT_NAMES if name in kwargs}
        known = {name: value for name, value in known.items() if value is not None}
        if known:
            inputs = _with_fixed_points(inputs, known)
        parameters = {**self._preprocess_params, **self._sanitize_parameters(**kwargs)[0]}
        if _is_story(inputs):
            return self._answers([inputs], batch_size, parameters)[0]
        if isinstance(inputs, (str, bytes)):
            raise TypeError("a story is a list of sentences, not one string: split it into sentences first")
        is_listed = isinstance(inputs, Sequence) and not hasattr(inputs, "column_names")
        stories = _iterated(inputs)
        portions = self._portions(stories, PORTION if is_listed else batch_size or 1, batch_size, parameters)
        return list(portions) if is_listed else portions

    def _portions(
        self, stories: Iterator[Any], size: int, batch_size: int | None, parameters: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        while portion := list(islice(stories, size)):
            yield from self._answers(portion, batch_size, parameters)

    def _answers(self, stories: list[Any], batch_size: int | None, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = self.run_single(stories, {}, {**parameters, "batch_size": batch_size}, {})
        return answers

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Writes model, code and tokenizer, in a form that transformers 4 reads, too; see `save_tokenizer`."""
        super().save_pretrained(save_directory, **kwargs)
        save_tokenizer(self.tokenizer, save_directory)

    def _sanitize_parameters(
        self, num_permutations: int | None = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if kwargs:
            raise TypeError(f"unknown argument of the sentence-ordering pipeline: {', '.join(sorted(kwargs))}")
        if num_permutations is None:
            return {}, {}, {}
        arrangements((), num_permutations)  # raises an error for an invalid number before anything is read
        return {"num_permutations": num_permutations}, {}, {}

    def preprocess(self, stories: list[Any]) -> _Stories:
        """Tokenizes stories and reads their constraints."""
        sentences = [_sentences(story) for story in stories]
        fixed = [
            FixedPoints.read(story, len(texts)) if isinstance(story, Mapping) else None
            for story, texts in zip(stories, sentences, strict=True)
        ]
        tokenizer = self.story_tokenizer
        ids = tokenizer.tokenize_stories(sentences, longest=tokenizer.room)
        return _Stories(sentences, fixed, [tokenizer.shortened(story) for story in ids])

    def _forward(self, stories: _Stories, batch_size: int | None, num_permutations: int = 1) -> _Stories:
        ids = [shortened for shortened, _ in stories.shortened]
        # A given batch size is the only limit.
        batch_tokens = BATCH_TOKENS if batch_size is None else None
        stories.scores = score_stories(
            self.model,
            self.story_tokenizer,
            stories.sentences,
            ids,
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            num_permutations=num_permutations,
        )
        return stories

    def postprocess(self, stories: _Stories) -> list[dict[str, Any]]:
        """The scores to an answer for each story."""
        temperature = self.model.config.confidence_temperature
        answers = []
        for sentences, fixed, (_, truncated), found in zip(
            stories.sentences, stories.fixed, stories.shortened, stories.scores, strict=True
        ):
            answer = in_order(
                sentences, found.scores, pair_logits=found.pair_logits, temperature=temperature, fixed=fixed
            )
            answers.append({**answer, "truncated": truncated} if truncated else answer)
        return answers


@dataclass
class _Stories:
    """Some stories on their way through the pipeline.

    Attributes:
        sentences: of each story.
        fixed: the constraints of each story.
        shortened: ids of each story and indices of sentences that were cut, see `StoryTokenizer.shortened`.
        scores: of each story, once it has been scored.
    """

    sentences: list[list[str]]
    fixed: list[FixedPoints | None]
    shortened: list[tuple[list[list[int]], list[int]]]
    scores: list[StoryScores] = field(default_factory=list)


def _is_story(value: Any) -> bool:
    """Whether a value is one story: a dictionary, or a list with a string (or nothing) in it."""
    if isinstance(value, Mapping):
        return True
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or hasattr(value, "column_names"):
        return False
    return isinstance(value, (list, tuple)) and (not value or any(isinstance(item, str) for item in value))


def _iterated(stories: Any) -> Iterator[Any]:
    if isinstance(stories, Iterable) and not isinstance(stories, Set):
        return iter(stories)
    if hasattr(stories, "__getitem__") and hasattr(stories, "__len__"):
        # A map-style dataset of torch: it need not raise IndexError at its end.
        return (stories[index] for index in range(len(stories)))
    raise TypeError(f"a story is a list of sentences, not {type(stories).__name__}")


def _with_fixed_points(story: Any, known: dict[str, Any]) -> dict[str, Any]:
    """One story with its constraints, as a dictionary."""
    if not _is_story(story):
        raise TypeError(
            f"{', '.join(known)} applies to one story; in a batch, pass each story as a dictionary such as "
            '{"sentences": [...], "first": 0, "before": [[1, 2]]}'
        )
    return {**(story if isinstance(story, Mapping) else {"sentences": story}), **known}


def _sentences(story: Any) -> list[str]:
    if isinstance(story, Mapping):
        if "sentences" not in story:
            raise TypeError(f"a story given as a dictionary needs the key 'sentences'; this has {sorted(story)}")
        story = story["sentences"]
    return as_sentences(story)


# So that `pipeline("sentence-ordering", model=model, tokenizer=tokenizer)` takes a loaded model.
if TASK not in PIPELINE_REGISTRY.supported_tasks:
    PIPELINE_REGISTRY.register_pipeline(TASK, pipeline_class=SentenceOrderingPipeline, pt_model=AutoModel, type="text")
