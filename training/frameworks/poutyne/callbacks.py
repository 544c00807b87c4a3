"""Callbacks for Poutyne that go by the optimizer's steps, where its own go by batches or epochs; for any model.

Under `batches_per_step` Poutyne accumulates the gradients of several batches, averages them, and calls no callback
between that and the optimizer's step. The optimizer's own hooks are the place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import poutyne
import torch
from poutyne import Callback
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from training.frameworks.optimization import seed_step
from training.recipe.recipe import Recipe


class GradientClipping(Callback):
    """Clips the gradient of each step of the optimizer, accumulated and averaged, to a norm.

    Poutyne's `ClipNorm` clips after every batch instead: what is accumulated so far, and before it is averaged.

    Args:
        max_norm: the largest norm of the gradient of all parameters; infinity only measures it.

    Attributes:
        grad_norm: norm of the last step's gradient before it was clipped, a scalar tensor.
    """

    _hooks: ClassVar[WeakKeyDictionary[Optimizer, RemovableHandle]] = WeakKeyDictionary()

    def __init__(self, max_norm: float = float("inf")) -> None:
        super().__init__()
        self.max_norm = max_norm
        self.grad_norm: Tensor | None = None

    def on_train_begin(self, logs: dict[str, Any]) -> None:
        """Hooks into the optimizer."""
        _replace_hook(self._hooks, self.model.optimizer, self.model.optimizer.register_step_pre_hook(self._clip))

    def on_train_end(self, logs: dict[str, Any]) -> None:
        """Leaves the optimizer as it was."""
        _replace_hook(self._hooks, self.model.optimizer, None)

    def _clip(self, *_: Any) -> None:
        self.grad_norm = torch.nn.utils.clip_grad_norm_(self.model.network.parameters(), self.max_norm)


class StepSchedule(poutyne.LambdaLR):
    """A learning rate schedule that moves after each step of the optimizer, as those of transformers do.

    Poutyne's own schedulers move once an epoch. Pass it among the `lr_schedulers` of an `Experiment`, which then saves
    and resumes its state; `Experiment` accepts only subclasses of its own schedulers.

    Args:
        build: called with the optimizer and `arguments`; returns a torch scheduler, such as
            `transformers.get_linear_schedule_with_warmup` does.
        *arguments, **options: for `build`.

    Attributes:
        learning_rate: that of the last step, of the first parameter group.
    """

    _hooks: ClassVar[WeakKeyDictionary[Optimizer, RemovableHandle]] = WeakKeyDictionary()

    def __init__(self, build: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        super(poutyne.LambdaLR, self).__init__(build, *arguments, **options)  # its own would build a LambdaLR
        self.learning_rate: float | None = None

    def on_train_begin(self, logs: dict[str, Any]) -> None:
        """Builds the schedule, or resumes it from the loaded state, and hooks into the optimizer."""
        super().on_train_begin(logs)
        optimizer = self.model.optimizer
        # Building a schedule sets the learning rate of step 0, and loading its state does not change that.
        for group, rate in zip(optimizer.param_groups, self.scheduler.get_last_lr(), strict=True):
            group["lr"] = rate
        _replace_hook(self._hooks, optimizer, optimizer.register_step_post_hook(self._move))

    def on_epoch_end(self, epoch_number: int, logs: dict[str, Any]) -> None:
        """Does nothing: the schedule moves by steps, not by epochs."""

    def on_train_end(self, logs: dict[str, Any]) -> None:
        """Removes the hook."""
        _replace_hook(self._hooks, self.model.optimizer, None)

    def _move(self, *_: Any) -> None:
        self.learning_rate = self.scheduler.get_last_lr()[0]
        self.scheduler.step()


class SeedSteps(Callback):
    """Seeds dropout before each step of the optimizer, by the seed and the step.

    The masks of a step then do not depend on what drew random numbers before, such as an evaluation or an interrupted
    run, and are the same as in the other frameworks.

    Args:
        seed: as the recipe's.
        batches_per_step: that of `fit_generator`.
    """

    def __init__(self, seed: int = 42, batches_per_step: int = 1) -> None:
        super().__init__()
        self.recipe = Recipe(seed=seed)
        self.batches_per_step = batches_per_step
        self._step = 0

    def on_epoch_begin(self, epoch_number: int, logs: dict[str, Any]) -> None:
        """Counts the steps of the epochs before, also those of an earlier run that is resumed."""
        batches = self.params.get("steps")
        if batches is not None:
            self._step = (epoch_number - 1) * math.ceil(batches / self.batches_per_step)

    def on_train_batch_begin(self, batch_number: int, logs: dict[str, Any]) -> None:
        """Before each forward pass, counted from 1."""
        if (batch_number - 1) % self.batches_per_step == 0:
            seed_step(self.recipe, self._step)
            self._step += 1


class PassEpoch(Callback):
    """Tells a loader which epoch begins, counted from 0, so that it shuffles anew; `DataLoader`s with a
    `DistributedSampler` want that, and so do ours.

    Args:
        loader: whatever has `set_epoch(epoch)`.
    """

    def __init__(self, loader: Any) -> None:
        super().__init__()
        self.loader = loader

    def on_epoch_begin(self, epoch_number: int, logs: dict[str, Any]) -> None:
        """Before the first batch of an epoch, which Poutyne counts from 1."""
        self.loader.set_epoch(epoch_number - 1)


def _replace_hook(
    hooks: WeakKeyDictionary[Optimizer, RemovableHandle], optimizer: Optimizer, hook: RemovableHandle | None
) -> None:
    """One hook of a kind for an optimizer: training that was interrupted never ended, and its hook is still there."""
    old = hooks.pop(optimizer, None)
    if old is not None:
        old.remove()
    if hook is not None:
        hooks[optimizer] = hook
