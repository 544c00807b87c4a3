"""The scores of an evaluation in Lightning, from all processes."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest

from torch import Tensor

from modeling_sentence_ordering import SentenceOrderingConfig, SentenceOrderingModel
from training.evaluation.copies import Copies
from training.evaluation.metrics import LABEL_PADDING
from training.evaluation.predictions import Predictions, evaluation_metrics
from training.system.processes import Processes


class ScoredStories:
    """Collects the scores of batches and computes the metrics over all of them."""

    def __init__(self) -> None:
        self._batches: list[Predictions] = []

    def add(self, model: SentenceOrderingModel, batch: dict[str, Tensor]) -> None:
        """Scores the stories of a batch."""
        output = model(**{name: tensor for name, tensor in batch.items() if name != "labels"})
        self._batches.append(Predictions.from_batch(output, batch["labels"]))

    def metrics(self, config: SentenceOrderingConfig, processes: Processes, copies: Copies) -> dict[str, float]:
        """The metrics over the stories of all processes, with the `copies` of their loader."""
        # In the order of the batches before they were distributed to the processes.
        shares = processes.all_gather(self._batches)
        batches = [batch for turn in zip_longest(*shares) for batch in turn if batch is not None]
        everything = Predictions.joined([batch for batch in batches if (batch.labels != LABEL_PADDING).any()])
        known = {
            row: same for row, same in copies.items() if row < len(everything.labels)
        }  # the Trainer may limit the batches
        return evaluation_metrics(replace(everything, copies=known), config)
