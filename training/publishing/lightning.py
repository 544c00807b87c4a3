"""Pushes a model to the Hub when Lightning has trained it."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from training.frameworks.lightning.checkpoints import model_of_checkpoint
from training.frameworks.lightning.module import SentenceOrderingModule

from .push import Publication, Pushed, check_publication, push_model


class PushToHubCallback(Callback):
    """Pushes the model, whole, when `fit` has come to its end: the best checkpoint's, or the last state.

        trainer = Trainer(max_epochs=3, callbacks=[PushToHubCallback("user/my-model", private=True)])
        trainer.fit(module, datamodule=stories)

    Args:
        repo_id: `user/name` or `organisation/name`; a bare name is the user's own.
        weights: `"best"`, by the trainer's `ModelCheckpoint`, if that watches a metric; or `"last"`.
        **options: what else `Publication` has.

    Attributes:
        pushed: where it is now; None until then, and in all processes but the first.

    Raises:
        ValueError, PushFailed: as `check_publication`, before the training begins, and as `push_folder`.
    """

    def __init__(self, repo_id: str, *, weights: str = "best", **options: Any) -> None:
        if weights not in ("best", "last"):
            raise ValueError(f"weights must be 'best' or 'last', not {weights!r}")
        self.publication = Publication(repo_id, **options)
        self.weights = weights
        self.pushed: Pushed | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds out whether anything can be pushed before there is anything."""
        if not isinstance(pl_module, SentenceOrderingModule):
            raise ValueError(
                f"PushToHubCallback pushes a SentenceOrderingModule, and this is a {type(pl_module).__name__}"
            )
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            check_publication(self.publication)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pushes, from one process; after a `fast_dev_run` there is nothing worth it."""
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        assert isinstance(pl_module, SentenceOrderingModule)
        metrics = {name.removeprefix("val_"): value.item() for name, value in trainer.callback_metrics.items()}
        model, tokenizer = pl_module.model, pl_module.tokenizer
        kept = trainer.checkpoint_callback
        if self.weights == "best" and isinstance(kept, ModelCheckpoint) and kept.monitor and kept.best_model_path:
            # The other metrics of that moment are not kept anywhere.
            metrics = {kept.monitor.removeprefix("val_"): float(kept.best_model_score or 0)}
            model, tokenizer = model_of_checkpoint(kept.best_model_path)
        self.pushed = push_model(model, tokenizer, self.publication, framework="PyTorch Lightning", metrics=metrics)
