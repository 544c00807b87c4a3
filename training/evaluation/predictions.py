"""Evaluation outside of any framework: one pass, one score per sentence kept, the metrics from the one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from modeling_sentence_ordering import SentenceOrderingModel, objective_loss, score_stories
from training.data.batches import evaluation_share
from training.data.stories import TokenizedStories, evaluation_loader
from training.system.processes import Processes

from .metrics import LABEL_PADDING, METRIC_NAMES, ordering_metrics

# Stories that are scored before progress is shown, and among which batches of similar length are found.
_PORTION = 1024


class ScoresNotFinite(RuntimeError):
    """A model whose scores are no numbers any more; the message is one line."""


@dataclass(frozen=True)
class Predictions:
    """What a model says of many stories, in their order.

    Attributes:
        scores: `(stories, max_sentences)`, float32 or float64.
        labels: `(stories, max_sentences)`, int64, -100 for padding.
        sentence_mask: `(stories, max_sentences)`, bool, false for padding and sentences that were cut off.
    """

    scores: np.ndarray
    labels: np.ndarray
    sentence_mask: np.ndarray

    def take(self, indices: list[int], scores: Tensor, labels: Tensor, sentence_mask: Tensor) -> None:
        """Takes over what was found of some stories, `(batch, max_sentences)` each, with the batch's own maximum.

        At once: small arrays that were kept beside it would lie between those of the model, and memory would go to
        pieces.
        """
        sentences = labels.shape[1]
        self.scores[indices, :sentences] = scores.cpu().numpy()
        self.labels[indices, :sentences] = labels.cpu().numpy()
        self.sentence_mask[indices, :sentences] = sentence_mask.cpu().numpy()


def predict(
    model: SentenceOrderingModel,
    stories: TokenizedStories,
    *,
    batch_size: int = 64,
    num_permutations: int | None = None,
    description: str = "Evaluating",
    processes: Processes = Processes(),  # noqa: B008 - frozen
) -> Predictions:
    """Scores every story, each in the one shuffle that its id and text decide.

    The model is put into eval mode for it, and back into the mode it was in. Of several processes each scores its
    share of the very batches that one would make, and has everything in the end.

    Args:
        model: scores the sentences.
        stories: stories whose order is known.
        batch_size: token sequences that go through the model at once.
        num_permutations: average the scores over so many arrangements of each story instead, those that `order`
            takes (see `arrangements`). They know nothing of the true order: it is the shuffle that is arranged.
        description: of the progress bar.
        processes: who share the work, all with the same model; not where arrangements are averaged.
    """
    width = int(stories.num_sentences.max(initial=0))
    scores = np.zeros((len(stories), width), dtype=np.float64 if model.dtype == torch.float64 else np.float32)
    labels = np.full((len(stories), width), LABEL_PADDING, dtype=np.int64)
    mask = np.zeros((len(stories), width), dtype=bool)
    was_training = model.training
    model.eval()
    batches, counting = evaluation_share(stories.lengths, batch_size, processes)
    bar = {"disable": None if processes.is_first else True, "delay": 1, "leave": False}
    progress = tqdm(total=sum(map(len, batches)), desc=description, unit=" stories", **bar)
    predictions = Predictions(scores, labels, mask)
    # Weights that are shared out are gathered in `forward`, and could not be trained if that was in inference mode.
    untracked = torch.inference_mode if processes.world_size == 1 else torch.no_grad
    try:
        with untracked(), progress:
            if num_permutations is not None:
                _predict_arranged(model, stories, predictions, batch_size, num_permutations, progress)
                return predictions
            loader = evaluation_loader(stories, batch_size, processes=processes)
            for place, (indices, batch) in enumerate(zip(batches, loader, strict=True)):
                batch_labels = batch.pop("labels")
                output = model(**{key: value.to(model.device) for key, value in batch.items()})
                if place < counting:
                    predictions.take(indices, output.logits, batch_labels, output.sentence_mask)
                progress.update(len(indices))
    finally:
        model.train(was_training)
    if processes.world_size > 1:
        own = [index for indices in batches[:counting] for index in indices]
        for others, *values in processes.gathered((own, scores[own], labels[own], mask[own])):
            scores[others], labels[others], mask[others] = values
    return predictions


def _predict_arranged(
    model: SentenceOrderingModel,
    stories: TokenizedStories,
    predictions: Predictions,
    batch_size: int,
    num_permutations: int,
    progress: Any,
) -> None:
    """Fills in what `order` would say of the shuffled stories, a portion at a time."""
    for start in range(0, len(stories), _PORTION):
        portion = range(start, min(start + _PORTION, len(stories)))
        shuffles = [stories.evaluation_labels(index) for index in portion]
        in_true_order = stories.stories[portion.start : portion.stop]["sentences"]
        shuffled = [[story[i] for i in labels] for story, labels in zip(in_true_order, shuffles, strict=True)]
        ids = [
            stories.story_tokenizer.shortened([stories.sentence_ids(index)[i] for i in labels])[0]
            for index, labels in zip(portion, shuffles, strict=True)
        ]
        rows = score_stories(
            model, stories.story_tokenizer, shuffled, ids, batch_size=batch_size, num_permutations=num_permutations
        )
        for index, labels, row in zip(portion, shuffles, rows, strict=True):
            predictions.labels[index, : len(labels)] = labels
            for place, score in enumerate(row):
                if score is not None:
                    predictions.scores[index, place], predictions.sentence_mask[index, place] = score, True
        progress.update(len(portion))


def judge(predictions: Predictions, config: Any) -> dict[str, float | int]:
    """All metrics of an evaluation, in the order that its JSON has.

    Args:
        predictions: scores and labels.
        config: the model's config, for the objective that `loss` is.

    Raises:
        ScoresNotFinite: if a score is not a finite number.
        ValueError: if no story could be scored.
    """
    if not np.isfinite(predictions.scores[predictions.sentence_mask]).all():
        raise ScoresNotFinite(
            "the model's scores are not finite numbers any more: its weights have diverged; lower --learning_rate"
        )
    metrics = ordering_metrics(predictions.scores, predictions.labels, predictions.sentence_mask)
    loss = objective_loss(
        torch.from_numpy(predictions.scores),
        torch.from_numpy(predictions.labels),
        torch.from_numpy(predictions.sentence_mask),
        objective=config.objective,
        target_scale=config.target_scale,
    )
    everything = {**metrics, "loss": float(loss)}
    first = {name: everything.pop(name) for name in METRIC_NAMES}
    return {**first, **everything}


def evaluate(model: SentenceOrderingModel, stories: TokenizedStories, **options: Any) -> dict[str, float | int]:
    """Scores the stories and judges the order: see `predict`, which takes the options, and `judge`."""
    return judge(predict(model, stories, **options), model.config)
