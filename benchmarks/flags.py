"""The flags of benchmarks that train: those of the recipe, and their own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.commands.parsing import ArgumentParser, add_recipe_flags, recipe_of
from training.recipe.recipe import Recipe, RecipeError
from training.recipe.settings import Limits, Setting


class BenchmarkParser(ArgumentParser):
    """The recipe's flags, `--config`, `--results` and `--seeds`.

    Args:
        name: the benchmark's module.
        description: what `--help` begins with.
    """

    def __init__(self, name: str, description: str) -> None:
        super().__init__(prog=f"python -m benchmarks.{name}", description=description)
        add_recipe_flags(self)
        self.add_argument("--results", type=Path, required=True, metavar="FILE", help="JSON file that figures go to")
        self.add_argument("--seeds", nargs="+", type=int, default=[42], help="seeds")

    def parse_benchmark(self, decided_elsewhere: Mapping[str, str]) -> tuple[Recipe, dict[str, Any]]:
        """The recipe, resolved, and the other flags, from the command line.

        Args:
            decided_elsewhere: fields of the recipe that the benchmark sets, and the flag to use instead.

        Raises:
            RecipeError: for a recipe that cannot be run, or a field that the benchmark sets.
        """
        options = self.parse_args(sys.argv[1:])
        recipe = recipe_of(options)
        for field, instead in decided_elsewhere.items():
            if getattr(recipe, field) != getattr(Recipe(), field):
                raise RecipeError(f"--{field} is not for this benchmark: use {instead}")
        recipe.check()
        return recipe.resolved(), vars(options)


def add_permutations_flag(parser: ArgumentParser) -> None:
    """`--num_permutations`, for benchmarks that judge with several."""
    parser.add_argument(
        "--num_permutations",
        nargs="+",
        type=Setting("num_permutations", int, limits=Limits(at_least=1)).parse_flag,
        default=[1, 8],
        metavar="K",
        help="judge with so many arrangements of each story (default: 1 8)",
    )
