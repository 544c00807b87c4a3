"""Experiment trackers: transformers' integrations, called with the rows of the training log in every framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import get_available_reporting_integrations, get_reporting_integration_callbacks
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from training.recipe.recipe import Recipe, RecipeError, shareable
from training.system.hub_errors import first_line


def reported_to(names: Sequence[str]) -> list[str]:
    """The integrations of `--report_to`, where `all` means all installed ones and `none` no integration.

    Raises:
        RecipeError: for a name that transformers does not know.
    """
    if "none" in names:
        if len(names) > 1:
            raise RecipeError(f"--report_to none cannot be combined, got {' '.join(names)}")
        return []
    if "all" in names:
        return list(get_available_reporting_integrations())
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise RecipeError(f"--report_to: unknown integration {name!r}; choose from {known}, all, none")
    return list(names)


class Reporting:
    """Reports rows of the training log to experiment trackers, through transformers' callbacks.

    Not TensorBoard, whose files `TrainingLog` writes, so that a resumed run continues them.

    Args:
        callbacks: callback instances.
        arguments: passed to the callbacks, which read the run's name and folder.
        model: passed to the callbacks.
    """

    def __init__(self, callbacks: Sequence[Any], arguments: TrainingArguments, model: Any) -> None:
        self._callbacks = callbacks
        self._arguments = arguments
        self._model = model
        self._state = TrainerState(is_world_process_zero=True, is_local_process_zero=True)
        self._control = TrainerControl()
        self._call("on_train_begin")

    @classmethod
    def from_recipe(cls, recipe: Recipe, model: Any) -> Reporting | None:
        """The trackers of a recipe, or None.

        Raises:
            RecipeError: if one is not installed or does not start.
        """
        names = [name for name in reported_to(recipe.report_to) if name != "tensorboard"]
        if not names:
            return None
        try:
            # accelerate's state, which this sets up, cannot be changed later
            use_cpu = not torch.cuda.is_available()
            arguments = TrainingArguments(output_dir=recipe.output_dir, report_to="none", use_cpu=use_cpu)
            callbacks = [callback() for callback in get_reporting_integration_callbacks(names)]
            for name, value in shareable(recipe).items():  # shown by the trackers as the run's settings
                if hasattr(arguments, name):
                    setattr(arguments, name, value)
            return cls(callbacks, arguments, model)
        except (ImportError, RuntimeError, ValueError, OSError) as error:
            raise RecipeError(f"--report_to {' '.join(names)}: {first_line(error)}") from None

    def log(self, row: Mapping[str, float]) -> None:
        """Reports one row, named as in the log."""
        self._state.global_step, self._state.epoch = int(row["step"]), float(row["epoch"])
        self._call("on_log", logs={name: value for name, value in row.items() if name not in ("step", "epoch")})

    def close(self) -> None:
        """Ends the trackers' runs."""
        self._call("on_train_end")

    def _call(self, event: str, **values: Any) -> None:
        for callback in self._callbacks:
            getattr(callback, event)(self._arguments, self._state, self._control, model=self._model, **values)
