"""Pushes a model to the Hub after training with Lightning."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from training.frameworks.lightning.checkpoints import model_of_checkpoint
from training.frameworks.lightning.module import SentenceOrderingModule

from .push import Publication, Pushed, check_publication, push_model


class PushToHubCallback(Callback):
    """Pushes the complete model at the end of `fit`: that of the best checkpoint, or the last state.

        trainer = Trainer(max_epochs=3, callbacks=[PushToHubCallback("user/my-model", private=True)])
        trainer.fit(module, datamodule=stories)

    Args:
        repo_id: see `Publication`.
        weights: `"best"`, according to the trainer's `ModelCheckpoint` if that monitors a metric, or `"last"`.
        **options: other attributes of `Publication`.

    Attributes:
        pushed: the result; None before the push, and in all processes but the first.

    Raises:
        UserError, PushFailed: before training as `check_publication`, after it as `push_folder`.
    """

    def __init__(self, repo_id: str, *, weights: str = "best", **options: Any) -> None:
        if weights not in ("best", "last"):
            raise ValueError(f"weights must be 'best' or 'last', not {weights!r}")
        self.publication = Publication(repo_id, **options)
        self.weights = weights
        self.pushed: Pushed | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks before training whether the model can be pushed."""
        if not isinstance(pl_module, SentenceOrderingModule):
            raise ValueError(f"PushToHubCallback needs a SentenceOrderingModule, got a {type(pl_module).__name__}")
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            check_publication(self.publication)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pushes from the first process, but not after a `fast_dev_run`."""
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        assert isinstance(pl_module, SentenceOrderingModule)
        metrics = {name.removeprefix("val_"): value.item() for name, value in trainer.callback_metrics.items()}
        model, tokenizer = pl_module.model, pl_module.tokenizer
        checkpoints = trainer.checkpoint_callback
        if (
            self.weights == "best"
            and isinstance(checkpoints, ModelCheckpoint)
            and checkpoints.monitor
            and checkpoints.best_model_path
        ):
            # Lightning does not keep the other metrics of that step.
            metrics = {checkpoints.monitor.removeprefix("val_"): float(checkpoints.best_model_score or 0)}
            model, tokenizer = model_of_checkpoint(checkpoints.best_model_path)
        self.pushed = push_model(model, tokenizer, self.publication, framework="PyTorch Lightning", metrics=metrics)
