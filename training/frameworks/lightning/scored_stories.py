"""The scores of all stories of an evaluation, from whichever process scored them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
from torch import Tensor

from modeling_sentence_ordering import SentenceOrderingConfig, SentenceOrderingModel
from training.evaluation.metrics import LABEL_PADDING
from training.evaluation.predictions import Predictions, judge
from training.system.processes import Processes

LOGGED_METRICS = ("loss", "accuracy", "kendalls_tau", "pmr", "mean_logits", "std_logits")
"""What an evaluation logs. The mean and standard deviation of the scores show a model that has collapsed."""

# Of the stories of a batch: scores, labels and sentence mask, `(batch, max_sentences)` each, see `Predictions`.
_Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


class ScoredStories:
    """Collects scores batch by batch, and computes the metrics over all of them."""

    def __init__(self) -> None:
        self._batches: list[_Batch] = []

    def add(self, model: SentenceOrderingModel, batch: dict[str, Tensor]) -> None:
        """Scores the stories of a batch."""
        output = model(**{name: tensor for name, tensor in batch.items() if name != "labels"})
        arrays = (output.logits, batch["labels"], output.sentence_mask)
        scores, labels, mask = (tensor.cpu().numpy() for tensor in arrays)
        self._batches.append((scores, labels, mask))

    def metrics(self, config: SentenceOrderingConfig, processes: Processes) -> dict[str, float]:
        """The metrics over the stories of all processes."""
        # In the order of the one loader whose batches were distributed to the processes.
        shares = processes.gathered(self._batches)
        batches = [batch for turn in zip_longest(*shares) for batch in turn if batch is not None]
        batches = [batch for batch in batches if (batch[1] != LABEL_PADDING).any()]
        scores, labels, mask = zip(*batches, strict=True)
        everything = Predictions(_joined(scores, 0), _joined(labels, LABEL_PADDING), _joined(mask, False))
        judged = judge(everything, config)
        return {name: judged[name] for name in LOGGED_METRICS}


def _joined(batches: Sequence[np.ndarray], padding: float) -> np.ndarray:
    """Arrays `(batch, max_sentences)` of batches, one below the other."""
    width = max(batch.shape[1] for batch in batches)
    return np.concatenate(
        [np.pad(batch, ((0, 0), (0, width - batch.shape[1])), constant_values=padding) for batch in batches]
    )
