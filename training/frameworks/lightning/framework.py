"""Training by a recipe with PyTorch Lightning."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.plugins import FSDPPrecision, MixedPrecision
from pytorch_lightning.plugins.environments import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy, Strategy
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch.distributed.fsdp import FullStateDictConfig, FullyShardedDataParallel, StateDictType

from training.data.stories import training_loader, training_sampler
from training.data.streaming import StreamedStories
from training.evaluation.metrics import GREATER_IS_BETTER
from training.frameworks.optimization import has_idle_weights, remember_dimensions
from training.frameworks.run import TrainingRun
from training.models.sharded_model import layer_classes, whole_model
from training.recipe.recipe import Recipe

from .checkpoints import WholeCheckpointIO, model_weights, read_checkpoint
from .data import StoryDataModule
from .module import SentenceOrderingModule
from .recipe_callback import RecipeCallback, checkpoint_path

REFUSED: Mapping[str, str] = {}
PROCESSES = True


class CachedAutocast(MixedPrecision):
    """Autocast with the weight cache, torch's default.

    Lightning disables it, which changes the gradients of an encoder that shares weights between layers (ALBERT).
    """

    def autocast_context_manager(self) -> torch.autocast:
        """For one forward pass."""
        return torch.autocast(self.device, dtype=torch.bfloat16 if self.precision == "bf16-mixed" else torch.float16)


class WholeWeights(Callback):
    """Gathers sharded weights before Lightning frees them.

    Attributes:
        weights: full weights on the CPU, named as in `SentenceOrderingModel`.
    """

    def __init__(self) -> None:
        self.weights: dict[str, torch.Tensor] = {}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gathers the weights; a collective call."""
        model = trainer.strategy.model
        assert isinstance(model, FullyShardedDataParallel)
        whole = FullStateDictConfig(offload_to_cpu=True, rank0_only=False)
        with FullyShardedDataParallel.state_dict_type(model, StateDictType.FULL_STATE_DICT, whole):
            self.weights = model_weights({"state_dict": model.state_dict()})


def build_strategy(run: TrainingRun) -> Strategy | str:
    """The strategy for the number of processes."""
    if run.processes.world_size == 1:
        return "auto"
    if run.recipe.fsdp:
        return FSDPStrategy(auto_wrap_policy=layer_classes(run.model), state_dict_type="full")
    batch = next(iter(training_loader(run.training, run.recipe, run.processes)))
    return DDPStrategy(find_unused_parameters=has_idle_weights(run.model, batch))


def build_trainer(run: TrainingRun, total_steps: int, callbacks: list[Callback]) -> Trainer:
    """The `Trainer` for a recipe, without Lightning's own logging and checkpoints."""
    recipe = run.recipe
    on_gpu = torch.cuda.is_available()
    by_steps = recipe.eval_strategy == "steps"
    plugins: list[Any] = [WholeCheckpointIO()]
    mixed: Literal["bf16-mixed", "16-mixed"] | None = (
        "bf16-mixed" if recipe.bf16 else "16-mixed" if recipe.fp16 else None
    )
    if mixed is not None:
        device = "cuda" if on_gpu else "cpu"
        plugins.append(FSDPPrecision(mixed) if recipe.fsdp else CachedAutocast(mixed, device))
    if run.processes.world_size > 1:
        plugins.append(TorchElasticEnvironment())  # not another cluster environment that Lightning may detect
    return Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=run.processes.local_world_size,
        num_nodes=run.processes.world_size // run.processes.local_world_size,
        strategy=build_strategy(run),
        plugins=plugins,
        max_steps=total_steps,
        max_epochs=-1,
        accumulate_grad_batches=recipe.gradient_accumulation_steps,
        gradient_clip_val=recipe.max_grad_norm or None,
        limit_val_batches=1.0 if run.evaluates else 0,
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
    total_steps = recipe.total_steps(training_sampler(run.training, recipe, run.processes).steps_per_epoch)
    streamed = run.training if isinstance(run.training, StreamedStories) else None
    stories = dict(run.splits) if isinstance(run.training, StreamedStories) else {"train": run.training, **run.splits}
    callback = RecipeCallback(run, total_steps)
    callbacks: list[Callback] = [callback]
    if recipe.early_stopping_patience and run.evaluates:
        callbacks.insert(0, _early_stopping(recipe))  # first, so that a checkpoint includes this evaluation
    module = SentenceOrderingModule.from_model(run.model, run.tokenizer, recipe)
    whole = WholeWeights()
    if recipe.fsdp:
        callbacks.append(whole)
        remember_dimensions(run.model)
    with quiet_lightning(), interrupts_raised():
        trainer = build_trainer(run, total_steps, callbacks)
        trainer.fit(
            module,
            datamodule=StoryDataModule.from_stories(stories, recipe, streamed),
            ckpt_path=None if resume_from is None else str(resume_from),
            weights_only=True,
        )
    module.zero_grad()
    if recipe.fsdp:
        run.model = whole_model(run.model, whole.weights)
    if recipe.load_best_model_at_end and callback.best_step is not None:
        _load_best(run, callback.best_step, resume_from)
    if torch.cuda.is_available():
        run.model.cuda()  # Lightning has put it back on the CPU


def checkpoint_step(checkpoint: Path) -> int:
    """The number of optimizer steps at a checkpoint.

    Raises:
        UserError: if it is not a `.ckpt` that this module wrote.
    """
    return int(read_checkpoint(checkpoint)["global_step"])


@contextmanager
def interrupts_raised() -> Iterator[None]:
    """Raises KeyboardInterrupt after Ctrl-C in Lightning, and SystemExit after SIGTERM.

    Lightning exits with code 1 after Ctrl-C and ignores further ones, and with code 0 after SIGTERM.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        SystemExit: after SIGTERM, with code 143 as in a shell.
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
    """Silences Lightning's messages about devices, products and loaders."""
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
        f"val_{name}",
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
    warnings.warn(f"the best checkpoint, of step {step}, is missing: the last weights are kept", stacklevel=2)
