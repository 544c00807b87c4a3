"""Checkpoints of a run with Poutyne: folders that are written atomically.

Poutyne's own callbacks overwrite the files of the epoch before one by one; if killed, they leave a mixture.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer
from transformers.trainer_utils import rotate_checkpoints
from transformers.utils import logging

from dataset_builder import UserError
from dataset_builder.file_writing import UNFINISHED, new_folder
from modeling_sentence_ordering import save_tokenizer
from training.evaluation.metrics import is_better
from training.frameworks.run import TrainingRun
from training.models.model_folder import load_weights, read_json, write_json

from .callbacks import StepSchedule

_STATE_FILE = "poutyne_state.json"
_OPTIMIZER_FILE = "optimizer.pt"


@dataclass
class Progress:
    """The state of a run, except weights, optimizer and schedule.

    Attributes:
        step: optimizer steps so far.
        logged_step: step of the last entry of the training log.
        loss_sum: sum of the losses of the steps since then.
        best_metric: best value of `metric_for_best_model`; None before any evaluation.
        best_step: its step.
        evaluations_since_best: number of later evaluations, which were not better.
    """

    step: int = 0
    logged_step: int = 0
    loss_sum: float = 0.0
    best_metric: float | None = None
    best_step: int | None = None
    evaluations_since_best: int = 0

    def record_evaluation(self, metric: str, value: float) -> None:
        """Records the value of `metric_for_best_model` in an evaluation."""
        if is_better(metric, value, self.best_metric):
            self.best_metric, self.best_step, self.evaluations_since_best = value, self.step, 0
        else:
            self.evaluations_since_best += 1


class Checkpoints:
    """The checkpoints of one run.

    Args:
        run: the run.
        optimizer: saved and restored with the model.
        schedule: saved and restored with the model.
    """

    def __init__(self, run: TrainingRun, optimizer: Optimizer, schedule: StepSchedule) -> None:
        self.run = run
        self.optimizer = optimizer
        self.schedule = schedule
        self._resumed_from: Path | None = None
        for leftover in run.checkpoints.glob(f".*{UNFINISHED}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def save(self, progress: Progress) -> None:
        """Writes a checkpoint, which is also a Hub folder, and removes old ones."""
        folder = self._folder(progress.step)
        with new_folder(folder, replaces=True) as staging:  # exists if the run was resumed from an earlier one
            self.run.model.save_pretrained(staging)
            save_tokenizer(self.run.tokenizer, staging)
            states = {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}
            torch.save(states, staging / _OPTIMIZER_FILE)
            write_json(staging / _STATE_FILE, dataclasses.asdict(progress))
        best = self.best(progress)
        rotate_checkpoints(
            str(folder.parent),
            save_total_limit=self.run.recipe.save_total_limit,
            best_model_checkpoint=None if best is None else str(best),
        )

    def resume(self, folder: Path) -> Progress:
        """Restores model, optimizer and schedule from a checkpoint."""
        self._resumed_from = folder
        self.load_weights(folder)
        states = torch.load(folder / _OPTIMIZER_FILE, map_location="cpu", weights_only=True)
        self.optimizer.load_state_dict(states["optimizer"])
        self.schedule.load_state_dict(states["schedule"])
        progress = Progress(**read_json(folder / _STATE_FILE))
        if progress.best_step is not None and self.best(progress) is None:
            progress.best_metric = progress.best_step = None  # its weights are missing
        return progress

    def best(self, progress: Progress) -> Path | None:
        """The checkpoint with the best metric, if it still exists."""
        if progress.best_step is None:
            return None
        folders = [self._folder(progress.best_step)]
        if self._resumed_from is not None:  # possibly in another folder
            folders.append(self._resumed_from.parent / folders[0].name)
        return next((folder for folder in folders if folder.is_dir()), None)

    def load_weights(self, folder: Path) -> None:
        """Loads the weights of a checkpoint into the run's model."""
        with _no_progress_bar():
            load_weights(self.run.model, folder)

    def _folder(self, step: int) -> Path:
        return self.run.checkpoints / f"checkpoint-{step}"


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Disables transformers' progress bar, which is shown without a terminal too."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def checkpoint_step(checkpoint: Path) -> int:
    """Optimizer steps before a checkpoint.

    Raises:
        UserError: if it is not a complete checkpoint of a run with Poutyne.
    """
    try:
        state: dict[str, Any] = read_json(checkpoint / _STATE_FILE)
        return int(state["step"])
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(f"{checkpoint} is not a complete checkpoint of a run with Poutyne") from None
