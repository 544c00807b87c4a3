"""Checks of a recipe: each field by itself, by what `Recipe` states of it, and fields that depend on each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .settings import RecipeError, settings_of

if TYPE_CHECKING:
    from .recipe import Recipe


def check_recipe(recipe: Recipe) -> None:
    """Refuses a recipe that cannot be run.

    Raises:
        RecipeError: naming the field, its value and what is allowed.
    """
    for name in ("encoder", "data", "output_dir"):
        value = getattr(recipe, name)
        if not (value.strip() if isinstance(value, str) else value):
            raise RecipeError(f"--{name} is missing")
    recipe_type: Any = type(recipe)  # mypy: instances of a dataclass cannot be hashed, but their type can
    for name, setting in settings_of(recipe_type).items():
        setting.parse(getattr(recipe, name))
    _check_combinations(recipe)
    recipe.encoder_fields()


def _check_combinations(recipe: Recipe) -> None:
    """Checks fields that depend on each other."""
    for name in ("freeze_encoder", "fsdp", "torch_compile"):
        if recipe.lora is not None and getattr(recipe, name):
            raise RecipeError(f"--lora and --{name} cannot be combined: leave one of them out")
    if recipe.max_train_samples is not None and recipe.streaming:
        raise RecipeError("--max_train_samples cannot be combined with --streaming: use --max_steps")
    if recipe.passage_sentences is not None and recipe.passage_sentences[0] > recipe.passage_sentences[1]:
        raise RecipeError(
            "--passage_sentences MIN must not be above MAX, got " + " ".join(map(str, recipe.passage_sentences))
        )
    if recipe.fp16 and recipe.bf16:
        raise RecipeError("--fp16 and --bf16 cannot be combined: leave one of them out")
    if recipe.head == "pairs" and recipe.objective == "mse":
        raise RecipeError("--head pairs cannot be trained with --objective mse: use --objective pairwise")
    if recipe.consistency and recipe.objective != "pairwise":
        raise RecipeError(f"--consistency {recipe.consistency} needs --objective pairwise, got {recipe.objective}")
    if recipe.fsdp and recipe.is_scratch:
        raise RecipeError(f"--fsdp shards a pretrained encoder, and {recipe.encoder!r} is not one: leave it out")
    if recipe.max_steps == 0 or recipe.max_steps < -1:
        raise RecipeError(
            f"--max_steps must be at least 1, or -1 to train for --num_train_epochs, got {recipe.max_steps}"
        )
    if recipe.max_steps < 0 and recipe.num_train_epochs == 0:
        raise RecipeError("--num_train_epochs must be above 0, got 0.0")
    if recipe.per_device_train_batch_tokens is not None and recipe.train_sampling_strategy != "group_by_length":
        raise RecipeError(
            "--per_device_train_batch_tokens needs --train_sampling_strategy group_by_length, got "
            f"{recipe.train_sampling_strategy}"
        )
    if recipe.per_device_train_batch_tokens is not None and recipe.streaming:
        raise RecipeError(
            "--per_device_train_batch_tokens needs the lengths of all stories, which are not known with --streaming: "
            "use --per_device_train_batch_size"
        )
    if recipe.early_stopping_patience and recipe.eval_strategy == "no":
        raise RecipeError("--early_stopping_patience needs evaluations: use --eval_strategy epoch or steps, got no")
