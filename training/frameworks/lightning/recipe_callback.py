"""The callback with which Lightning logs, saves and stops by the recipe."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from training.evaluation.metrics import LOGGED_METRICS, is_better
from training.frameworks.loss_watch import LossWatch
from training.frameworks.run import TrainingRun


class RecipeCallback(Callback):
    """Logs, saves and stops at the optimizer steps of the recipe.

    Args:
        run: the run.
        total_steps: optimizer steps of the run.

    Attributes:
        best_step: step of the best evaluation, or None.
    """

    def __init__(self, run: TrainingRun, total_steps: int) -> None:
        self._run = run
        self._total_steps = total_steps
        self._losses = LossWatch(run)
        self._loss: Tensor | float = 0.0
        self._logged_step = 0
        self._learning_rate = 0.0
        self._best_metric: float | None = None
        self.best_step: int | None = None
        self._stopped_early = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops at once if the resumed run had been stopped early."""
        trainer.should_stop = self._stopped_early

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Stores the learning rate of the step."""
        self._learning_rate = optimizer.param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After each batch, and after the step if it was the last batch of one."""
        self._loss = self._loss + outputs["loss"]
        within_step = bool((batch_idx + 1) % trainer.accumulate_grad_batches)
        self._losses.note(trainer.global_step + within_step, outputs["loss"])
        if within_step:
            return
        self._losses.check_if_many()
        step, last = trainer.global_step, trainer.global_step >= self._total_steps
        if last or step % self._run.recipe.logging_steps == 0:
            self._log(trainer, pl_module)
        if last:
            trainer.should_stop = True  # with `max_steps` alone Lightning would stop without a last evaluation
        if not self._run.evaluates and self._saves_after(step, _steps_per_epoch(trainer)):
            self._save(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks the losses before the evaluation and the checkpoint."""
        self._losses.check()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the evaluation, updates the best step and saves a checkpoint."""
        step = trainer.global_step
        metrics = {name: trainer.callback_metrics[f"val_{name}"].item() for name in LOGGED_METRICS}
        self._run.log.evaluation(step, _epochs_done(trainer), metrics)
        name = self._run.recipe.metric_for_best_model
        if is_better(name, metrics[name], self._best_metric):
            self._best_metric, self.best_step = metrics[name], step
        self._stopped_early = trainer.should_stop and step < self._total_steps
        self._save(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The best evaluation, and the losses since the last entry of the log."""
        return {
            "best_metric": self._best_metric,
            "best_step": self.best_step,
            "loss": float(self._loss),
            "logged_step": self._logged_step,
            "stopped_early": self._stopped_early,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best_metric, self.best_step = state_dict["best_metric"], state_dict["best_step"]
        self._loss = torch.tensor(state_dict["loss"])
        self._logged_step = state_dict["logged_step"]
        self._stopped_early = state_dict["stopped_early"]

    def _log(self, trainer: Trainer, module: Any) -> None:
        self._losses.check()
        step = trainer.global_step
        loss = self._run.processes.mean(float(self._loss)) / (step - self._logged_step)
        self._loss, self._logged_step = 0.0, step
        self._run.log.training(step, _epochs_done(trainer), loss, self._learning_rate, module.gradient_norm.item())

    def _saves_after(self, step: int, steps_per_epoch: int) -> bool:
        """Whether a checkpoint is due after a step in a run that does not evaluate."""
        recipe = self._run.recipe
        interval = {"epoch": steps_per_epoch, "steps": recipe.eval_steps}.get(recipe.eval_strategy)
        return interval is not None and (step % interval == 0 or step >= self._total_steps)

    def _save(self, trainer: Trainer) -> None:
        folder, step = self._run.checkpoints, trainer.global_step
        self._losses.check_before_saving(step)
        self._loss = torch.tensor(
            self._run.processes.mean(float(self._loss))
        )  # the checkpoint has the first process's state
        trainer.save_checkpoint(checkpoint_path(folder, step))
        if not self._run.processes.is_first:
            return
        # Later checkpoints were written before the run was resumed; they will be overwritten.
        steps = sorted(saved for saved in named_checkpoints(folder) if saved <= step)
        for old in steps[: -self._run.recipe.save_total_limit]:
            if old != self.best_step:
                checkpoint_path(folder, old).unlink()


def checkpoint_path(folder: Path, step: int) -> Path:
    """The checkpoint of a step."""
    return folder / f"checkpoint-{step}.ckpt"


def named_checkpoints(folder: Path) -> dict[int, Path]:
    """The files of a folder that are named as checkpoints, by step."""
    found: dict[int, Path] = {}
    for path in folder.glob("checkpoint-*.ckpt"):
        with suppress(ValueError):
            found[int(path.stem.split("-")[1])] = path
    return found


def _steps_per_epoch(trainer: Trainer) -> int:
    return int(trainer.num_training_batches) // trainer.accumulate_grad_batches


def _epochs_done(trainer: Trainer) -> float:
    """Epochs so far, with a fraction, bitwise equal to that of transformers' Trainer."""
    batches, per_epoch = trainer.global_step * trainer.accumulate_grad_batches, int(trainer.num_training_batches)
    epoch, batch = divmod(batches - 1, per_epoch)
    return epoch + (batch + 1) / per_epoch
