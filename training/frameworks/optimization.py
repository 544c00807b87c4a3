"""Optimizer, learning-rate schedule and the seed of each step, from the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, get_scheduler
from transformers.training_args import OptimizerNames

from training.recipe.recipe import Recipe, RecipeError
from training.system.hub_errors import first_line


def parameter_groups(
    model: nn.Module, weight_decay: float, head_learning_rate: float | None = None
) -> list[dict[str, Any]]:
    """Parameter groups of the optimizer.

    Weight decay is not applied to biases and norms, which are the parameters with one dimension.

    Args:
        model: the model; its encoder's parameters have `encoder` in their names.
        weight_decay: weight decay of the other parameters.
        head_learning_rate: learning rate of the parameters outside of the encoder; the optimizer's if None.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    parts: list[tuple[list[nn.Parameter], dict[str, float]]] = [([p for _, p in named], {})]
    if head_learning_rate is not None:
        encoder = [p for name, p in named if "encoder" in name.split(".")]
        others = [p for name, p in named if "encoder" not in name.split(".")]
        parts = [(encoder, {}), (others, {"lr": head_learning_rate})]
    return [
        {"params": chosen, "weight_decay": decay, **options}
        for parameters, options in parts
        for chosen, decay in (
            ([p for p in parameters if _dimensions(p) >= 2], weight_decay),
            ([p for p in parameters if _dimensions(p) < 2], 0.0),
        )
    ]


def remember_dimensions(model: nn.Module) -> None:
    """Stores the number of dimensions of each weight for `parameter_groups`, before the model is sharded."""
    for parameter in model.parameters():
        parameter.whole_dimensions = parameter.ndim  # type: ignore[attr-defined]


def _dimensions(parameter: nn.Parameter) -> int:
    return getattr(parameter, "whole_dimensions", parameter.ndim)


def build_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer; `recipe` must be resolved.

    AdamW (Loshchilov and Hutter, 2019, arXiv:1711.05101) is torch's, with the recipe's betas and epsilon. Other
    optimizers are built as by `Trainer`, with its defaults.

    Raises:
        RecipeError: if the optimizer needs a package that is not installed, or cannot train this model.
    """
    assert recipe.learning_rate is not None
    groups = parameter_groups(model, recipe.weight_decay, recipe.head_learning_rate)
    if recipe.optim in ("adamw_torch_fused", "adamw_torch"):
        return AdamW(
            groups,
            lr=recipe.learning_rate,
            betas=(recipe.adam_beta1, recipe.adam_beta2),
            eps=recipe.adam_epsilon,
            fused=recipe.optim == "adamw_torch_fused",
        )
    try:
        # Not `TrainingArguments`, which resets the accelerate state of a running Trainer.
        arguments: Any = SimpleNamespace(
            optim=OptimizerNames(recipe.optim),
            optim_args=None,
            optim_target_modules=None,
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            adam_beta1=recipe.adam_beta1,
            adam_beta2=recipe.adam_beta2,
            adam_epsilon=recipe.adam_epsilon,
        )
        optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
        if "params" in options or "optimizer_dict" in options:
            raise ValueError("optimizers that choose their own parameters are not supported")
        optimizer: Optimizer = optimizer_class(groups, **options)
    except (ImportError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise RecipeError(f"--optim {recipe.optim}: {first_line(error)}") from None
    return optimizer


def build_schedule(optimizer: Optimizer, recipe: Recipe, total_steps: int) -> LambdaLR:
    """The recipe's learning-rate schedule over `total_steps` optimizer steps. Call its `step` after each of them."""
    schedule: LambdaLR = get_scheduler(
        recipe.lr_scheduler_type,
        optimizer,
        num_warmup_steps=recipe.warmup(total_steps),
        num_training_steps=total_steps,
    )
    return schedule


def seed_step(recipe: Recipe, step: int, rank: int = 0) -> None:
    """Seeds dropout for an optimizer step. Call it before the first forward pass of the step.

    Dropout then does not depend on random numbers drawn earlier, for example by an evaluation, or before the run was
    resumed.

    Args:
        recipe: the recipe.
        step: number of optimizer steps before this one.
        rank: rank of the process. Dropout differs between processes.
    """
    torch.manual_seed(((recipe.seed + rank) * 1_000_003 + step) % 2**63)


def has_idle_weights(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> bool:
    """Whether some weights get no gradient, such as an unused pooler; `DistributedDataParallel` has to know.

    Args:
        model: the model; its gradients are set to None.
        batch: a training batch, on any device.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.train()
    model(**{name: value.to(device) for name, value in batch.items()}).loss.backward()
    idle = any(weight.requires_grad and weight.grad is None for weight in model.parameters())
    model.zero_grad()
    model.train(was_training)
    return idle
