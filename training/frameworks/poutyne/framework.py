"""Training by a recipe in Poutyne's loop. For its `Model` and `Experiment` without a recipe, see `experiment`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import poutyne
import torch
from accelerate import skip_first_batches
from tqdm import tqdm

from training.data.stories import StoryLoader, training_loader
from training.frameworks.loss_watch import LossWatch
from training.frameworks.optimization import build_optimizer, build_schedule, seed_step
from training.frameworks.run import TrainingRun
from training.system.device import fastest_device

from .accumulation import AccumulatingOptimizer, accumulated_loss
from .adapters import ModelWrapper, TransformerCollator
from .callbacks import GradientClipping, StepSchedule
from .checkpoints import Checkpoints, Progress, checkpoint_step

__all__ = ["PROCESSES", "REFUSED", "checkpoint_step", "train"]

REFUSED: Mapping[str, str] = {
    "fp16": "Poutyne does not scale the loss, and small gradients would vanish",
    "fsdp": "Poutyne trains in one process",
}
PROCESSES = False


class RemainingBatches:
    """The remaining batches of the current epoch.

    Without a length, so that Poutyne does not start again when they run out.
    """

    def __init__(self, loader: StoryLoader, recipe_callback: RecipeCallback) -> None:
        self._loader = loader
        self._run = recipe_callback

    def __iter__(self) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
        epoch, steps_done = divmod(self._run.progress.step, self._run.steps_per_epoch)
        self._loader.set_epoch(epoch)
        self._loader.will_resume_at(self._run.progress.step)
        for batch in skip_first_batches(self._loader, steps_done * self._run.batches_per_step):
            yield batch
            if self._run.finished:  # evaluated after the callbacks of the batch
                return


class RecipeCallback(poutyne.Callback):
    """Seeds, logs, evaluates and saves by the recipe."""

    def __init__(
        self,
        run: TrainingRun,
        progress: Progress,
        checkpoints: Checkpoints,
        clipping: GradientClipping,
        schedule: StepSchedule,
        *,
        steps_per_epoch: int,
    ) -> None:
        super().__init__()
        self.run = run
        self.recipe = run.recipe
        self.losses = LossWatch(run)
        self.progress = progress
        self.checkpoints = checkpoints
        self.clipping = clipping
        self.schedule = schedule
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = self.recipe.total_steps(steps_per_epoch)
        self.batches_per_step = self.recipe.gradient_accumulation_steps
        self.bar = tqdm(
            total=self.total_steps, initial=progress.step, desc="Training", unit=" steps", disable=None, leave=False
        )
        # Summed in float32 batch by batch, as in Trainer, so that the logs are equal to the last digit.
        self._loss_sum = torch.tensor(progress.loss_sum)

    @property
    def finished(self) -> bool:
        """Whether all steps are done or the run is stopped early."""
        patience = self.recipe.early_stopping_patience
        stopped = patience > 0 and self.progress.evaluations_since_best >= patience
        return stopped or self.progress.step >= self.total_steps

    def on_train_batch_begin(self, batch_number: int, logs: dict[str, Any]) -> None:
        """Seeds before the first batch of a step. Every epoch, also a resumed one, begins with one."""
        if (batch_number - 1) % self.batches_per_step == 0:
            seed_step(self.recipe, self.progress.step)

    def on_train_batch_end(self, batch_number: int, logs: dict[str, Any]) -> None:
        """After each batch, and after the optimizer step if it was the last batch of one."""
        self.losses.note(self.progress.step + 1, logs["loss"])
        self._loss_sum += torch.tensor(logs["loss"]) / self.batches_per_step
        if batch_number % self.batches_per_step == 0:
            self.progress.step += 1
            self.bar.update()
            self.losses.check()  # costs nothing: Poutyne has read the loss
            self._on_step_end()

    def on_epoch_end(self, epoch_number: int, logs: dict[str, Any]) -> None:
        """Evaluates after an epoch."""
        if self.recipe.eval_strategy == "epoch":
            self._evaluate_and_save()
        self.model.stop_training = self.finished

    def _on_step_end(self) -> None:
        step, ends = self.progress.step, self.progress.step >= self.total_steps
        if ends or step % self.recipe.logging_steps == 0:
            self._log()
        if self.recipe.eval_strategy == "steps" and (ends or step % self.recipe.eval_steps == 0):
            self._evaluate_and_save()

    def _log(self) -> None:
        progress, grad_norm, rate = self.progress, self.clipping.grad_norm, self.schedule.learning_rate
        assert grad_norm is not None and rate is not None
        loss = self._loss_sum.item() / (progress.step - progress.logged_step)
        progress.logged_step = progress.step
        self._loss_sum.zero_()
        self.run.log.training(progress.step, self._epoch, loss, rate, grad_norm.item())

    def _evaluate_and_save(self) -> None:
        if self.run.validation is not None:
            metrics = self._evaluate()
            self.run.log.evaluation(self.progress.step, self._epoch, metrics)
            name = self.recipe.metric_for_best_model
            self.progress.record_evaluation(name, metrics[name])
        self.losses.check_before_saving(self.progress.step)
        self.progress.loss_sum = self._loss_sum.item()
        self.checkpoints.save(self.progress)

    def _evaluate(self) -> dict[str, float]:
        with torch.autocast(self.run.model.device.type, torch.bfloat16, enabled=bool(self.recipe.bf16)):
            return self.run.validate()

    @property
    def _epoch(self) -> float:
        epoch, steps_before = divmod(self.progress.step - 1, self.steps_per_epoch)
        return epoch + (steps_before + 1) / self.steps_per_epoch  # exactly Trainer's value


def train(run: TrainingRun, resume_from: Path | None = None) -> None:
    """Trains the run's model with Poutyne.

    Args:
        run: what to train.
        resume_from: a checkpoint folder of an earlier run of the same recipe, or None.
    """
    recipe, device = run.recipe, fastest_device()
    loader = training_loader(run.training, recipe)
    loader.collate_fn = TransformerCollator(loader.collate_fn)
    steps_per_epoch = len(loader) // recipe.gradient_accumulation_steps
    total_steps = recipe.total_steps(steps_per_epoch)

    network = ModelWrapper(run.model.to(device), autocast=torch.bfloat16 if recipe.bf16 else None)
    optimizer = build_optimizer(run.model, recipe)
    schedule = StepSchedule(build_schedule, recipe, total_steps)
    clipping = GradientClipping(recipe.max_grad_norm or math.inf)
    checkpoints = Checkpoints(run, optimizer, schedule)
    progress = Progress() if resume_from is None else checkpoints.resume(resume_from)
    callback = RecipeCallback(run, progress, checkpoints, clipping, schedule, steps_per_epoch=steps_per_epoch)
    if not callback.finished:
        with callback.bar:
            poutyne.Model(
                network,
                AccumulatingOptimizer(optimizer, recipe.gradient_accumulation_steps),
                accumulated_loss(recipe.gradient_accumulation_steps),
                device=device,
            ).fit_generator(
                RemainingBatches(loader, callback),
                initial_epoch=progress.step // steps_per_epoch + 1,
                epochs=math.ceil(total_steps / steps_per_epoch),
                callbacks=[schedule, clipping, callback],
                verbose=False,
            )
    best = checkpoints.best(progress)
    if recipe.load_best_model_at_end and best is not None:
        checkpoints.load_weights(best)
