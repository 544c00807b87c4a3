"""Training, evaluating and running sentence ordering models, by one recipe in any of three frameworks.

The names below are what users need. Each is imported when it is first used: `import training` loads no framework, and
`sentence-ordering --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .evaluation.predictions import evaluate
    from .frameworks.lightning.checkpoints import HubFolderCallback, checkpoint_to_folder
    from .frameworks.lightning.data import StoryDataModule
    from .frameworks.lightning.module import SentenceOrderingModule
    from .frameworks.optimization import build_optimizer, build_schedule
    from .frameworks.poutyne.adapters import (
        EpochMetric,
        MetricWrapper,
        ModelWrapper,
        TransformerCollator,
        TransformerModel,
        model_loss,
    )
    from .frameworks.poutyne.callbacks import GradientClipping, PassEpoch, SeedSteps, StepSchedule
    from .frameworks.poutyne.experiment import build_experiment, ordering_metric
    from .frameworks.trainer.callbacks import StepSeedCallback
    from .inference.order_batches import OrderStories
    from .models.encoders import build_model
    from .models.trained_model import load_trained_model
    from .publishing.lightning import PushToHubCallback
    from .publishing.poutyne import push_experiment
    from .recipe.recipe import Recipe, RecipeError
    from .runs.run_recipe import run_recipe as train

__all__ = [
    "EpochMetric",
    "GradientClipping",
    "HubFolderCallback",
    "MetricWrapper",
    "ModelWrapper",
    "OrderStories",
    "PassEpoch",
    "PushToHubCallback",
    "Recipe",
    "RecipeError",
    "SeedSteps",
    "SentenceOrderingModule",
    "StepSchedule",
    "StepSeedCallback",
    "StoryDataModule",
    "TransformerCollator",
    "TransformerModel",
    "build_experiment",
    "build_model",
    "build_optimizer",
    "build_schedule",
    "checkpoint_to_folder",
    "evaluate",
    "load_trained_model",
    "model_loss",
    "ordering_metric",
    "push_experiment",
    "train",
]
# Where each name is defined, and its name there if that differs.
_DEFINED_IN = {
    "EpochMetric": "frameworks.poutyne.adapters",
    "GradientClipping": "frameworks.poutyne.callbacks",
    "HubFolderCallback": "frameworks.lightning.checkpoints",
    "MetricWrapper": "frameworks.poutyne.adapters",
    "ModelWrapper": "frameworks.poutyne.adapters",
    "OrderStories": "inference.order_batches",
    "PassEpoch": "frameworks.poutyne.callbacks",
    "PushToHubCallback": "publishing.lightning",
    "Recipe": "recipe.recipe",
    "RecipeError": "recipe.recipe",
    "SeedSteps": "frameworks.poutyne.callbacks",
    "SentenceOrderingModule": "frameworks.lightning.module",
    "StepSchedule": "frameworks.poutyne.callbacks",
    "StepSeedCallback": "frameworks.trainer.callbacks",
    "StoryDataModule": "frameworks.lightning.data",
    "TransformerCollator": "frameworks.poutyne.adapters",
    "TransformerModel": "frameworks.poutyne.adapters",
    "build_experiment": "frameworks.poutyne.experiment",
    "build_model": "models.encoders",
    "build_optimizer": "frameworks.optimization",
    "build_schedule": "frameworks.optimization",
    "checkpoint_to_folder": "frameworks.lightning.checkpoints",
    "evaluate": "evaluation.predictions",
    "load_trained_model": "models.trained_model",
    "model_loss": "frameworks.poutyne.adapters",
    "ordering_metric": "frameworks.poutyne.experiment",
    "push_experiment": "publishing.poutyne",
    "train": "runs.run_recipe:run_recipe",
}


def _version() -> str:
    """The installed version. This package's code may also be used without being installed: then it has no version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sentence-ordering")
    except PackageNotFoundError as error:
        raise AttributeError(f"module {__name__!r} has no attribute '__version__': it is not installed") from error


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, defined_as = _DEFINED_IN[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), defined_as or name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
