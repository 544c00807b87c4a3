"""Adapts a learning-rate schedule to Lightning callbacks that change the optimizer during `fit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim.lr_scheduler import LambdaLR


def restart(schedule: LambdaLR, learning_rate: float, head_learning_rate: float | None = None) -> None:
    """Restarts a schedule with another learning rate, for `LearningRateFinder`.

    Groups that have `head_learning_rate` keep it.
    """
    kept = learning_rate if head_learning_rate is None else head_learning_rate
    schedule.base_lrs = [kept if rate == head_learning_rate else learning_rate for rate in schedule.base_lrs]
    for group, rate, factor in zip(
        schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=False
    ):
        group["initial_lr"], group["lr"] = rate, rate * factor(schedule.last_epoch)


def leave_added_groups(schedule: LambdaLR) -> None:
    """Excludes parameter groups that were added after the schedule was built.

    `BackboneFinetuning` adds the encoder and sets its learning rate itself.
    """
    groups, known = schedule.optimizer.param_groups, len(schedule.lr_lambdas)
    schedule.lr_lambdas += [_own_rate(group) for group in groups[known:]]
    schedule.base_lrs = [*schedule.base_lrs[:known], *[1.0] * (len(groups) - known)]


def _own_rate(group: dict[str, Any]) -> Callable[[int], float]:
    return lambda _: float(group["lr"])
