"""Callbacks for the transformers `Trainer`, plain or by a recipe."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from training.frameworks.optimization import seed_step
from training.recipe.recipe import Recipe


class StepSeedCallback(TrainerCallback):
    """Seeds dropout before each optimizer step, from `TrainingArguments.seed` and the step.

    So the dropout of a step does not depend on an evaluation or an interruption before it, and is the same in all
    frameworks.
    """

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Before the first forward pass of a step."""
        seed_step(Recipe(seed=args.seed), state.global_step, args.process_index)
