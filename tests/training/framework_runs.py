"""Training with one framework alone, without the folder that the command makes of it."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modeling_sentence_ordering import SentenceOrderingModel, StoryTokenizer
from training.data.recipe_stories import open_stories
from training.data.streaming import StreamedStories
from training.frameworks.checkpoints import last_checkpoint
from training.frameworks.protocol import load_framework
from training.frameworks.run import TrainingRun
from training.frameworks.training_log import TrainingLog
from training.models.encoders import build_model
from training.recipe.recipe import Recipe

Prepare = Callable[[SentenceOrderingModel], Any]


class Killed(Exception):
    """What stands for the end of the process in a test."""


class WatchedLog(TrainingLog):
    """A log that remembers the weights at each evaluation, and can end the run.

    Args:
        path: the CSV.
        model: whose weights are remembered.
        killed_after: step whose entry is the last that is written; every step must be logged.
    """

    def __init__(self, path: Path, model: SentenceOrderingModel, killed_after: int | None = None) -> None:
        super().__init__(path)
        self.weights: dict[int, dict[str, Tensor]] = {}
        self._model = model
        self._killed_after = killed_after

    def training(self, step: int, *values: Any, **named: Any) -> None:
        if self._killed_after is not None and step > self._killed_after:
            raise Killed
        super().training(step, *values, **named)

    def evaluation(self, step: int, *values: Any, **named: Any) -> None:
        super().evaluation(step, *values, **named)
        self.weights[step] = weights_of(self._model)

    @property
    def evaluations(self) -> list[dict[str, float]]:
        return [row for row in self.rows if "eval_loss" in row]

    @property
    def losses(self) -> list[dict[str, float]]:
        return [row for row in self.rows if "loss" in row]


@dataclass
class WatchedRun(TrainingRun):
    """A run with a log that sees more."""

    log: WatchedLog = None


def weights_of(model: torch.nn.Module) -> dict[str, Tensor]:
    return deepcopy({name: tensor.detach().cpu() for name, tensor in model.state_dict().items()})


def make_run(recipe: Recipe, *, prepare: Prepare | None = None, killed_after: int | None = None) -> WatchedRun:
    """Everything that a framework is handed, as the command would make it."""
    folder = Path(recipe.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    stories = open_stories(recipe)
    model, tokenizer = build_model(recipe, stories.sentences)
    if prepare is not None:
        prepare(model)
    story_tokenizer = StoryTokenizer(tokenizer, model.config)
    splits = stories.tokenized(story_tokenizer, recipe.data_seed, ("train", "validation"))
    training = splits.pop("train") if stories.stream is None else StreamedStories(stories.stream, story_tokenizer)
    log = WatchedLog(folder / "log.csv", model, killed_after)
    return WatchedRun(recipe, model, tokenizer, training, splits, log)


def train(recipe: Recipe, **options: Any) -> WatchedRun:
    """A whole run, or one that is `killed_after` a step."""
    run = make_run(recipe, **options)
    try:
        load_framework(recipe.framework).train(run)
    except Killed:
        assert options.get("killed_after") is not None
    return run


def resume(recipe: Recipe, killed: WatchedRun, **options: Any) -> WatchedRun:
    """Goes on from the last checkpoint of a run that was killed, as another process would."""
    framework = load_framework(recipe.framework)
    checkpoint = last_checkpoint(framework, killed.checkpoints)
    assert checkpoint is not None
    run = make_run(recipe, **options)
    run.log.continue_from(killed.log.rows, framework.checkpoint_step(checkpoint))
    framework.train(run, checkpoint)
    return run


def assert_same_weights(some: Any, others: Any, **tolerance: float) -> None:
    """Equal to the last bit, unless a tolerance is given. Models, runs or what `weights_of` gave."""
    weights = []
    for item in (some, others):
        item = item.model if isinstance(item, TrainingRun) else item
        weights.append(item if isinstance(item, dict) else weights_of(item))
    assert weights[0].keys() == weights[1].keys()
    tolerance = {"rtol": 0.0, "atol": 0.0} | tolerance
    for name, tensor in weights[0].items():
        difference = (tensor - weights[1][name]).abs()
        allowed = tolerance["atol"] + tolerance["rtol"] * weights[1][name].abs()
        assert (difference <= allowed).all(), f"{name} differs by up to {difference.max()}"
