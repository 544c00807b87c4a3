"""What a recipe may not be: ranges of its fields, and fields that cannot be combined."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import TYPE_CHECKING

from dataset_builder import UserError
from modeling_sentence_ordering.configuration_sentence_ordering import is_scratch_encoder

if TYPE_CHECKING:
    from .recipe import Recipe


class RecipeError(UserError):
    """A recipe that cannot be run; the message is one line for the person who wrote it."""


_INFINITY = float("inf")
_ABOVE_0, _BELOW_1 = math.nextafter(0, 1), math.nextafter(1, 0)
_RANGES: tuple[tuple[str, float, float, str], ...] = (
    ("learning_rate", _ABOVE_0, _INFINITY, "above 0"),
    ("head_learning_rate", _ABOVE_0, _INFINITY, "above 0"),
    ("consistency", 0, _INFINITY, "0 or more"),
    ("per_device_train_batch_size", 1, _INFINITY, "at least 1"),
    ("per_device_train_batch_tokens", 1, _INFINITY, "at least 1"),
    ("per_device_eval_batch_size", 1, _INFINITY, "at least 1"),
    ("gradient_accumulation_steps", 1, _INFINITY, "at least 1"),
    ("num_train_epochs", 0, _INFINITY, "above 0"),
    ("warmup_steps", 0, _INFINITY, "0 or more"),
    ("weight_decay", 0, _INFINITY, "0 or more"),
    ("adam_beta1", 0, _BELOW_1, "at least 0 and below 1"),
    ("adam_beta2", 0, _BELOW_1, "at least 0 and below 1"),
    ("adam_epsilon", 0, _INFINITY, "0 or more"),
    ("max_grad_norm", 0, _INFINITY, "0 or more"),
    ("seed", 0, 2**32 - 1, "between 0 and 4294967295"),
    ("data_seed", 0, 2**32 - 1, "between 0 and 4294967295"),
    ("shuffle_buffer_size", 1, _INFINITY, "at least 1"),
    ("pair_size", 1, _INFINITY, "at least 1"),
    ("context_layers", 0, _INFINITY, "0 or more"),
    ("max_train_samples", 1, _INFINITY, "at least 1"),
    ("max_input_tokens", 8, _INFINITY, "at least 8"),
    ("lora", 1, _INFINITY, "at least 1"),
    ("vocab_size", 64, 10_000_000, "between 64 and 10000000"),
    ("eval_steps", 1, _INFINITY, "at least 1"),
    ("logging_steps", 1, _INFINITY, "at least 1"),
    ("early_stopping_patience", 0, _INFINITY, "0 or more"),
    ("save_total_limit", 1, _INFINITY, "at least 1"),
    ("dataloader_num_workers", 0, _INFINITY, "0 or more"),
    ("test_size", _ABOVE_0, _BELOW_1, "above 0 and below 1"),
    ("validation_size", _ABOVE_0, _BELOW_1, "above 0 and below 1"),
)


def check_recipe(recipe: Recipe) -> None:
    """Refuses a recipe that cannot be run.

    Raises:
        RecipeError: naming the field, its value and what it may be.
    """
    _check_values(recipe)
    _check_combinations(recipe)
    recipe.encoder_fields()


def _check_values(recipe: Recipe) -> None:
    """Checks each field by itself."""
    for name in ("encoder", "data", "output_dir"):
        value = getattr(recipe, name)
        if not (value.strip() if isinstance(value, str) else value):
            raise RecipeError(f"--{name} is missing")
    for name in ("data", "validation_data"):
        for source in getattr(recipe, name) or []:
            if not isinstance(source, (str, os.PathLike)):
                kind = type(source).__name__
                raise RecipeError(f"--{name} takes names of files, folders and data sets on the Hub, not a {kind}")
    for spec in dataclasses.fields(recipe):
        value, choices = getattr(recipe, spec.name), spec.metadata.get("choices")
        if choices and value is not None and value not in choices:
            raise RecipeError(f"--{spec.name} must be one of {', '.join(choices)}, not {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise RecipeError(f"--{spec.name} must be a finite number, not {value}")
    for name, low, high, meaning in _RANGES:
        value = getattr(recipe, name)
        if value is not None and not low <= value <= high:
            raise RecipeError(f"--{name} must be {meaning}, not {value}")


def _check_combinations(recipe: Recipe) -> None:
    """Checks fields that depend on each other."""
    for name in ("freeze_encoder", "fsdp", "torch_compile"):
        if recipe.lora is not None and getattr(recipe, name):
            raise RecipeError(f"--lora and --{name} cannot be combined: leave one of them out")
    if recipe.max_train_samples is not None and recipe.streaming:
        raise RecipeError("--max_train_samples needs stories in tables; with --streaming, use --max_steps")
    if recipe.fp16 and recipe.bf16:
        raise RecipeError("--fp16 and --bf16 are two ways to compute in half precision: take one of them")
    if recipe.head == "pairs" and recipe.objective == "mse":
        raise RecipeError("--head pairs cannot be trained with --objective mse: use --objective pairwise")
    if recipe.consistency and recipe.objective != "pairwise":
        raise RecipeError(f"--consistency {recipe.consistency} needs --objective pairwise, not {recipe.objective}")
    if recipe.fsdp and is_scratch_encoder(recipe.encoder):
        raise RecipeError(f"--fsdp shares out the layers of a pretrained encoder; {recipe.encoder!r} fits on any GPU")
    if recipe.max_steps == 0 or recipe.max_steps < -1:
        raise RecipeError(
            f"--max_steps must be at least 1, or -1 for as many as the epochs have, not {recipe.max_steps}"
        )
    if recipe.max_steps < 0 and recipe.num_train_epochs == 0:
        raise RecipeError("--num_train_epochs must be above 0, not 0.0")
    if recipe.per_device_train_batch_tokens is not None and recipe.train_sampling_strategy != "group_by_length":
        raise RecipeError(
            "--per_device_train_batch_tokens fills batches with stories of similar length: it goes with "
            f"--train_sampling_strategy group_by_length, not {recipe.train_sampling_strategy}"
        )
    if recipe.per_device_train_batch_tokens is not None and recipe.streaming:
        raise RecipeError(
            "--per_device_train_batch_tokens must know the lengths of all stories, which --streaming never does: "
            "use --per_device_train_batch_size"
        )
    if recipe.early_stopping_patience and recipe.eval_strategy == "no":
        raise RecipeError("--early_stopping_patience needs evaluations: --eval_strategy epoch or steps, not no")
