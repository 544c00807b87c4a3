"""The flags of benchmarks that train: all of the recipe's, and what each of them has besides."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.commands.train import RecipeParser
from training.recipe.recipe import Recipe, RecipeError


class BenchmarkParser(RecipeParser):
    """The recipe's flags, `--config`, `--results` and `--seeds`.

    Args:
        name: the benchmark's module.
        description: what `--help` begins with.
    """

    def __init__(self, name: str, description: str) -> None:
        super().__init__(name, description)
        self.prog = f"python -m benchmarks.{name}"
        self.formatter_class = RawDescriptionHelpFormatter
        self.add_argument("--results", type=Path, required=True, metavar="FILE", help="JSON file that figures go to")
        self.add_argument("--seeds", nargs="+", type=int, default=[42], help="(default: 42)")

    def parse_benchmark(self, decided_elsewhere: Mapping[str, str]) -> tuple[Recipe, dict[str, Any]]:
        """The recipe, resolved, and the other flags, from the command line.

        Args:
            decided_elsewhere: fields of the recipe that the benchmark decides, and the flag to use instead.

        Raises:
            RecipeError: for a recipe that cannot be run, or a field of it that the benchmark decides.
        """
        recipe, options = self.parse_recipe(sys.argv[1:])
        for field, instead in decided_elsewhere.items():
            if getattr(recipe, field) != getattr(Recipe(), field):
                raise RecipeError(f"--{field} is not for this benchmark: use {instead}")
        if min(options.get("num_permutations", [1])) < 1:
            raise RecipeError("--num_permutations must be whole numbers of at least 1")
        recipe.check()
        return recipe.resolved(), options


def add_permutations_flag(parser: ArgumentParser) -> None:
    """`--num_permutations`, for benchmarks that judge with several."""
    parser.add_argument(
        "--num_permutations",
        nargs="+",
        type=int,
        default=[1, 8],
        metavar="K",
        help="judge with so many arrangements of each story (default: 1 8)",
    )
