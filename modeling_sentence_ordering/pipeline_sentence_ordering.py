"""`pipeline("sentence-ordering")`, and how stories of any length are scored by a model."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
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
    """The model's output for one story.

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


@dataclass(frozen=True)
class AnswerOptions:
    """What an answer contains in addition to the order; see `SentenceOrderingPipeline`.

    Attributes:
        pairwise: add the probabilities of all pairs, `pairwise`.
        ties: the probability from which a precedence is asserted, above 0.5; adds `layers`.
        moves: add the sentences that moved, `moved`.
        score: add how well the sentences stand in the order of the input, `coherence`.

    Raises:
        ValueError: `ties` is not above 0.5 and at most 1.
    """

    pairwise: bool = False
    ties: float | None = None
    moves: bool = False
    score: bool = False

    def __post_init__(self) -> None:
        number = isinstance(self.ties, (int, float)) and not isinstance(self.ties, bool)
        if self.ties is not None and not (number and 0.5 < self.ties <= 1):
            raise ValueError(f"ties must be a probability above 0.5 and at most 1, got {self.ties!r}")

    def check_calibration(self, temperature: float | None) -> None:
        """Raises ValueError if probabilities are asked for and the model has no `confidence_temperature`."""
        if temperature is None and (self.pairwise or self.ties is not None or self.score):
            raise ValueError(
                "the model is not calibrated, so its scores are not probabilities: train it with validation stories, "
                "or set confidence_temperature in its config"
            )

    @property
    def keys(self) -> list[str]:
        """The keys that are added to an answer."""
        names = ("pairwise", "layers", "moved", "coherence")
        asked = (self.pairwise, self.ties is not None, self.moves, self.score)
        return [name for name, is_asked in zip(names, asked, strict=True) if is_asked]


def answer_of(
    sentences: Sequence[str],
    found: StoryScores,
    *,
    temperature: float | None,
    fixed: FixedPoints | None = None,
    options: AnswerOptions = AnswerOptions(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """The answer for one story: that of `in_order`, and what the options add.

    Args:
        sentences: in input order.
        found: what the model says about them.
        temperature: `confidence_temperature` of the model's config.
        fixed: constraints on the order.
        options: what to add.

    Raises:
        ValueError: as `in_order`; probabilities are asked for and the model is not calibrated; or `pairwise` or `ties`
            for a text with more than `MOST_PAIRS` pairs.
    """
    scores, pair_logits = found.scores, found.pair_logits
    options.check_calibration(temperature)
    needs_pairs = options.pairwise or options.ties is not None
    if needs_pairs and len(sentences) ** 2 > MOST_PAIRS:
        raise ValueError(f"pairwise and ties take at most {int(MOST_PAIRS**0.5):,} sentences, got {len(sentences):,}")
    answer = in_order(sentences, scores, pair_logits=pair_logits, temperature=temperature, fixed=fixed)
    order, known = answer["order"], answer["scores"]
    if temperature is not None and needs_pairs:
        log_odds = _log_odds(known, pair_logits, temperature)
        kept = _kept_pairs(fixed or FixedPoints(), order)
        log_odds = torch.where(kept, torch.inf, torch.where(kept.T, -torch.inf, log_odds))
        if options.pairwise:
            answer["pairwise"] = log_odds.sigmoid().tolist()
        if options.ties is not None:
            answer["layers"] = _layers(sentences, order, log_odds, options.ties)
    if options.moves:
        answer["moved"] = moved(order)
    if temperature is not None and options.score:
        own = order if fixed in (None, FixedPoints()) else in_order(sentences, scores, pair_logits=pair_logits)["order"]
        answer["coherence"] = coherence(sentences, known, own, pair_logits=pair_logits, temperature=temperature)
    return answer


def _log_odds(scores: Sequence[float], pair_logits: Tensor | None, temperature: float) -> Tensor:
    """`(N, N)`, float64: [i, j] is the calibrated log-odds of «sentence i comes before sentence j», 0 for i = j."""
    if pair_logits is not None:
        return pair_logits / temperature
    values = torch.tensor(scores, dtype=torch.float64)
    return (values - values.unsqueeze(1)) / temperature


def _kept_pairs(fixed: FixedPoints, order: Sequence[int]) -> Tensor:
    """`(N, N)`, bool: whether the constraints together put sentence i before sentence j."""
    kept = torch.zeros(len(order), len(order), dtype=torch.bool)
    later: dict[int, list[int]] = {}
    for i, j in fixed.pairs(len(order)):
        later.setdefault(i, []).append(j)
    for i in reversed(order):
        for j in later.get(i, ()):
            kept[i] |= kept[j]
            kept[i, j] = True
    return kept


def _layers(sentences: Sequence[str], order: Sequence[int], log_odds: Tensor, ties: float) -> list[list[int]]:
    text = {sentence: number for number, sentence in enumerate(dict.fromkeys(sentences))}
    number = torch.tensor([text[sentence] for sentence in sentences])
    # Identical sentences are in order whichever comes first.
    certain = log_odds.masked_fill(number == number.unsqueeze(1), torch.inf)
    cuts = weakest_across(certain[order][:, order]).sigmoid() >= ties
    layers: list[list[int]] = [[] for _ in order[:1]]
    for index, is_cut in zip(order, [False, *cuts.tolist()], strict=False):
        if is_cut:
            layers.append([])
        layers[-1].append(index)
    return layers


def weakest_across(log_odds: Tensor) -> Tensor:
    """For each gap between two neighbours of an order, the lowest log-odds of a pair that it separates.

    Args:
        log_odds: `(..., N, N)`, of «the i-th sentence of the order comes before the j-th».

    Returns:
        `(..., N - 1)`: [k] is the minimum over all i ≤ k < j. Layers cut at every gap where it is at least the
        log-odds of a probability are the finest in which every precedence between two layers has that probability.
    """
    count = log_odds.shape[-1]
    above = torch.ones(count, count, dtype=torch.bool, device=log_odds.device).triu(1)
    from_here = log_odds.masked_fill(~above, torch.inf).flip(-1).cummin(-1).values.flip(-1)  # minimum over later j
    return from_here.cummin(-2).values.diagonal(1, -2, -1)


def moved(order: Sequence[int]) -> list[int]:
    """The smallest set of sentences that have to move to get from the order of the input to this one.

    The others are a longest increasing subsequence of the indices (Schensted, 1961, "Longest Increasing and Decreasing
    Subsequences"). Where several sets are smallest, it is the one found by patience sorting, in O(N log N).

    Args:
        order: the input indices in the new order.

    Returns:
        Input indices, ascending.
    """
    tops: list[int] = []  # [k]: the lowest index that ends an increasing subsequence of k + 1 indices
    before: dict[int, int | None] = {}
    for index in order:
        length = bisect_left(tops, index)
        before[index] = tops[length - 1] if length else None
        tops[length : length + 1] = [index]
    stays = set()
    last = tops[-1] if tops else None
    while last is not None:
        stays.add(last)
        last = before[last]
    return sorted(set(order) - stays)


WEAKEST_JOINTS = 3


def coherence(
    sentences: Sequence[str],
    scores: Sequence[float],
    order: Sequence[int],
    *,
    pair_logits: Tensor | None = None,
    temperature: float,
) -> dict[str, Any]:
    """How well the sentences of a text stand in the order they have, in the judgement of a model.

    Pairs of identical sentences do not count. Needs memory for O(N) numbers.

    Args:
        sentences: of the text, in its order.
        scores: one for each sentence.
        order: the order that the model predicts, without constraints.
        pair_logits: see `StoryScores`.
        temperature: `confidence_temperature` of the model's config.

    Returns:
        - `log_probability`: the mean, over all pairs, of the log-probability that they stand in the given order;
          log(1/2) = -0.69 if the model has no opinion. None for a text without a pair.
        - `kendalls_tau`: between the given order and the predicted one; None for fewer than two sentences.
        - `joints`: for each sentence but the last, the probability that it comes before the next one.
        - `weakest_joints`: up to `WEAKEST_JOINTS` of them, the weakest first, as `index` and `probability`.
    """
    count = len(sentences)
    values = torch.tensor(scores, dtype=torch.float64)
    position = torch.tensor(order, dtype=torch.long).argsort()
    text = {sentence: number for number, sentence in enumerate(dict.fromkeys(sentences))}
    number = torch.tensor([text[sentence] for sentence in sentences], dtype=torch.long)
    total, pairs, inversions = 0.0, 0, 0
    joints: list[float] = []
    for i in range(count - 1):
        row = (values[i + 1 :] - values[i] if pair_logits is None else pair_logits[i, i + 1 :]) / temperature
        others = number[i + 1 :] != number[i]
        total += float(logsigmoid(row[others]).sum())
        pairs += int(others.sum())
        inversions += int((position[i + 1 :] < position[i]).sum())
        joints.append(float(row[0].sigmoid()))
    weakest = sorted(range(len(joints)), key=joints.__getitem__)[:WEAKEST_JOINTS]
    return {
        "log_probability": total / pairs if pairs else None,
        "kendalls_tau": 1 - 4 * inversions / (count * (count - 1)) if count > 1 else None,
        "joints": joints,
        "weakest_joints": [{"index": index, "probability": joints[index]} for index in weakest],
    }


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
    - `pairwise`, with `pairwise=True`: a list of N lists of N probabilities, [i][j] that sentence i comes before
      sentence j; 0.5 for i = j, and 1 or 0 where the constraints decide. With `head="score"` it is
      σ((score j - score i) / `confidence_temperature`), which was calibrated on neighbours.
    - `layers`, with `ties=p` (0.5 < p ≤ 1): the order as a list of lists of input indices, where the order within a
      list is not asserted. It is the finest division of `order` into consecutive runs such that every sentence of a
      run comes before every sentence of each later run with a probability of at least p. Identical sentences, whose
      order cannot be wrong, never join layers. A constraint between two sentences of one layer does not show.
    - `moved`, with `moves=True`: the smallest set of sentences that have to move to get from the order of the input to
      `order`, as input indices.
    - `coherence`, with `score=True`: how well the sentences stand in the order of the input, whatever the constraints:
      `log_probability`, `kendalls_tau`, `joints` and `weakest_joints`, see `coherence`.
    - `truncated`, for a long text only: the indices of sentences whose beginning alone was read, because any two
      sentences must fit into the encoder together.

    `pairwise`, `layers` and `coherence` need a calibrated model, and the first two at most 2,000 sentences.

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
                arrangements of each story that scores are averaged over (1 by default); `pairwise`, `ties`, `moves`
                and `score`, which add keys to the answer. All but the constraints may be given to the constructor, too.

        Raises:
            TypeError: if a story is not a list of strings, or `first`, `last` or `before` is given for many stories.
            ValueError: if a sentence is not valid Unicode, no order satisfies the constraints, `num_permutations`
                (1 to 1,000), `batch_size` or `ties` is out of range, or probabilities are asked for and the model is
                not calibrated.
        """
        batch_size = self._batch_size if batch_size is None else batch_size
        batch_size = None if batch_size is None else whole_number("batch_size", batch_size, at_least=1)
        inputs = as_list(inputs)
        known = {name: kwargs.pop(name) for name in FIXED_POINT_NAMES if name in kwargs}
        known = {name: value for name, value in known.items() if value is not None}
        if known:
            inputs = _with_fixed_points(inputs, known)
        parameters = self._sanitize_parameters(**{**self._preprocess_params, **kwargs})[0]
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
        options = {name: value for name, value in parameters.items() if name != "num_permutations"}
        forward = {"batch_size": batch_size, "num_permutations": parameters.get("num_permutations", 1)}
        answers: list[dict[str, Any]] = self.run_single(stories, {}, forward, {"options": AnswerOptions(**options)})
        return answers

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Writes model, code and tokenizer, in a form that transformers 4 reads, too; see `save_tokenizer`."""
        super().save_pretrained(save_directory, **kwargs)
        save_tokenizer(self.tokenizer, save_directory)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """All parameters in the first dictionary, checked; `__call__` passes them on."""
        names = ["num_permutations", *(option.name for option in fields(AnswerOptions))]
        unknown = sorted(set(kwargs) - set(names))
        if unknown:
            raise TypeError(f"unknown argument of the sentence-ordering pipeline: {', '.join(unknown)}")
        given = {name: value for name, value in kwargs.items() if value is not None}
        # Errors are raised before anything is read.
        arrangements((), given.get("num_permutations", 1))
        AnswerOptions(**{name: value for name, value in given.items() if name != "num_permutations"})
        return given, {}, {}

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

    def postprocess(
        self,
        stories: _Stories,
        options: AnswerOptions = AnswerOptions(),  # noqa: B008 - frozen
    ) -> list[dict[str, Any]]:
        """The scores to an answer for each story."""
        temperature = self.model.config.confidence_temperature
        answers = []
        for sentences, fixed, (_, truncated), found in zip(
            stories.sentences, stories.fixed, stories.shortened, stories.scores, strict=True
        ):
            answer = answer_of(sentences, found, temperature=temperature, fixed=fixed, options=options)
            answers.append({**answer, "truncated": truncated} if truncated else answer)
        return answers


@dataclass
class _Stories:
    """The pipeline's intermediate state for a batch of stories.

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
