"""What the benchmarks share: how a run is judged, and the file that its figures are added to."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from datasets.utils.logging import disable_progress_bar
from transformers.utils import logging

from dataset_builder import UserError
from modeling_sentence_ordering import StoryTokenizer
from training.data.recipe_stories import open_stories
from training.data.stories import TokenizedStories
from training.evaluation.analysis import analyse
from training.evaluation.calibration import JudgedPairs, calibration_error, fit_temperature, judged_pairs
from training.evaluation.metrics import ordering_metrics
from training.evaluation.predictions import Predictions, predict
from training.models.model_folder import read_json, write_json
from training.models.trained_model import load_trained_model
from training.recipe.recipe import Recipe, with_later_fields
from training.runs.run_outputs import environment
from training.system.console import complain
from training.system.device import fastest_device


class ResultsFile:
    """Figures of many runs in one JSON file, by row of the table and by seed; all of them by the one recipe.

    Args:
        path: the file; it need not be there.
        head: what all runs have in common, in plain values: `recipe` and whatever else decides the figures.

    Raises:
        UserError: if the file holds runs with another head.
    """

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        self.path = path
        self.head: dict[str, Any] = json.loads(json.dumps(head))
        self.runs()

    def runs(self) -> dict[str, dict[str, Any]]:
        """What is in the file: for each row, for each seed (as text), its figures."""
        if not self.path.exists():
            return {}
        values = read_json(self.path)
        here = {**self.head, **self.head.get("recipe", {})}
        there = {**values, **with_later_fields(values.get("recipe", {}))}
        for name in self.head | self.head.get("recipe", {}) | values.get("recipe", {}):
            if name != "recipe" and there.get(name) != here.get(name):
                raise UserError(
                    f"{self.path} holds runs by another recipe: {name} is {there.get(name)} there and "
                    f"{here.get(name)} here; give that recipe, or another --results"
                )
        found: dict[str, dict[str, Any]] = values["runs"]
        return found

    def claim(self) -> None:
        """Writes the head, so that nothing by another recipe is begun in the same place."""
        self._write(self.runs())

    def has(self, row: str, seed: int, recipe: Mapping[str, Any] | None = None) -> bool:
        """Whether this run was measured already.

        Args:
            row: its row.
            seed: its seed.
            recipe: what its recipe has for itself, beside the head.

        Raises:
            UserError: if it was, by another recipe.
        """
        found = self.runs().get(row, {}).get(str(seed))
        if found is not None and recipe is not None and found["recipe"] != json.loads(json.dumps(recipe)):
            raise UserError(
                f"{self.path} holds {row}, seed {seed}, by another recipe: its own fields are {found['recipe']} there "
                f"and {recipe} here; give that recipe, or another --results"
            )
        return found is not None

    def add(self, row: str, seed: int, figures: Mapping[str, Any]) -> None:
        """Adds a run; what another process has added meanwhile is kept."""
        runs = self.runs()
        runs.setdefault(row, {})[str(seed)] = dict(figures)
        self._write(runs)

    def conclude(self, conclusions: Mapping[str, Any]) -> None:
        """Writes what follows from all of the runs, until the next one is added."""
        self._write(self.runs(), conclusions)

    def _write(self, runs: Mapping[str, Any], conclusions: Mapping[str, Any] | None = None) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {**self.head, **(conclusions or {}), "runs": runs})


def figures(predictions: Predictions) -> dict[str, Any]:
    """Metrics with their intervals, over all stories and by their number of sentences; nothing that quotes a story."""
    metrics = ordering_metrics(predictions.ranks, predictions.labels, predictions.sentence_mask)
    analysis = analyse(predictions)
    return {**metrics, "intervals": analysis["intervals"], "by_sentences": analysis["by_sentences"]}


def calibration_figures(predictions: Predictions, temperature: float | None) -> dict[str, float]:
    """The errors of the probabilities of pairs.

    Args:
        predictions: of the stories that the temperature was fitted on, or of others.
        temperature: the model's, None if it has none.

    Returns:
        `calibration_error` with the model's own temperature, if there is one, and `calibration_error_cross_fitted`,
        where half of the stories are judged with a temperature fitted on the other half, both ways.
    """
    found = {}
    if temperature is not None:
        found["calibration_error"] = calibration_error(judged_pairs(predictions), temperature)
    halves = [_some(predictions, np.arange(len(predictions.labels)) % 2 == half) for half in (0, 1)]
    scaled = []  # differences in units of the temperature that each half is judged with
    for half, other in zip(halves, reversed(halves), strict=True):
        fitted = fit_temperature(other)
        if fitted is None:
            return found
        scaled.append(half.differences / fitted)
    right = np.concatenate([half.right for half in halves])
    found["calibration_error_cross_fitted"] = calibration_error(JudgedPairs(np.concatenate(scaled), right), 1.0)
    return found


def _some(predictions: Predictions, chosen: np.ndarray) -> JudgedPairs:
    return judged_pairs(predictions.select(chosen.nonzero()[0]))


def judge_arrangements(
    folder: str | Path, stories: Dataset, recipe: Recipe, num_permutations: Sequence[int]
) -> dict[str, Any]:
    """A trained model's figures with so many arrangements of each story, and the seconds that they took."""
    model, tokenizer = load_trained_model(str(folder))
    tokenized = TokenizedStories(stories, StoryTokenizer(tokenizer, model.config), recipe.data_seed)
    judged = {}
    for count in num_permutations:
        began = time.perf_counter()
        predictions = predict(model, tokenized, batch_size=recipe.per_device_eval_batch_size, num_permutations=count)
        seconds = round(time.perf_counter() - began, 2)
        calibration = calibration_figures(predictions, model.config.confidence_temperature)
        judged[str(count)] = {**figures(predictions), **calibration, "seconds": seconds}
    return judged


def environment_here() -> dict[str, str]:
    """Versions and hardware, for what is no model of ours."""
    anything: Any = torch.zeros(0, device=fastest_device())
    return environment(anything)


def load_splits(recipe: Recipe) -> DatasetDict:
    """The stories of a recipe, split as training does.

    Raises:
        UserError: if they cannot be read, or there are none to validate on.
    """
    splits = open_stories(recipe).splits
    if "validation" not in splits:
        raise UserError("there are no validation stories: name some with --validation_data")
    return splits


def run_script(script: Callable[[], None]) -> int:
    """Runs a benchmark; what goes wrong is one line on standard error. Its exit code, as the command has them."""
    if not sys.stderr.isatty():
        disable_progress_bar()
        logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        script()
        return 0
    except KeyboardInterrupt:
        complain("interrupted; started again, it goes on from here")
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        complain(str(error))
        return 2 if isinstance(error, ValueError) else 1
