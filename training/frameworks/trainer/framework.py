"""Training by a recipe with the transformers `Trainer`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import EvalLoopOutput

from dataset_builder import UserError
from modeling_sentence_ordering import save_tokenizer
from training.data.stories import EvaluationStories, StoryLoader, training_loader
from training.evaluation.metrics import GREATER_IS_BETTER, LOGGED_METRICS
from training.frameworks.loss_watch import LossWatch
from training.frameworks.optimization import build_optimizer, build_schedule, has_idle_weights, seed_step
from training.frameworks.run import TrainingRun
from training.models.model_folder import load_weights
from training.models.sharded_model import gathered_weights, layer_classes, whole_model
from training.recipe.recipe import Recipe

REFUSED: Mapping[str, str] = {}
PROCESSES = True


class OneDeviceArguments(TrainingArguments):
    """Arguments for one GPU in each process.

    By default `Trainer` uses `DataParallel` on several GPUs, which splits batches and changes the loss.
    """

    @property
    def n_gpu(self) -> int:
        """Number of GPUs of this process."""
        return min(1, int(super().n_gpu))


class StoryTrainer(Trainer):
    """`Trainer` with the recipe's batches, optimizer, schedule and evaluation."""

    def __init__(self, run: TrainingRun, loader: StoryLoader, losses: LossWatch, **options: Any) -> None:
        self._run = run
        self._loader = loader
        self._losses = losses
        super().__init__(model=run.model, **options)

    def get_train_dataloader(self) -> StoryLoader:
        """The recipe's batches."""
        return self._loader

    def create_optimizer(self, model: Any = None) -> Optimizer:
        """The recipe's optimizer."""
        self.optimizer = build_optimizer(self.model, self._run.recipe)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """The recipe's schedule."""
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)  # wrapped by accelerate
        self.lr_scheduler = build_schedule(optimizer, self._run.recipe, num_training_steps)
        return self.lr_scheduler

    def get_eval_dataloader(self, eval_dataset: Any = None) -> None:
        """Nothing: see `evaluation_loop`."""

    def evaluation_loop(
        self, dataloader: Any, description: str, *_: Any, metric_key_prefix: str = "eval", **__: Any
    ) -> EvalLoopOutput:
        """Evaluates the validation stories."""
        metrics = self._run.validate()
        values = {f"{metric_key_prefix}_{name}": metrics[name] for name in LOGGED_METRICS}
        return EvalLoopOutput(None, None, values, int(metrics["stories"]))

    def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """One batch, forward and backward."""
        loss: torch.Tensor = super().training_step(*arguments, **options)
        self._losses.note(self.state.global_step + 1, loss)
        return loss


class RecipeCallback(TrainerCallback):
    """Seeds each step, checks the losses, and writes the log and the tokenizer."""

    def __init__(self, run: TrainingRun, losses: LossWatch) -> None:
        self._run = run
        self._losses = losses

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Before the first forward pass of a step."""
        seed_step(self._run.recipe, state.global_step, self._run.processes.rank)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After a step; logs at the end of the run too."""
        if state.global_step >= state.max_steps:
            control.should_log = True
        self._check(state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After the last step of an epoch."""
        self._check(state, control)

    def _check(self, state: Any, control: Any) -> None:
        if control.should_save:
            self._losses.check_before_saving(state.global_step)
        elif control.should_log or control.should_evaluate:
            self._losses.check()
        else:
            self._losses.check_if_many()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Logs training losses and evaluations, but not the summary at the end."""
        if "loss" in logs:
            self._run.log.training(
                state.global_step, state.epoch, logs["loss"], logs["learning_rate"], logs.get("grad_norm")
            )
        elif "eval_loss" in logs:
            metrics = {key.removeprefix("eval_"): value for key, value in logs.items()}
            self._run.log.evaluation(state.global_step, state.epoch, metrics)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Adds the tokenizer to a checkpoint, so that it can be loaded as a model."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if folder.is_dir() and self._run.processes.is_first:
            save_tokenizer(self._run.tokenizer, folder)


def training_arguments(recipe: Recipe, run: TrainingRun, total_steps: int) -> TrainingArguments:
    """The recipe as `TrainingArguments`."""
    keeps_best = run.evaluates and recipe.load_best_model_at_end
    on_cpu = run.model.device.type == "cpu" and not torch.cuda.is_available()
    return OneDeviceArguments(
        output_dir=str(run.checkpoints),
        per_device_train_batch_size=recipe.per_device_train_batch_size,
        per_device_eval_batch_size=recipe.per_device_eval_batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        max_steps=total_steps,
        max_grad_norm=recipe.max_grad_norm,
        seed=recipe.seed,
        bf16=bool(recipe.bf16),
        fp16=bool(recipe.fp16),
        fsdp=recipe.fsdp or None,
        fsdp_config=fully_sharded(run) if recipe.fsdp else None,
        use_cpu=on_cpu,
        ddp_backend="gloo" if on_cpu and run.processes.world_size > 1 else None,
        eval_strategy=recipe.eval_strategy if run.evaluates else "no",
        eval_steps=recipe.eval_steps,
        save_strategy=recipe.eval_strategy,
        save_steps=recipe.eval_steps,
        # Trainer's limit includes the best checkpoint; with a limit of 1 it would keep the best instead of the last.
        save_total_limit=recipe.save_total_limit + run.evaluates,
        load_best_model_at_end=keeps_best,
        restore_callback_states_from_checkpoint=True,
        metric_for_best_model=recipe.metric_for_best_model,
        greater_is_better=GREATER_IS_BETTER[recipe.metric_for_best_model],
        logging_steps=recipe.logging_steps,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),
    )


def fully_sharded(run: TrainingRun) -> dict[str, Any]:
    """FSDP that shards everything and saves full weights."""
    return {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "transformer_layer_cls_to_wrap": sorted(layer.__name__ for layer in layer_classes(run.model)),
        "reshard_after_forward": True,
        "state_dict_type": "FULL_STATE_DICT",
    }


def train(run: TrainingRun, resume_from: Path | None = None) -> None:
    """Trains the run's model with the transformers Trainer.

    Args:
        run: what to train.
        resume_from: a checkpoint folder of an earlier run of the same recipe, or None.
    """
    recipe = run.recipe
    loader = training_loader(run.training, recipe, run.processes)
    total_steps = recipe.total_steps(loader.batch_sampler.steps_per_epoch)  # type: ignore[union-attr]
    if resume_from is not None and _is_finished(resume_from, total_steps):
        _load_weights(run, resume_from)
        return
    losses = LossWatch(run)
    callbacks: list[TrainerCallback] = [RecipeCallback(run, losses)]
    if recipe.early_stopping_patience and run.validation is not None:
        callbacks.append(EarlyStoppingCallback(recipe.early_stopping_patience))

    arguments = training_arguments(recipe, run, total_steps)
    if run.processes.world_size > 1 and not recipe.fsdp:
        arguments.ddp_find_unused_parameters = has_idle_weights(run.model, next(iter(loader)))
    trainer = StoryTrainer(
        run,
        loader,
        losses,
        args=arguments,
        train_dataset=loader.dataset,
        eval_dataset=None if run.validation is None else EvaluationStories(run.validation),
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    if resume_from is not None:  # Trainer discards the batches before the checkpoint
        loader.will_resume_at(checkpoint_step(resume_from))
    trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    # Remove accelerate's autocast from `forward`, or the model would be evaluated in bfloat16.
    trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    if recipe.fsdp:
        run.model = whole_model(run.model, gathered_weights(run.model))
    # Set by Trainer for models that generate text.
    run.model.config.__dict__.pop("use_cache", None)


def _is_finished(checkpoint: Path, total_steps: int) -> bool:
    """Whether a checkpoint is the end of a run of `total_steps`: Trainer would train for another step."""
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    return state.max_steps >= total_steps and bool(
        state.stateful_callbacks.get("TrainerControl", {}).get("args", {}).get("should_training_stop")
    )


def _load_weights(run: TrainingRun, checkpoint: Path) -> None:
    """Loads the final weights of a finished run: those of its best checkpoint or of its last."""
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    best = checkpoint.with_name(f"checkpoint-{state.best_global_step}")
    folder = best if run.recipe.load_best_model_at_end and best.is_dir() else checkpoint
    load_weights(run.model, folder)


def checkpoint_step(checkpoint: Path) -> int:
    """Optimizer steps before a checkpoint.

    Raises:
        UserError: if it is not a complete checkpoint of Trainer.
    """
    state = checkpoint / "trainer_state.json"
    try:
        return int(TrainerState.load_from_json(str(state)).global_step)
    except (OSError, ValueError, TypeError):
        raise UserError(f"{checkpoint} is not a complete checkpoint of the transformers Trainer") from None
