"""The state of a training run: recipe, model, stories, log and predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modeling_sentence_ordering import SentenceOrderingModel
from training.data.batches import evaluation_batches
from training.data.stories import TokenizedStories
from training.data.streaming import StreamedStories
from training.evaluation.predictions import Predictions, evaluation_metrics, predict
from training.models import model_folder
from training.recipe.recipe import Recipe
from training.system.processes import Processes

from .training_log import TrainingLog


@dataclass(frozen=True)
class TrainedOn:
    """The stories that a run was trained on.

    Attributes:
        stories: number of stories.
        sentences: fewest and most sentences of a story; without hashes, of the first stories.
        hashed: whether their hashes were written.
    """

    stories: int
    sentences: tuple[int, int]
    hashed: bool = True


@dataclass
class TrainingRun:
    """A model, its stories and the recipe.

    Attributes:
        recipe: resolved.
        model: trained in place; replaced if its weights were sharded. After training it has the best weights or the
            last, as the recipe says.
        tokenizer: the model's, saved with each checkpoint.
        training: stories to train on.
        splits: stories to evaluate on: `validation`, `test`, both or neither.
        log: where losses and metrics are recorded.
        processes: this process and the number of processes. Each has the same model and a share of the stories.
        predictions: the latest predictions for each split.
        trained_on: the training stories, once they are recorded.
        adapted: the `PeftModel` around the model, with `--lora`.
    """

    recipe: Recipe
    model: SentenceOrderingModel
    tokenizer: Any
    training: TokenizedStories | StreamedStories
    splits: dict[str, TokenizedStories] = field(default_factory=dict)
    log: TrainingLog = field(default_factory=TrainingLog)
    processes: Processes = Processes()
    predictions: dict[str, Predictions] = field(default_factory=dict)
    trained_on: TrainedOn | None = None
    adapted: Any = None

    @property
    def folder(self) -> Path:
        """The recipe's output folder."""
        return Path(self.recipe.output_dir)

    @property
    def checkpoints(self) -> Path:
        """The folder of the framework's checkpoints."""
        return self.folder / model_folder.CHECKPOINTS

    @property
    def validation(self) -> TokenizedStories | None:
        """Stories to evaluate on during training."""
        return self.splits.get("validation")

    @property
    def evaluates(self) -> bool:
        """Whether the model is evaluated during training."""
        return self.validation is not None and self.recipe.eval_strategy != "no"

    @property
    def main_split(self) -> str | None:
        """The split that the results are about: `test`, or `validation` if there is no test split."""
        return next((split for split in ("test", "validation") if split in self.splits), None)

    def evaluate(self, split: str) -> dict[str, float | int]:
        """Metrics on a split; its predictions are kept."""
        batch_size = self.recipe.per_device_eval_batch_size
        self.predictions[split] = predict(
            self.model, self.splits[split], batch_size=batch_size, processes=self.processes
        )
        return evaluation_metrics(self.predictions[split], self.model.config)

    def validate(self) -> dict[str, float | int]:
        """Metrics on the validation stories during training.

        Stories beyond the encoder's limit are truncated, as in Lightning's validation loop. They are in the order of
        its batches too, because the last digits of a mean depend on it.
        """
        stories, batch_size = self.splits["validation"], self.recipe.per_device_eval_batch_size
        predictions = predict(self.model, stories, batch_size=batch_size, long_texts=False, processes=self.processes)
        in_order = np.concatenate(evaluation_batches(stories.lengths, batch_size))
        return evaluation_metrics(predictions.select(in_order), self.model.config)
