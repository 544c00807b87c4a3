"""Callbacks for the transformers `Trainer`, plain or by a recipe."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from training.frameworks.optimization import seed_step
from training.recipe.recipe import Recipe


class StepSeedCallback(TrainerCallback):
    """Seeds dropout at the beginning of each step of the optimizer, from `TrainingArguments.seed` and the step.

    The masks of a step then depend on nothing that drew random numbers before it, such as an evaluation or an
    interrupted run, and are the same in every framework.
    """

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Before the first forward pass of a step."""
        seed_step(Recipe(seed=args.seed), state.global_step, args.process_index)
