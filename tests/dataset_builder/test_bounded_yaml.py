"""YAML that expands to gigabytes is refused."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest
import yaml

from dataset_builder.bounded_yaml import read_yaml
from model_card.renewal import is_edited
from training.recipe.file import read_recipe_file
from training.recipe.recipe import RecipeError

LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
BOMBS = {
    "laughs": LAUGHS + "data: *a39\n",
    "merged": "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40)),
    "repeated": "a: &a " + "x" * 500_000 + "\nb: [" + "*a, " * 50_000 + "]\n",
    "loop": "data: &a [*a]\n",
    "deep": "data: " + "[" * 5000 + "]" * 5000 + "\n",
    "number": "data: 1" + ":59" * 200_000 + "\n",
    "long": "data: " + "x" * 2**21 + "\n",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(BOMBS[name])
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RecipeError, match="recipe.yaml") as error:
        read_recipe_file(path)
    assert len(str(error.value)) < 300 and "\n" not in str(error.value)
    assert is_edited(f"---\n{BOMBS[name]}---\n# Mine\n")
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_usual_anchors_are_read() -> None:
    assert read_yaml("a: &a [1, 2]\nb: *a\nc: {<<: {d: 3}}\n") == {"a": [1, 2], "b": [1, 2], "c": {"d": 3}}
    assert read_yaml("") is None
    with pytest.raises(yaml.YAMLError):
        read_yaml("a: [")
