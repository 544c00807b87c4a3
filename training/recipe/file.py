"""Recipes as people write them down: fields from YAML or JSON, and from what looks like a value of them."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import types
import typing
from pathlib import Path
from typing import Any

import yaml

from dataset_builder.bounded_yaml import read_yaml

from .recipe import Recipe, RecipeError

RECIPES = Path(__file__).parents[1] / "recipes"
"""Folder of the recipes that the package brings."""


def recipe_names() -> list[str]:
    """Names of the recipes that the package brings."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def named_recipe(name: str) -> dict[str, Any]:
    """Fields of a recipe that the package brings.

    Raises:
        RecipeError: if there is no such recipe.
    """
    if name not in recipe_names():
        raise RecipeError(f"unknown recipe {name!r}; choose from {', '.join(recipe_names())}")
    return read_recipe_file(RECIPES / f"{name}.yaml")


def read_recipe_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Fields of a recipe from a YAML or JSON file.

    Raises:
        RecipeError: if it cannot be read, is not a mapping, or has a field that no recipe has.
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
        raise RecipeError(f"{path} holds no mapping of recipe fields to values")
    known = {spec.name: spec for spec in dataclasses.fields(Recipe)}
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            raise RecipeError(
                f"{path}: a recipe has no field {key!r}" + (f"; did you mean {close[0]!r}?" if close else "")
            )
    return {key: coerced(key, value, path) for key, value in values.items()}


def coerced(key: str, value: Any, path: str | os.PathLike[str]) -> Any:
    """A value of the field's type; YAML reads `3e-5` as text and `1` as an integer where a number is meant."""
    hint = typing.get_type_hints(Recipe)[key]
    alternatives = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kind = alternatives[0]
    if value is False and key == "eval_strategy":  # what YAML makes of an unquoted `no`
        return "no"
    if value is None and type(None) in alternatives:
        return None
    try:
        if kind == list[str] and isinstance(value, (str, list)):
            return [value] if isinstance(value, str) else [str(item) for item in value]
        if kind is float and not isinstance(value, bool):
            return float(value)
        if kind is int and not isinstance(value, bool) and float(value) == int(value):
            return int(value)
        if kind is bool and isinstance(value, bool):
            return value
        if kind is str and isinstance(value, dict):
            return json.dumps(value)
        if kind is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return str(value)
    except (TypeError, ValueError, OverflowError):
        pass
    wanted = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}.get(kind, "a list of texts")
    raise RecipeError(f"{path}: {key} must be {wanted}, not {value!r}")
