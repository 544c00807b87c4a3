"""PyTorch Lightning: the module and the data module that everyone can use, and a callback that follows the recipe."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.plugins import MixedPrecision
from pytorch_lightning.utilities.exceptions import SIGTERMException

from .lightning_checkpoints import WholeCheckpointIO, model_weights, read_checkpoint
from .lightning_data import StoryDataModule
from .lightning_module import SentenceOrderingModule
from .lightning_recipe import RecipeCallback, checkpoint_path, evaluates, named_checkpoints
from .metrics import GREATER_IS_BETTER
from .recipe import Recipe
from .run import TrainingRun
from .stories import training_sampler
from .streaming import StreamedStories

REFUSED: Mapping[str, str] = {}


class CachedAutocast(MixedPrecision):
    """bfloat16 autocast as torch has it by default.

    Lightning switches off that a weight is cast once in a forward pass; for an encoder that uses a weight several
    times (ALBERT) that gives other gradients.
    """

    def __init__(self, device: str) -> None:
        super().__init__("bf16-mixed", device)

    def autocast_context_manager(self) -> torch.autocast:
        """For one forward pass."""
        return torch.autocast(self.device, dtype=torch.bfloat16)


def build_trainer(run: TrainingRun, total_steps: int, callbacks: list[Callback]) -> Trainer:
    """The recipe as Lightning wants it, with none of what Lightning would do by itself."""
    recipe = run.recipe
    on_gpu = torch.cuda.is_available()
    by_steps = recipe.eval_strategy == "steps"
    plugins: list[Any] = [WholeCheckpointIO()]
    if recipe.bf16:
        plugins.append(CachedAutocast("cuda" if on_gpu else "cpu"))
    return Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=1,
        plugins=plugins,
        max_steps=total_steps,
        max_epochs=-1,
        accumulate_grad_batches=recipe.gradient_accumulation_steps,
        gradient_clip_val=recipe.max_grad_norm or None,
        limit_val_batches=1.0 if evaluates(run) else 0,
        check_val_every_n_epoch=None if by_steps else 1,
        val_check_interval=recipe.eval_steps * recipe.gradient_accumulation_steps if by_steps else 1.0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stdout.isatty() and sys.stderr.isatty(),  # Lightning's goes to standard output
        default_root_dir=run.checkpoints,
        callbacks=callbacks,
    )


def train(run: TrainingRun, resume_from: Path | None = None) -> None:
    """Trains the run's model with PyTorch Lightning.

    Args:
        run: what to train.
        resume_from: a `.ckpt` of an earlier run of the same recipe, or None.
    """
    recipe = run.recipe
    total_steps = recipe.total_steps(training_sampler(run.training, recipe).steps_per_epoch)
    streamed = run.training if isinstance(run.training, StreamedStories) else None
    stories = {} if isinstance(run.training, StreamedStories) else {"train": run.training}
    if run.validation is not None:
        stories["validation"] = run.validation
    callback = RecipeCallback(run, total_steps)
    callbacks: list[Callback] = [callback]
    if recipe.early_stopping_patience and evaluates(run):
        callbacks.insert(0, _early_stopping(recipe))  # first, so that what is saved has counted this evaluation
    module = SentenceOrderingModule.around(run.model, run.tokenizer, recipe)
    with quiet_lightning(), let_interrupts_out():
        trainer = build_trainer(run, total_steps, callbacks)
        trainer.fit(
            module,
            datamodule=StoryDataModule.around(stories, recipe, streamed),
            ckpt_path=None if resume_from is None else str(resume_from),
            weights_only=True,
        )
    module.zero_grad()
    if recipe.load_best_model_at_end and callback.best_step is not None:
        _load_best(run, callback.best_step, resume_from)
    if torch.cuda.is_available():
        run.model.cuda()  # Lightning has put it back on the CPU


def last_checkpoint(folder: Path) -> Path | None:
    """The latest whole checkpoint in a folder, or None."""
    steps: dict[int, Path] = {}
    for path in named_checkpoints(folder).values():
        with suppress(ValueError):
            steps[checkpoint_step(path)] = path
    return steps[max(steps)] if steps else None


def checkpoint_step(checkpoint: Path) -> int:
    """Steps of the optimizer that a checkpoint has behind it.

    Raises:
        ValueError: if it is no `.ckpt` that this module wrote.
    """
    return int(read_checkpoint(checkpoint)["global_step"])


@contextmanager
def let_interrupts_out() -> Iterator[None]:
    """Lets an interrupt out as what it is.

    Lightning turns Ctrl-C into an exit with code 1 and ignores it from then on, and SIGTERM into an exit with code 0.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        SystemExit: after SIGTERM, with the code 143 that a shell gives such a process.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from None
        raise


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silences what Lightning tells of itself: which devices there are, what one could buy, how it likes loaders."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _early_stopping(recipe: Recipe) -> EarlyStopping:
    name = recipe.metric_for_best_model
    return EarlyStopping(
        f"eval_{name}",
        patience=recipe.early_stopping_patience,
        mode="max" if GREATER_IS_BETTER[name] else "min",
        check_on_train_epoch_end=False,
    )


def _load_best(run: TrainingRun, step: int, resume_from: Path | None) -> None:
    folders = [run.checkpoints] if resume_from is None else [run.checkpoints, resume_from.parent]
    for folder in folders:
        if checkpoint_path(folder, step).is_file():
            run.model.load_state_dict(model_weights(read_checkpoint(checkpoint_path(folder, step))))
            return
    warnings.warn(f"the best checkpoint, of step {step}, is gone: the last weights are kept instead", stacklevel=2)
