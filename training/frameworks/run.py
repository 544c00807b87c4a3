"""What a training run has, before any framework is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling_sentence_ordering import SentenceOrderingModel
from training.data.stories import TokenizedStories
from training.data.streaming import StreamedStories
from training.recipe.recipe import Recipe
from training.system.processes import Processes

from .training_log import TrainingLog


@dataclass
class TrainingRun:
    """A model, the stories and the recipe: what a framework is handed to train.

    Attributes:
        recipe: resolved.
        model: trained in place, or replaced where its weights had to be shared out; afterwards it holds the best
            weights, or the last, as the recipe says.
        tokenizer: the model's, saved with each checkpoint.
        training: stories to train on.
        validation: stories to evaluate on meanwhile, or None.
        checkpoints: folder for the framework's own checkpoints.
        log: where losses and metrics are recorded.
        processes: which of how many this one is; each has the same model, and its share of the stories.
    """

    recipe: Recipe
    model: SentenceOrderingModel
    tokenizer: Any
    training: TokenizedStories | StreamedStories
    validation: TokenizedStories | None
    checkpoints: Path
    log: TrainingLog
    processes: Processes = Processes()
