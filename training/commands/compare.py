"""`sentence-ordering compare`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from training.recipe.recipe import FRAMEWORKS, Recipe, RecipeError
from training.system.console import PROGRAM, say, show
from training.system.output_names import check_apart
from training.system.processes import Processes

from .parsing import ArgumentParser, add_recipe_flags, recipe_of, set_help

if TYPE_CHECKING:
    from training.runs.comparison import ComparedRun

SUMMARY = "Compare frameworks, encoders and seeds in one table."

_DECIDED_BY_COMPARE = {
    "encoder": "use --encoders",
    "framework": "use --frameworks",
    "seed": "use --seeds",
    "resume_from_checkpoint": "the same command resumes",
    "overwrite_output_dir": "choose another folder",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's flags and the text of its help."""
    parser.usage = (
        f"{PROGRAM} compare --encoders NAME [NAME ...] --data SRC [SRC ...] --output_dir DIR [--FIELD VALUE ...]"
    )
    add_recipe_flags(parser)
    parser.add_argument(
        "--frameworks", nargs="+", default=list(FRAMEWORKS), choices=list(FRAMEWORKS), help="frameworks to compare"
    )
    parser.add_argument(
        "--encoders",
        nargs="+",
        required=True,
        metavar="NAME[,FIELD=VALUE]",
        help="encoders, each with recipe fields for it alone, as in 'minilm,learning_rate=1e-4'",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[42], help="seeds; one run for each")
    set_help(
        parser,
        "Train one recipe in several frameworks, with several encoders and seeds, and make the guide's table of the "
        "results. Each run is a process. The same command resumes a comparison that was interrupted.",
        examples=[
            "compare --encoders cnn --data sample --output_dir comparison --max_steps 100",
            "compare --frameworks trainer poutyne --encoders minilm,learning_rate=1e-4 rnn --seeds 1 2 3 --data sample "
            "--output_dir both",
        ],
        writes="The table to standard output, and DIR: comparison.md, comparison.csv, comparison.json, "
        "loss_curves.png, and in runs/ the trained model of each run with its output.",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    processes = Processes.from_environment()
    if processes.world_size > 1:
        raise RecipeError(
            f"compare starts a process for each run: start it once, without torchrun, not in {processes.world_size} "
            "processes"
        )
    recipe = recipe_of(options)
    for field, instead in _DECIDED_BY_COMPARE.items():
        if getattr(recipe, field) != getattr(Recipe(), field):
            raise RecipeError(f"--{field} is not a flag of compare: {instead}")
    if not recipe.data or not recipe.output_dir.strip():
        raise RecipeError(f"--{'data' if not recipe.data else 'output_dir'} is missing")
    from training.runs.comparison import ComparedEncoder, plan_runs
    from training.system.run_lock import only_run_in

    encoders = [ComparedEncoder.parse(text) for text in options.encoders]
    check_apart(
        "--output_dir",
        recipe.output_dir,
        data=recipe.sources,
        models=[each.name for each in encoders if not Recipe(encoder=each.name).is_scratch],
    )
    output_dir = Path(recipe.output_dir)
    recipe = dataclasses.replace(recipe, data=[_absolute(source) for source in recipe.data])
    runs = plan_runs(recipe, options.frameworks, encoders, options.seeds, output_dir)
    with only_run_in("--output_dir", output_dir):
        return _compare(recipe, runs, output_dir)


def _compare(recipe: Recipe, runs: list[ComparedRun], output_dir: Path) -> int:
    from training.data.recipe_stories import open_stories
    from training.runs.comparison import RUNS, check_encoders, run_comparison
    from training.runs.comparison_tables import write_tables

    open_stories(recipe)  # reports data that cannot be read before anything is written
    check_encoders(runs)
    outcomes = run_comparison(runs, output_dir, lambda line: say(line, sys.stderr))
    show(write_tables(outcomes, output_dir))
    say(f"\nwrote {output_dir}: comparison.md, comparison.csv, comparison.json and loss_curves.png")
    say(f"next: {PROGRAM} order --model {runs[0].recipe.output_dir} YOUR_STORIES.txt, or push a model of {RUNS}/")
    return 0


def _absolute(source: str) -> str:
    # Not `resolve`: the target of a link may have a name without a suffix.
    return os.path.abspath(source) if os.path.exists(source) else source
