"""Training, evaluating and running sentence ordering models, by one recipe in any of three frameworks.

The names below are what users need. Each is imported when it is first used: `import training` loads no framework, and
`sentence-ordering --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .evaluation.predictions import evaluate
    from .frameworks.lightning.data import StoryDataModule
    from .frameworks.lightning.module import SentenceOrderingModule
    from .frameworks.trainer.callbacks import StepSeedCallback
    from .models.encoders import build_model
    from .recipe.recipe import Recipe, RecipeError
    from .runs.session import run_recipe as train

__all__ = [
    "Recipe",
    "RecipeError",
    "SentenceOrderingModule",
    "StepSeedCallback",
    "StoryDataModule",
    "build_model",
    "evaluate",
    "train",
]
# Where each name is defined, and its name there if that differs.
_DEFINED_IN = {
    "Recipe": "recipe.recipe",
    "RecipeError": "recipe.recipe",
    "SentenceOrderingModule": "frameworks.lightning.module",
    "StepSeedCallback": "frameworks.trainer.callbacks",
    "StoryDataModule": "frameworks.lightning.data",
    "build_model": "models.encoders",
    "evaluate": "evaluation.predictions",
    "train": "runs.session:run_recipe",
}


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, defined_as = _DEFINED_IN[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), defined_as or name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
