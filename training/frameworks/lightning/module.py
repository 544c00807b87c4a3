"""`SentenceOrderingModel` as a `LightningModule`, with the recipe's loss, metrics, optimizer and seeds."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy, SingleDeviceStrategy
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dataset_builder import UserError
from modeling_sentence_ordering import (
    SentenceOrderingModel,
    SentenceOrderingOutput,
    SentenceOrderingPipeline,
    StoryTokenizer,
    in_order,
)
from modeling_sentence_ordering.configuration_sentence_ordering import is_scratch_encoder
from training.evaluation.metrics import LOGGED_METRICS
from training.frameworks.optimization import build_optimizer, build_schedule, seed_step
from training.models.encoders import build_model
from training.recipe.recipe import Recipe
from training.system.processes import Processes

from .checkpoints import RECORD, model_from_record, model_record, read_checkpoint
from .schedules import leave_added_groups, restart
from .scored_stories import ScoredStories


class SentenceOrderingModule(LightningModule):
    """A model with its tokenizer, to train with Lightning.

    The keyword arguments are fields of the `Recipe` with the same meaning. Other fields of a recipe are arguments of
    the `Trainer` (`max_steps`, `accumulate_grad_batches`, `gradient_clip_val`, `precision`) or of the data module.

    It logs `train_loss`, `grad_norm`, and metrics such as `val_kendalls_tau`, `val_loss` and `test_kendalls_tau`.

    Args:
        model: the model; an encoder as for `sentence-ordering train --encoder`; or the folder or id of a trained model.
            It is put into train mode, which Lightning does not do. None only for `load_from_checkpoint`.
        tokenizer: the model's; not needed if `model` is a name.
        learning_rate: peak learning rate.
        head_learning_rate: learning rate of the parameters outside of the encoder; the same if None.
        lr_scheduler_type: learning-rate schedule over all steps of the Trainer. With `max_time` alone the number of
            steps is unknown: use `"constant"`, or `"constant_with_warmup"` with `warmup_steps` of at least 1.
        warmup_steps: warm-up steps; below 1 a fraction of all steps.
        optim: `"adamw_torch_fused"` or `"adamw_torch"`.
        weight_decay: weight decay, except for biases and norms.
        adam_beta1, adam_beta2, adam_epsilon: parameters of AdamW.
        seed: seed of dropout, together with the optimizer step.

    Attributes:
        model: the model.
        tokenizer: its tokenizer.
        story_tokenizer: turns stories into ids.
        gradient_norm: norm of the last step's gradient before clipping, a scalar tensor, or None.
    """

    model: SentenceOrderingModel

    def __init__(
        self,
        model: SentenceOrderingModel | str | None = None,
        tokenizer: Any = None,
        *,
        learning_rate: float = 3e-5,
        head_learning_rate: float | None = None,
        lr_scheduler_type: str = "linear",
        warmup_steps: float = 0.1,
        optim: str = "adamw_torch_fused",
        weight_decay: float = 0.01,
        adam_beta1: float = 0.9,
        adam_beta2: float = 0.999,
        adam_epsilon: float = 1e-8,
        seed: int = 42,
    ) -> None:
        super().__init__()
        fields = {
            "learning_rate": learning_rate,
            "head_learning_rate": head_learning_rate,
            "lr_scheduler_type": lr_scheduler_type,
            "warmup_steps": warmup_steps,
            "optim": optim,
            "weight_decay": weight_decay,
            "adam_beta1": adam_beta1,
            "adam_beta2": adam_beta2,
            "adam_epsilon": adam_epsilon,
            "seed": seed,
        }
        self.save_hyperparameters(fields)
        self.gradient_norm: Tensor | None = None
        self._scored = ScoredStories()
        if isinstance(model, str):
            model, tokenizer = _built(Recipe(encoder=model, seed=seed), ())
        if model is not None:
            self._take(model, tokenizer)

    @classmethod
    def from_model(cls, model: SentenceOrderingModel, tokenizer: Any, recipe: Recipe) -> SentenceOrderingModule:
        """A module that trains a model by a resolved recipe."""
        return cls(model, tokenizer, **{name: getattr(recipe, name) for name in recipe_fields()})

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *arguments: Any, **options: Any) -> Any:
        """As in Lightning, but always with `weights_only`, so that a checkpoint cannot run code.

        Raises:
            UserError: if the checkpoint names a function that builds the module.
        """
        if isinstance(checkpoint_path, (str, os.PathLike)) and os.path.isfile(checkpoint_path):
            fields = read_checkpoint(checkpoint_path).get(cls.CHECKPOINT_HYPER_PARAMS_KEY) or {}
            if private := sorted(str(name) for name in fields if str(name).startswith("_")):
                raise UserError(f"{checkpoint_path} names code to build the module with ({private[0]})")
        return super().load_from_checkpoint(checkpoint_path, *arguments, **{"weights_only": True, **options})

    @classmethod
    def build(
        cls,
        encoder: str,
        *,
        stories: Iterable[list[str]] = (),
        objective: str = "mse",
        target_scale: str = "index",
        head: str | None = None,
        pair_size: int | None = None,
        context_layers: int | None = None,
        encoder_config: str | None = None,
        learning_rate: float | None = None,
        seed: int = 42,
        **fields: Any,
    ) -> SentenceOrderingModule:
        """A new model around an encoder, or a trained model to train further.

        Args:
            encoder: an encoder as for `sentence-ordering train`, or the folder or id of a trained model.
            stories: sentences to train a tokenizer on; read only for the `cnn` and `rnn` encoders.
            objective: training objective, also for a trained model.
            target_scale: target of `mse`.
            head: `"score"` or `"pairs"`; with `pair_size` and `context_layers` see `SentenceOrderingConfig`. None for
                the default, or the value of a trained model.
            pair_size: width of the projections of the pair head.
            context_layers: transformer layers over the sentences' vectors.
            encoder_config: fields of a `cnn` or `rnn` encoder as JSON.
            learning_rate: if None, 3e-5, and 1e-3 for `cnn` and `rnn`.
            seed: seed of the new weights and of dropout.
            **fields: further arguments of the module.

        Raises:
            UserError: if the encoder cannot be used.
        """
        recipe = Recipe(
            encoder=encoder,
            objective=objective,
            target_scale=target_scale,
            head=head,
            pair_size=pair_size,
            context_layers=context_layers,
            encoder_config=encoder_config,
            learning_rate=learning_rate,
            seed=seed,
            bf16=False,
        ).resolved()
        model, tokenizer = _built(recipe, stories)
        return cls(model, tokenizer, learning_rate=recipe.learning_rate or 0.0, seed=seed, **fields)

    @property
    def backbone(self) -> nn.Module:
        """The encoder, under the name that Lightning's `BackboneFinetuning` expects."""
        encoder: nn.Module = self.model.encoder
        return encoder

    @property
    def recipe(self) -> Recipe:
        """The recipe with the fields of this module; the others have their defaults."""
        return Recipe(**{name: self.hparams[name] for name in recipe_fields()})

    def forward(self, **batch: Tensor) -> SentenceOrderingOutput:
        """The model's output for a batch, see `SentenceOrderingModel.forward`."""
        output: SentenceOrderingOutput = self.model(**batch)
        return output

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """The model's own loss."""
        loss = self.model(**batch).loss
        self.log("train_loss", loss.detach(), prog_bar=True, batch_size=len(batch["input_ids"]))
        return loss * self._loss_factor(batch_idx)

    def _loss_factor(self, batch_idx: int) -> float:
        """Factor of the loss: above 1 in a last step of an epoch with fewer batches than are accumulated.

        Lightning divides the loss by `accumulate_grad_batches` there too.
        """
        size = self.trainer.accumulate_grad_batches
        left_over = int(self.trainer.num_training_batches) % size if size > 1 and self._is_counted else 0
        return size / left_over if left_over and batch_idx >= self.trainer.num_training_batches - left_over else 1.0

    @property
    def _is_counted(self) -> bool:
        return self.trainer.num_training_batches != float("inf")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seeds dropout before the first forward pass of a step."""
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            seed_step(self.recipe, self.trainer.global_step, self.global_rank)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The recipe's optimizer and learning-rate schedule.

        Raises:
            UserError: if the schedule needs the number of steps, and the Trainer has none.
        """
        recipe, steps = self.recipe, self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            kind = recipe.lr_scheduler_type
            if kind != "constant" and not (kind == "constant_with_warmup" and recipe.warmup_steps >= 1):
                raise UserError(
                    f"lr_scheduler_type={kind!r} with warmup_steps={recipe.warmup_steps} needs to know the number of "
                    "steps: give the Trainer max_steps or max_epochs, or take 'constant', or 'constant_with_warmup' "
                    "with warmup_steps of at least 1"
                )
            steps = 0
        optimizer = build_optimizer(self.model, recipe)
        schedule = build_schedule(optimizer, recipe, int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Updates the schedule after callbacks have changed the optimizer."""
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, LambdaLR):
                if self.trainer.global_step == 0:
                    restart(config.scheduler, self.hparams["learning_rate"], self.hparams["head_learning_rate"])
                leave_added_groups(config.scheduler)

    def on_train_epoch_start(self) -> None:
        """Excludes parameter groups that a callback has added from the schedule."""
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, LambdaLR):
                leave_added_groups(config.scheduler)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips by the norm of all gradients and keeps the norm.

        The norm is summed in the order of the model's parameters, as in the other frameworks, because the last bit
        depends on it. Other kinds of clipping are left to Lightning.
        """
        strategy = self.trainer.strategy
        ours = isinstance(strategy, (SingleDeviceStrategy, DDPStrategy, FSDPStrategy))
        if not ours or gradient_clip_algorithm not in (None, "norm"):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and optimizer.defaults.get("fused"):
            # Lightning leaves this to the step of a fused optimizer, which is too late.
            scaler.unscale_(optimizer)
        limit = gradient_clip_val or float("inf")
        if isinstance(strategy, FSDPStrategy):  # gradients are sharded
            assert isinstance(strategy.model, FullyShardedDataParallel)
            self.gradient_norm = strategy.model.clip_grad_norm_(limit)
        else:
            self.gradient_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.log("grad_norm", self.gradient_norm)

    def on_validation_epoch_start(self) -> None:
        """Discards the scores of an earlier evaluation."""
        self._scored = ScoredStories()

    def on_test_epoch_start(self) -> None:
        """Discards the scores of an earlier evaluation."""
        self._scored = ScoredStories()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Scores the stories of a batch."""
        self._scored.add(self.model, batch)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Scores the stories of a batch."""
        self._scored.add(self.model, batch)

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics as `val_kendalls_tau` and so on."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Logs the metrics as `test_kendalls_tau` and so on."""
        self._log_metrics("test")

    def predict_step(self, batch: Any, batch_idx: int) -> list[dict[str, Any]]:
        """Orders stories.

        Args:
            batch: `{"sentences": [...]}` or a list of stories, each a list of sentences, as from `StoryDataModule` and
                `DataLoader(stories, collate_fn=list)`; or tensors from a data collator, with or without labels.

        Returns:
            For each story the answer of the pipeline: `sentences` in order, `order` (input indices), `scores`, and
            possibly `confidence` and `truncated`. For tensors, only `order` and `scores`.
        """
        if isinstance(batch, dict) and "input_ids" in batch:
            return self._orders(batch)
        stories = batch["sentences"] if isinstance(batch, dict) else batch
        pipeline = SentenceOrderingPipeline(model=self.model, tokenizer=self.tokenizer, device=self.device)
        ordered: list[dict[str, Any]] = pipeline([list(story) for story in stories])
        return ordered

    def _orders(self, batch: dict[str, Tensor]) -> list[dict[str, Any]]:
        """Order and scores of tokenized stories."""
        output = self.model(**{name: tensor for name, tensor in batch.items() if name != "labels"})
        answers = []
        for index, (scores, count) in enumerate(zip(output.logits, output.sentence_mask.sum(dim=1), strict=True)):
            pairs = None if output.pair_logits is None else output.pair_logits[index][:count, :count].cpu()
            answers.append(in_order([f"{i:9}" for i in range(count)], scores.tolist(), pair_logits=pairs))
        return [{"order": answer["order"], "scores": answer["scores"]} for answer in answers]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the config and the tokenizer, so that `load_from_checkpoint` needs only the file."""
        checkpoint[RECORD] = self._record

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Builds the model if the module has none.

        Raises:
            UserError: if the checkpoint is not of this class, or of a different model.
        """
        if RECORD not in checkpoint:
            raise UserError("the checkpoint is not one of a SentenceOrderingModule")
        if not hasattr(self, "model"):
            self._take(*model_from_record(checkpoint[RECORD]))
        if "state_dict" not in checkpoint:  # sharded weights were loaded before
            return
        shapes = {name: tensor.shape for name, tensor in checkpoint["state_dict"].items()}
        own = {name: tensor.shape for name, tensor in self.state_dict().items()}
        if differ := sorted(name for name in shapes | own if shapes.get(name) != own.get(name)):
            raise UserError(
                f"the checkpoint is of another model: its weights differ in name or shape ({', '.join(differ[:3])})"
            )

    def _take(self, model: SentenceOrderingModel, tokenizer: Any) -> None:
        self.model = model.train()
        self.tokenizer = tokenizer
        self.story_tokenizer = StoryTokenizer(tokenizer, model.config)

    def _log_metrics(self, prefix: str) -> None:
        data: Any = getattr(self.trainer, "datamodule", None)
        split = "test" if prefix == "test" else "validation"
        copies = data.copies(split) if hasattr(data, "copies") else {}  # the user's own data module may lack it
        processes = Processes(self.trainer.global_rank, self.trainer.world_size)
        metrics = self._scored.metrics(self.model.config, processes, copies)
        self._scored = ScoredStories()
        several = self.trainer.world_size > 1  # all processes have the same values; Lightning averages them
        options: dict[str, Any] = {"dtype": torch.float64, "device": self.device if several else "cpu"}
        # In double precision, so that a small improvement counts.
        values = {f"{prefix}_{name}": torch.tensor(metrics[name], **options) for name in LOGGED_METRICS}
        self.log_dict(values, sync_dist=several)

    @cached_property
    def _record(self) -> dict[str, Any]:
        return model_record(self.model, self.tokenizer)


def _built(recipe: Recipe, stories: Iterable[list[str]]) -> tuple[SentenceOrderingModel, Any]:
    if is_scratch_encoder(recipe.encoder) and stories == ():
        raise UserError(
            f"the encoder {recipe.encoder!r} trains its tokenizer on your stories: "
            f"SentenceOrderingModule.build({recipe.encoder!r}, stories=…)"
        )
    return build_model(recipe, stories)


def recipe_fields() -> list[str]:
    """The fields of the recipe that `SentenceOrderingModule` takes."""
    arguments = inspect.signature(SentenceOrderingModule).parameters.values()
    return [argument.name for argument in arguments if argument.kind is argument.KEYWORD_ONLY]
