"""`SentenceOrderingModel` as a `LightningModule`: the same loss, metrics, optimizer and seeds as everywhere else."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy, SingleDeviceStrategy
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import Optimizer

from modeling_sentence_ordering import (
    SentenceOrderingModel,
    SentenceOrderingOutput,
    StoryTokenizer,
    in_order,
)
from training.evaluation.metrics import LABEL_PADDING
from training.evaluation.predictions import Predictions, judge
from training.frameworks.optimization import build_optimizer, build_schedule, seed_step
from training.models.encoders import build_model
from training.models.trained_model import load_trained_model
from training.recipe.recipe import Recipe
from training.system.processes import Processes

from .checkpoints import RECORD, model_from_record, model_record, read_checkpoint


class SentenceOrderingModule(LightningModule):
    """A model with its tokenizer, to train with Lightning.

    The keyword arguments are fields of the `Recipe`, and mean what they mean there. The rest of a recipe is the
    Trainer's (`max_steps`, `accumulate_grad_batches`, `gradient_clip_val`, `precision`) or the data module's.

    Args:
        model: the model; put into train mode, since `from_pretrained` leaves it in eval mode and Lightning does not
            change it. None only for `load_from_checkpoint`.
        tokenizer: the model's.
        learning_rate: highest learning rate.
        head_learning_rate: that of the parameters outside of the encoder, the same if None.
        lr_scheduler_type: its course over all steps that the Trainer is going to make.
        warmup_steps: steps of warm-up; below 1 it is a share of all steps.
        optim: `"adamw_torch_fused"` or `"adamw_torch"`.
        weight_decay: weight decay, not of biases and norms.
        adam_beta1, adam_beta2, adam_epsilon: of AdamW.
        seed: decides dropout, together with the step of the optimizer.

    Attributes:
        model: the model.
        tokenizer: its tokenizer.
        story_tokenizer: turns stories into ids.
        gradient_norm: norm of the last step's gradient before clipping, a scalar tensor, or None.
    """

    model: SentenceOrderingModel

    def __init__(
        self,
        model: SentenceOrderingModel | None = None,
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
        self._evaluated: list[_Scores] = []
        if model is not None:
            self._take(model, tokenizer)

    @classmethod
    def around(cls, model: SentenceOrderingModel, tokenizer: Any, recipe: Recipe) -> SentenceOrderingModule:
        """A module that trains a model as a recipe says, which must be resolved."""
        return cls(model, tokenizer, **{name: getattr(recipe, name) for name in recipe_fields()})

    @classmethod
    def from_folder(cls, folder: str, **fields: Any) -> SentenceOrderingModule:
        """A trained model, to go on training: a folder as `train` writes it, or an id on the Hub.

        Raises:
            ValueError: if it is no sentence ordering model.
        """
        return cls(*load_trained_model(folder), **fields)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *arguments: Any, **options: Any) -> Any:
        """As in Lightning, which by default reads a checkpoint from a URL as a pickle that may run code: here not.

        Raises:
            ValueError: if the checkpoint names a function to build the module with, which ours never do.
        """
        if isinstance(checkpoint_path, (str, os.PathLike)) and os.path.isfile(checkpoint_path):
            fields = read_checkpoint(checkpoint_path).get(cls.CHECKPOINT_HYPER_PARAMS_KEY) or {}
            if private := sorted(str(name) for name in fields if str(name).startswith("_")):
                raise ValueError(f"{checkpoint_path} names code to build the module with ({private[0]})")
        return super().load_from_checkpoint(checkpoint_path, *arguments, **{"weights_only": True, **options})

    @classmethod
    def build(
        cls,
        encoder: str,
        *,
        stories: Iterable[list[str]] = (),
        objective: str = "mse",
        target_scale: str = "index",
        encoder_config: str | None = None,
        learning_rate: float | None = None,
        seed: int = 42,
        **fields: Any,
    ) -> SentenceOrderingModule:
        """A new model around an encoder, or a trained model to go on with.

        Args:
            encoder: an encoder as `sentence-ordering train` takes it, or the folder or id of a trained model.
            stories: sentences to train a tokenizer on; read for the `cnn` and `rnn` encoders only.
            objective: training objective; a trained model goes on with it, too.
            target_scale: what `mse` regresses on.
            encoder_config: fields of a `cnn` or `rnn` encoder as JSON.
            learning_rate: if None, 3e-5, and 1e-3 for `cnn` and `rnn`.
            seed: decides the weights that are new, and dropout.
            **fields: further arguments of the module.

        Raises:
            ValueError: if the encoder cannot be used.
        """
        recipe = Recipe(
            encoder=encoder,
            objective=objective,
            target_scale=target_scale,
            encoder_config=encoder_config,
            learning_rate=learning_rate,
            seed=seed,
            bf16=False,
        ).resolved()
        model, tokenizer = build_model(recipe, stories)
        return cls(model, tokenizer, learning_rate=recipe.learning_rate or 0.0, seed=seed, **fields)

    @property
    def recipe(self) -> Recipe:
        """What this module knows of the recipe, the rest at its defaults."""
        return Recipe(**{name: self.hparams[name] for name in recipe_fields()})

    def forward(self, **batch: Tensor) -> SentenceOrderingOutput:
        """The model's output for a batch, see `SentenceOrderingModel.forward`."""
        output: SentenceOrderingOutput = self.model(**batch)
        return output

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """The model's own loss."""
        loss = self.model(**batch).loss
        self.log("loss", loss.detach(), prog_bar=True, batch_size=len(batch["input_ids"]))
        return loss

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seeds dropout before the first forward pass of a step; each process has its own."""
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            seed_step(self.recipe, self.trainer.global_step, self.global_rank)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The recipe's optimizer, and its schedule, which moves on with every step of the optimizer."""
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise ValueError("the learning rate's schedule needs an end: give the Trainer max_steps or max_epochs")
        optimizer = build_optimizer(self.model, self.recipe)
        schedule = build_schedule(optimizer, self.recipe, int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips by the norm of all gradients, and keeps the norm.

        In the order of the model's parameters, not of the optimizer's groups: the norm is a sum, and its last bit
        depends on it. What else Lightning can do is left to Lightning.
        """
        strategy = self.trainer.strategy
        ours = isinstance(strategy, (SingleDeviceStrategy, DDPStrategy, FSDPStrategy))
        if not ours or gradient_clip_algorithm not in (None, "norm"):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            # Of a fused optimizer Lightning leaves that to the step itself, which would be too late.
            scaler.unscale_(optimizer)
        limit = gradient_clip_val or float("inf")
        if isinstance(strategy, FSDPStrategy):  # who has only a part of each gradient
            assert isinstance(strategy.model, FullyShardedDataParallel)
            self.gradient_norm = strategy.model.clip_grad_norm_(limit)
        else:
            self.gradient_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.log("grad_norm", self.gradient_norm)

    def on_validation_epoch_start(self) -> None:
        """Forgets the stories of the last evaluation."""
        self._evaluated = []

    def on_test_epoch_start(self) -> None:
        """Forgets the stories of the last evaluation."""
        self._evaluated = []

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Scores the stories of a batch; they are judged when all are there."""
        self._evaluated.append(self._score(batch))

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Scores the stories of a batch; they are judged when all are there."""
        self._evaluated.append(self._score(batch))

    def on_validation_epoch_end(self) -> None:
        """Logs the metrics as `eval_kendalls_tau` and so on."""
        self._log_metrics("eval")

    def on_test_epoch_end(self) -> None:
        """Logs the metrics as `test_kendalls_tau` and so on."""
        self._log_metrics("test")

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> list[dict[str, list[Any]]]:
        """For each story `order`, the input indices of its sentences in story order, and `scores`, one for each."""
        scores, _, mask = self._score(batch)
        answers = [in_order([""] * int(there.sum()), row.tolist()) for row, there in zip(scores, mask, strict=True)]
        return [{"order": answer["order"], "scores": answer["scores"]} for answer in answers]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what makes the checkpoint complete: `load_from_checkpoint` needs no encoder and no tokenizer."""
        checkpoint[RECORD] = self._record

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Builds the model, unless there is one.

        Raises:
            ValueError: if the checkpoint is of something else, or of another model than this one.
        """
        if RECORD not in checkpoint:
            raise ValueError("the checkpoint is not one of a SentenceOrderingModule")
        if not hasattr(self, "model"):
            self._take(*model_from_record(checkpoint[RECORD]))
        if "state_dict" not in checkpoint:  # its weights are shared out already, and fitted
            return
        there = {name: tensor.shape for name, tensor in checkpoint["state_dict"].items()}
        if there != {name: tensor.shape for name, tensor in self.state_dict().items()}:
            raise ValueError("the checkpoint is of another model: its weights differ in name or shape")

    def _take(self, model: SentenceOrderingModel, tokenizer: Any) -> None:
        self.model = model.train()
        self.tokenizer = tokenizer
        self.story_tokenizer = StoryTokenizer(tokenizer, model.config)

    def _score(self, batch: dict[str, Tensor]) -> _Scores:
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        output = self.model(**inputs)
        return output.logits.cpu().numpy(), batch["labels"].cpu().numpy(), output.sentence_mask.cpu().numpy()

    def _log_metrics(self, prefix: str) -> None:
        batches, self._evaluated = self._of_all_processes(self._evaluated), []
        batches = [batch for batch in batches if (batch[1] != LABEL_PADDING).any()]
        scores, labels, mask = zip(*batches, strict=True)
        everything = Predictions(_joined(scores, 0), _joined(labels, LABEL_PADDING), _joined(mask, False))
        metrics = judge(everything, self.model.config)
        several = self.trainer.world_size > 1  # all have the same values; Lightning asks for a mean of them
        options: dict[str, Any] = {"dtype": torch.float64, "device": self.device if several else "cpu"}
        # In double precision, or two evaluations that differ in the eighth digit would count as equal.
        values = {f"{prefix}_{name}": torch.tensor(value, **options) for name, value in metrics.items()}
        self.log_dict(values, sync_dist=several)

    def _of_all_processes(self, batches: list[_Scores]) -> list[_Scores]:
        """The batches of all processes in the order of the one loader that they were shared out from."""
        shares = Processes(self.trainer.global_rank, self.trainer.world_size).gathered(batches)
        return [batch for turn in zip_longest(*shares) for batch in turn if batch is not None]

    @cached_property
    def _record(self) -> dict[str, Any]:
        return model_record(self.model, self.tokenizer)


# Of the stories of a batch: scores, labels and sentence mask, `(batch, max_sentences)` each, see `Predictions`.
_Scores = tuple[np.ndarray, np.ndarray, np.ndarray]


def recipe_fields() -> list[str]:
    """The fields of the recipe that `SentenceOrderingModule` takes."""
    arguments = inspect.signature(SentenceOrderingModule).parameters.values()
    return [argument.name for argument in arguments if argument.kind is argument.KEYWORD_ONLY]


def _joined(batches: Sequence[np.ndarray], padding: float) -> np.ndarray:
    """Arrays `(batch, max_sentences)` of batches, one below the other."""
    width = max(batch.shape[1] for batch in batches)
    return np.concatenate(
        [np.pad(batch, ((0, 0), (0, width - batch.shape[1])), constant_values=padding) for batch in batches]
    )
