"""Predictions of a model for stories in known order, and their metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from modeling_sentence_ordering import SentenceOrderingModel, decoded_ranks, objective_loss, score_stories
from modeling_sentence_ordering.pipeline_sentence_ordering import PORTION
from training.data.batches import evaluation_share
from training.data.stories import TokenizedStories, evaluation_loader
from training.system.errors import CommandFailed
from training.system.processes import Processes

from .copies import Copies, copies_of, match_copies_to_ranks, select_copies
from .metrics import LABEL_PADDING, METRIC_NAMES, ordering_metrics


class ScoresNotFinite(CommandFailed):
    """A score is infinite or NaN."""


@dataclass(frozen=True)
class Predictions:
    """The output of a model for many stories, in their order.

    Attributes:
        scores: `(stories, max_sentences)`, float32 or float64.
        labels: `(stories, max_sentences)`, int64, -100 for padding.
        sentence_mask: `(stories, max_sentences)`, bool, false for padding and sentences that were cut off.
        pair_logits: with `head="pairs"`, for each story `(sentences, sentences)`, or padded.
        copies: stories with identical sentences, which are interchangeable.
    """

    scores: np.ndarray
    labels: np.ndarray
    sentence_mask: np.ndarray
    pair_logits: Sequence[np.ndarray] | np.ndarray | None = None
    copies: Copies = field(default_factory=dict)

    @classmethod
    def from_batch(cls, output: Any, labels: Tensor) -> Predictions:
        """From the output and the labels of a batch, `(batch, max_sentences)`."""
        pairs = None if output.pair_logits is None else list(output.pair_logits.cpu().numpy())
        scores, known, mask = (tensor.cpu().numpy() for tensor in (output.logits, labels, output.sentence_mask))
        return cls(scores, known, mask, pairs)

    @classmethod
    def joined(cls, batches: Sequence[Predictions]) -> Predictions:
        """The stories of all batches, padded to the longest."""
        scores, labels, mask = (
            _concatenated([getattr(batch, name) for batch in batches], padding)
            for name, padding in (("scores", 0), ("labels", LABEL_PADDING), ("sentence_mask", False))
        )
        pairs = None
        if batches[0].pair_logits is not None:
            pairs = [logits for batch in batches if batch.pair_logits is not None for logits in batch.pair_logits]
        return cls(scores, labels, mask, pairs)

    def store_batch(self, indices: list[int], output: Any, labels: Tensor) -> None:
        """Copies the output for a batch of stories to their rows; `labels` is `(batch, max_sentences)`.

        Keeping the small tensors of each batch instead would fragment the memory.
        """
        sentences = labels.shape[1]
        self.scores[indices, :sentences] = output.logits.cpu().numpy()
        self.labels[indices, :sentences] = labels.cpu().numpy()
        self.sentence_mask[indices, :sentences] = output.sentence_mask.cpu().numpy()
        if self.pair_logits is not None:
            for index, logits in zip(indices, output.pair_logits.cpu().numpy(), strict=True):
                size = len(self.pair_logits[index])
                self.pair_logits[index][:] = logits[:size, :size]

    def select(self, stories: np.ndarray) -> Predictions:
        """The stories with these indices, `(chosen,)`."""
        pairs = None if self.pair_logits is None else [self.pair_logits[story] for story in stories]
        copies = select_copies(self.copies, stories)
        return Predictions(self.scores[stories], self.labels[stories], self.sentence_mask[stories], pairs, copies)

    @cached_property
    def texts(self) -> np.ndarray:
        """The labels, where identical sentences share their lowest one."""
        texts = self.labels.copy()
        for story, same in self.copies.items():
            labelled = self.labels[story] != LABEL_PADDING
            texts[story, labelled] = np.array(same)[self.labels[story, labelled]]
        return texts

    @cached_property
    def interchanged_labels(self) -> np.ndarray:
        """Labels in which identical sentences are interchanged, see `match_copies_to_ranks`."""
        return match_copies_to_ranks(self.labels, self.ranks, self.sentence_mask, self.copies)

    @cached_property
    def ranks(self) -> np.ndarray:
        """`(stories, max_sentences)`, float: sorting by it gives the predicted order.

        The scores; with pair logits, the positions in the order decoded from them.
        """
        if self.pair_logits is None:
            return self.scores
        ranks = np.zeros(self.scores.shape)
        for stories, places in self.by_count():
            logits = torch.from_numpy(self.pair_logits_of(stories, places))
            scores = torch.from_numpy(self.scores[stories[:, None], places])
            everything = torch.ones_like(scores, dtype=torch.bool)
            ranks[stories[:, None], places] = decoded_ranks(logits, scores, everything).numpy()
        return ranks

    def by_count(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Groups of stories with equally many sentences.

        Yields their indices `(portion,)`, and the input indices of the sentences that were scored and have a label,
        `(portion, sentences)`.
        """
        scored = self.sentence_mask & (self.labels != LABEL_PADDING)
        counts = scored.sum(axis=1)
        for count in np.unique(counts[counts > 0]):
            of_this = np.flatnonzero(counts == count)
            for start in range(0, len(of_this), PORTION):
                stories = of_this[start : start + PORTION]
                yield stories, np.nonzero(scored[stories])[1].reshape(-1, count)

    def pair_logits_of(self, stories: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Pair logits among chosen sentences, `(portion, sentences, sentences)`; arguments as `by_count` yields."""
        assert self.pair_logits is not None
        return np.stack(
            [self.pair_logits[story][np.ix_(chosen, chosen)] for story, chosen in zip(stories, places, strict=True)]
        )


def _concatenated(batches: Sequence[np.ndarray], padding: float) -> np.ndarray:
    """Concatenates arrays `(batch, max_sentences)`, padded to the widest."""
    width = max(batch.shape[1] for batch in batches)
    return np.concatenate(
        [np.pad(batch, ((0, 0), (0, width - batch.shape[1])), constant_values=padding) for batch in batches]
    )


def _empty_pair_logits(num_sentences: np.ndarray, dtype: Any) -> list[np.ndarray]:
    """A square of zeros for each story, as views of one array."""
    sizes = num_sentences.astype(np.int64)
    memory = np.split(np.zeros(int((sizes**2).sum()), dtype=dtype), np.cumsum(sizes**2)[:-1])
    return [part.reshape(size, size) for part, size in zip(memory, sizes, strict=True)]


def predict(
    model: SentenceOrderingModel,
    stories: TokenizedStories,
    *,
    batch_size: int = 64,
    num_permutations: int | None = None,
    long_texts: bool = True,
    description: str = "Evaluating",
    processes: Processes = Processes(),  # noqa: B008 - frozen
) -> Predictions:
    """Scores every story as the pipeline does: in the same arrangement, and in windows if it is too long.

    The model is in eval mode meanwhile. Each of several processes scores its share of the batches and returns all
    predictions.

    Args:
        model: the model.
        stories: stories whose order is known.
        batch_size: token sequences in a forward pass.
        num_permutations: average the scores over this number of arrangements of each story, as `order` does.
        long_texts: score a story beyond the encoder's limit in windows. Otherwise it is truncated, as in evaluations
            during training.
        description: of the progress bar.
        processes: the processes that share the work, all with the same model; unused with `num_permutations`.
    """
    width = int(stories.num_sentences.max(initial=0))
    dtype = np.float64 if model.dtype == torch.float64 else np.float32
    scores = np.full((len(stories), width), LABEL_PADDING, dtype=dtype)  # as the model pads a batch
    labels = np.full((len(stories), width), LABEL_PADDING, dtype=np.int64)
    mask = np.zeros((len(stories), width), dtype=bool)
    was_training = model.training
    model.eval()
    batches, counting = evaluation_share(stories.lengths, batch_size, processes)
    bar = {"disable": None if processes.is_first else True, "delay": 1, "leave": False}
    progress = tqdm(total=sum(map(len, batches)), desc=description, unit=" stories", **bar)
    pairs = _empty_pair_logits(stories.num_sentences, scores.dtype) if model.config.head == "pairs" else None
    predictions = Predictions(scores, labels, mask, pairs, copies_of(stories))
    # Sharded weights are gathered in `forward`; in inference mode, they could not be trained afterwards.
    untracked = torch.inference_mode if processes.world_size == 1 else torch.no_grad
    try:
        with untracked(), progress:
            if num_permutations is not None:
                every = range(len(stories))
                _predict_arranged(model, stories, every, predictions, batch_size, num_permutations, progress)
                return predictions
            loader = evaluation_loader(stories, batch_size, processes=processes)
            for place, (indices, batch) in enumerate(zip(batches, loader, strict=True)):
                batch_labels = batch.pop("labels")
                output = model(**{key: value.to(model.device) for key, value in batch.items()})
                if place < counting:
                    predictions.store_batch(indices, output, batch_labels)
                progress.update(len(indices))
    finally:
        model.train(was_training)
    if processes.world_size > 1:
        own = [index for indices in batches[:counting] for index in indices]
        own_pairs = [] if pairs is None else [pairs[index] for index in own]
        for others, *values, others_pairs in processes.all_gather(
            (own, scores[own], labels[own], mask[own], own_pairs)
        ):
            scores[others], labels[others], mask[others] = values
            if pairs is not None:
                for index, logits in zip(others, others_pairs, strict=True):
                    pairs[index][:] = logits
    if long_texts:
        _predict_long(model, stories, predictions, batch_size)
    return predictions


def _predict_long(
    model: SentenceOrderingModel, stories: TokenizedStories, predictions: Predictions, batch_size: int
) -> None:
    """Replaces the predictions of truncated stories. Every process scores all of them: the model may be sharded."""
    long = np.flatnonzero(~stories.fits).tolist()
    if not long:
        return
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), tqdm(total=len(long), desc="Long texts", disable=None, delay=1, leave=False) as progress:
            _predict_arranged(model, stories, long, predictions, batch_size, 1, progress)
    finally:
        model.train(was_training)


def _predict_arranged(
    model: SentenceOrderingModel,
    stories: TokenizedStories,
    indices: Sequence[int],
    predictions: Predictions,
    batch_size: int,
    num_permutations: int,
    progress: Any,
) -> None:
    """Fills in the predictions that `order` makes for these stories."""
    for start in range(0, len(indices), PORTION):
        portion = indices[start : start + PORTION]
        ways = [stories.evaluation_labels(index) for index in portion]
        in_true_order = stories.stories.select(portion)["sentences"]
        shown = [[story[i] for i in labels] for story, labels in zip(in_true_order, ways, strict=True)]
        ids = [
            stories.story_tokenizer.shortened([stories.sentence_ids(index)[i] for i in labels])[0]
            for index, labels in zip(portion, ways, strict=True)
        ]
        rows = score_stories(
            model, stories.story_tokenizer, shown, ids, batch_size=batch_size, num_permutations=num_permutations
        )
        for index, labels, found in zip(portion, ways, rows, strict=True):
            predictions.labels[index, : len(labels)] = labels
            for position, score in enumerate(found.scores):
                if score is not None:
                    predictions.scores[index, position] = score
                    predictions.sentence_mask[index, position] = True
            if predictions.pair_logits is not None and found.pair_logits is not None:
                predictions.pair_logits[index][:] = found.pair_logits.numpy()
        progress.update(len(portion))


def evaluation_metrics(predictions: Predictions, config: Any) -> dict[str, float | int]:
    """All metrics of an evaluation, in the order of `--output_json`.

    Args:
        predictions: the predictions.
        config: the model's config, for the objective of `loss`.

    Raises:
        ScoresNotFinite: if a score is not a finite number.
        ValueError: if no story could be scored.
    """
    if not np.isfinite(predictions.scores[predictions.sentence_mask]).all():
        raise ScoresNotFinite("the model's scores are not finite: training has diverged; lower --learning_rate")
    labels, mask = predictions.labels, predictions.sentence_mask
    metrics = ordering_metrics(predictions.ranks, labels, mask, copies=predictions.copies)
    scores = predictions.scores[mask & (labels != LABEL_PADDING)].astype(np.float64)
    everything = {
        **metrics,
        "mean_logits": float(scores.mean()),
        "std_logits": float(scores.std()),
        "loss": _loss(predictions, config),
    }
    first = {name: everything.pop(name) for name in METRIC_NAMES}
    return {**first, **everything}


def _loss(predictions: Predictions, config: Any) -> float:
    """The objective, averaged over the stories that have a label."""
    options = {"objective": config.objective, "target_scale": config.target_scale}
    if predictions.pair_logits is None:
        arrays = (predictions.scores, predictions.labels, predictions.sentence_mask)
        return float(objective_loss(*map(torch.from_numpy, arrays), **options))
    total, number = 0.0, 0
    for stories, places in predictions.by_count():
        scores, labels = (
            torch.from_numpy(array[stories[:, None], places]) for array in (predictions.scores, predictions.labels)
        )
        pair_logits = torch.from_numpy(predictions.pair_logits_of(stories, places))
        loss = objective_loss(scores, labels, labels >= 0, **options, num_stories=1.0, pair_logits=pair_logits)
        total, number = total + float(loss), number + len(stories)
    return total / max(number, 1)


def evaluate(model: SentenceOrderingModel, stories: TokenizedStories, **options: Any) -> dict[str, float | int]:
    """Metrics of a model on stories whose order is known.

    Args:
        model: the model.
        stories: the stories of a split of `StoryDataModule.splits`.
        **options: `batch_size`, token sequences in a forward pass (64 by default); `num_permutations`, the number of
            arrangements of each story over which scores are averaged.

    Returns:
        `accuracy`, `kendalls_tau`, `pmr`, `loss`, `mean_logits`, `std_logits`, `stories`, `sentences`,
        `dropped_sentences` (beyond the encoder's limit) and `unscored_stories` (with fewer than two sentences left).

    Raises:
        RuntimeError: if a score is infinite or NaN.
        ValueError: if there is no story to score.
    """
    return evaluation_metrics(predict(model, stories, **options), model.config)
