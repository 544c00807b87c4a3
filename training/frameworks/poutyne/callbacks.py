"""Callbacks for Poutyne that act on optimizer steps instead of batches or epochs; for any model.

With `batches_per_step`, Poutyne calls no callback between averaging the gradients and the optimizer step. So these
use the optimizer's hooks.
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
    """Clips the gradient of each optimizer step to a norm, after accumulation and averaging.

    Poutyne's `ClipNorm` clips after every batch, before averaging.

    Args:
        max_norm: maximum norm of the gradient of all parameters; infinity only measures it.

    Attributes:
        grad_norm: norm of the last step's gradient before clipping, a scalar tensor.
    """

    _hooks: ClassVar[WeakKeyDictionary[Optimizer, RemovableHandle]] = WeakKeyDictionary()

    def __init__(self, max_norm: float = float("inf")) -> None:
        super().__init__()
        self.max_norm = max_norm
        self.grad_norm: Tensor | None = None

    def on_train_begin(self, logs: dict[str, Any]) -> None:
        """Registers the hook."""
        _replace_hook(self._hooks, self.model.optimizer, self.model.optimizer.register_step_pre_hook(self._clip))

    def on_train_end(self, logs: dict[str, Any]) -> None:
        """Removes the hook."""
        _replace_hook(self._hooks, self.model.optimizer, None)

    def _clip(self, *_: Any) -> None:
        self.grad_norm = torch.nn.utils.clip_grad_norm_(self.model.network.parameters(), self.max_norm)


class StepSchedule(poutyne.LambdaLR):
    """A learning-rate schedule that is updated after each optimizer step, as in transformers.

    Poutyne's own schedulers are updated once an epoch. Pass it in `lr_schedulers` of an `Experiment`, which saves and
    restores its state.

    Args:
        build: called with the optimizer and `arguments`; returns a torch scheduler, such as
            `transformers.get_linear_schedule_with_warmup` does.
        *arguments, **options: for `build`.

    Attributes:
        learning_rate: of the last step and the first parameter group.
    """

    _hooks: ClassVar[WeakKeyDictionary[Optimizer, RemovableHandle]] = WeakKeyDictionary()

    def __init__(self, build: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        super(poutyne.LambdaLR, self).__init__(build, *arguments, **options)  # skip LambdaLR.__init__
        self.learning_rate: float | None = None

    def on_train_begin(self, logs: dict[str, Any]) -> None:
        """Builds the schedule or restores its state, and registers the hook."""
        super().on_train_begin(logs)
        optimizer = self.model.optimizer
        # Building a schedule sets the learning rate of step 0, which loading its state does not change.
        for group, rate in zip(optimizer.param_groups, self.scheduler.get_last_lr(), strict=True):
            group["lr"] = rate
        _replace_hook(self._hooks, optimizer, optimizer.register_step_post_hook(self._update))

    def on_epoch_end(self, epoch_number: int, logs: dict[str, Any]) -> None:
        """Does nothing: the schedule is updated by steps."""

    def on_train_end(self, logs: dict[str, Any]) -> None:
        """Removes the hook."""
        _replace_hook(self._hooks, self.model.optimizer, None)

    def _update(self, *_: Any) -> None:
        self.learning_rate = self.scheduler.get_last_lr()[0]
        self.scheduler.step()


class SeedSteps(Callback):
    """Seeds dropout before each optimizer step, from the seed and the step.

    So the dropout of a step does not depend on an evaluation or an interruption before it, and is the same in all
    frameworks.

    Args:
        seed: the seed.
        batches_per_step: as for `fit_generator`.
    """

    def __init__(self, seed: int = 42, batches_per_step: int = 1) -> None:
        super().__init__()
        self.recipe = Recipe(seed=seed)
        self.batches_per_step = batches_per_step
        self._step = 0

    def on_epoch_begin(self, epoch_number: int, logs: dict[str, Any]) -> None:
        """Counts the steps of earlier epochs, including those of a resumed run."""
        batches = self.params.get("steps")
        if batches is not None:
            self._step = (epoch_number - 1) * math.ceil(batches / self.batches_per_step)

    def on_train_batch_begin(self, batch_number: int, logs: dict[str, Any]) -> None:
        """Before each forward pass, counted from 1."""
        if (batch_number - 1) % self.batches_per_step == 0:
            seed_step(self.recipe, self._step)
            self._step += 1


class PassEpoch(Callback):
    """Passes the epoch, counted from 0, to a loader or sampler with `set_epoch`, so that it shuffles anew.

    Args:
        loader: an object with `set_epoch(epoch)`.
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
    """Replaces the hook of an optimizer, which is still registered if training was interrupted."""
    old = hooks.pop(optimizer, None)
    if old is not None:
        old.remove()
    if hook is not None:
        hooks[optimizer] = hook
