"""Recipes in YAML or JSON files: those of the package, and those of users."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import yaml

from dataset_builder.bounded_yaml import read_yaml

from .recipe import Recipe
from .settings import RecipeError, settings_of, unknown_choice

RECIPES = Path(__file__).parents[1] / "recipes"
"""Folder of the recipes in this package."""


def recipe_names() -> list[str]:
    """Names of the recipes in this package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def named_recipe(name: str) -> dict[str, Any]:
    """Fields of a recipe in this package.

    Raises:
        RecipeError: if the name is unknown.
    """
    if name not in recipe_names():
        raise RecipeError(unknown_choice("recipe", name, recipe_names()))
    return read_recipe_file(RECIPES / f"{name}.yaml")


def read_recipe_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Fields of a recipe from a YAML or JSON file.

    Raises:
        RecipeError: if it cannot be read, is not a mapping, or has an unknown field.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the recipe {path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        values = read_yaml(text)  # JSON is YAML as well
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is neither YAML nor JSON: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path} must be a mapping of recipe fields to values")
    return {key: field_value(key, value, path) for key, value in values.items()}


def field_value(name: object, value: Any, file: str | os.PathLike[str]) -> Any:
    """A value for a field of the recipe, converted and checked.

    Raises:
        RecipeError: if a recipe has no such field, or it cannot have this value; `file` begins the message.
    """
    settings = settings_of(Recipe)
    if name not in settings:
        close = difflib.get_close_matches(str(name), settings, n=1)
        raise RecipeError(f"{file}: unknown field {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    return settings[str(name)].parse(value, file)
