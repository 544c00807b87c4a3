"""The interface of the three frameworks. Each is a module named `framework`."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

from training.recipe.recipe import FRAMEWORKS, Recipe, RecipeError, has_gpu
from training.system.processes import Processes

from .run import TrainingRun


class Framework(Protocol):
    """What a framework's module has."""

    REFUSED: Mapping[str, str]
    """Fields of the recipe that the framework does not support, each with the reason."""

    PROCESSES: bool
    """Whether it supports several processes (`run.processes`)."""

    def train(self, run: TrainingRun, resume_from: Path | None = None) -> None:
        """Trains the run's model in place; at the end it has the best weights if the recipe says so."""

    def checkpoint_step(self, checkpoint: Path) -> int:
        """The number of optimizer steps at a checkpoint. Raises UserError if it is not a checkpoint."""


def load_framework(name: str) -> Framework:
    """Imports the module of a framework."""
    return cast(Framework, importlib.import_module(f"training.frameworks.{name}.framework"))


def refuse_unsupported(
    recipe: Recipe,
    framework: Framework,
    processes: Processes = Processes(),  # noqa: B008 - frozen
) -> None:
    """Refuses a recipe that a framework does not support.

    Raises:
        RecipeError: naming the field and the reason.
    """
    for field in ("fp16", "fsdp"):
        if getattr(recipe, field) and not has_gpu():
            raise RecipeError(f"--{field} needs CUDA GPUs, and this machine has none: leave it out")
    if recipe.fsdp and processes.world_size == 1:
        raise RecipeError("--fsdp shards a model over several GPUs: start a process for each, torchrun … train --fsdp")
    if processes.world_size > 1 and not framework.PROCESSES:
        able = [name for name in FRAMEWORKS if load_framework(name).PROCESSES]
        raise RecipeError(
            f"--framework {recipe.framework} trains in one process, and {processes.world_size} were started: start one "
            f"without torchrun, or try {' or '.join(able)}"
        )
    default = Recipe()
    for field, reason in framework.REFUSED.items():
        value, left_open = getattr(recipe, field), getattr(default, field)
        if value != left_open and not (value is False and left_open is None):  # False is the resolved value of None
            able = [name for name in FRAMEWORKS if name != recipe.framework]
            raise RecipeError(f"--{field} is not for --framework {recipe.framework}: {reason}; try {' or '.join(able)}")


def resolved_for(recipe: Recipe, framework: Framework) -> Recipe:
    """The resolved recipe, without fp16 if the framework does not support it."""
    resolved = recipe.resolved()
    return dataclasses.replace(resolved, fp16=False) if "fp16" in framework.REFUSED else resolved
