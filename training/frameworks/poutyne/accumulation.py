"""Gradient accumulation in Poutyne in which every batch of a step has the same weight.

Poutyne's `batches_per_step` weights a batch by its number of examples and divides the sum. The recipe's loss is
weighted already (see `Draw.num_stories`); dividing each gradient gives the same bits as the other frameworks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from .adapters import model_loss


def accumulated_loss(batches_per_step: int) -> Callable[[Mapping[str, Any], Any], Tensor]:
    """The model's loss, with its gradient divided by the number of batches in a step."""

    def loss_function(outputs: Mapping[str, Any], labels: Any = None) -> Tensor:
        loss = model_loss(outputs, labels)
        if loss.requires_grad:
            loss.register_hook(lambda gradient: gradient / batches_per_step)
        return loss

    return loss_function


class AccumulatingOptimizer(Optimizer):
    """Wraps an optimizer so that it steps once for several batches.

    Hooks are registered on the wrapped optimizer.

    Args:
        optimizer: the wrapped optimizer.
        batches_per_step: calls of `step` for one step.
    """

    def __init__(self, optimizer: Optimizer, batches_per_step: int) -> None:
        # Without super().__init__(), which would create other parameter groups and hooks.
        self.optimizer = optimizer
        self.batches_per_step = batches_per_step
        self._batches = 0
        self.param_groups = optimizer.param_groups
        self.state = optimizer.state
        self.defaults = optimizer.defaults

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Zeroes the gradients before the first batch of a step."""
        if self._batches == 0:
            self.optimizer.zero_grad(set_to_none)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Steps after the last batch of a step."""
        self._batches = (self._batches + 1) % self.batches_per_step
        if self._batches == 0:
            self.optimizer.step(closure)

    def register_step_pre_hook(self, hook: Any) -> RemovableHandle:
        """See `torch.optim.Optimizer`."""
        return self.optimizer.register_step_pre_hook(hook)

    def register_step_post_hook(self, hook: Any) -> RemovableHandle:
        """See `torch.optim.Optimizer`."""
        return self.optimizer.register_step_post_hook(hook)
