"""`sentence-ordering compare`."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from modeling_sentence_ordering.configuration_sentence_ordering import is_scratch_encoder
from training.data.recipe_stories import open_stories
from training.recipe.recipe import FRAMEWORKS, Recipe, RecipeError
from training.runs.comparison import RUNS, ComparedEncoder, ComparedRun, check_encoders, plan_runs, run_comparison
from training.runs.comparison_tables import write_tables
from training.system.console import PROGRAM, say, show
from training.system.output_names import check_apart
from training.system.processes import Processes
from training.system.run_lock import only_run_in

from .parsing import complete_help
from .train import RecipeParser

_DECIDED_BY_COMPARE = {
    "encoder": "name them with --encoders",
    "framework": "name them with --frameworks",
    "seed": "name them with --seeds",
    "resume_from_checkpoint": "started again, it goes on by itself",
    "overwrite_output_dir": "choose another folder",
}


def command_parser() -> RecipeParser:
    """What the command takes."""
    parser = RecipeParser(
        "compare",
        "Train by one recipe in several frameworks, on several encoders, with several seeds, and make the guide's "
        "table of it. Each run is a process of its own; started again, it goes on where it stopped.",
    )
    parser.usage = f"{parser.prog} --encoders NAME [NAME ...] --data SRC [SRC ...] --output_dir DIR [--FIELD VALUE ...]"
    parser.add_argument(
        "--frameworks", nargs="+", default=list(FRAMEWORKS), choices=list(FRAMEWORKS), help="which of them"
    )
    parser.add_argument(
        "--encoders",
        nargs="+",
        required=True,
        metavar="NAME[,FIELD=VALUE]",
        help="encoders, each with what is for it alone, as in 'minilm,learning_rate=1e-4'",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[42], help="a run for each")
    complete_help(
        parser,
        examples=[
            "compare --encoders cnn --data sample --output_dir comparison --max_steps 100",
            "compare --frameworks trainer poutyne --encoders minilm,learning_rate=1e-4 rnn --seeds 1 2 3 --data sample "
            "--output_dir both",
        ],
        writes="The table to standard output, and DIR: comparison.md, comparison.csv, comparison.json, "
        "loss_curves.png, and in runs/ the trained model of each run with what it said.",
    )
    return parser


def run(arguments: Sequence[str]) -> int:
    """Runs the command; its exit code."""
    processes = Processes.from_environment()
    if processes.world_size > 1:
        raise RecipeError(
            f"compare starts a process for each of its runs, and {processes.world_size} of it were started: start one "
            "without torchrun"
        )
    parser = command_parser()
    recipe, options = parser.parse_recipe(arguments)
    for field, instead in _DECIDED_BY_COMPARE.items():
        if getattr(recipe, field) != getattr(Recipe(), field):
            raise RecipeError(f"--{field} is not for compare: {instead}")
    if not recipe.data or not recipe.output_dir.strip():
        raise RecipeError(f"--{'data' if not recipe.data else 'output_dir'} is missing")
    encoders = [ComparedEncoder.parse(text) for text in options["encoders"]]
    check_apart(
        "--output_dir",
        recipe.output_dir,
        data=recipe.sources,
        models=[each.name for each in encoders if not is_scratch_encoder(each.name)],
    )
    output_dir = Path(recipe.output_dir)
    recipe = dataclasses.replace(recipe, data=[_absolute(source) for source in recipe.data])
    runs = plan_runs(recipe, options["frameworks"], encoders, options["seeds"], output_dir)
    with only_run_in("--output_dir", output_dir):
        return _compare(recipe, runs, output_dir)


def _compare(recipe: Recipe, runs: list[ComparedRun], output_dir: Path) -> int:
    open_stories(recipe)  # before anything is written, and not by each run for itself: data that cannot be read
    check_encoders(runs)
    outcomes = run_comparison(runs, output_dir, lambda line: say(line, sys.stderr))
    show(write_tables(outcomes, output_dir))
    say(f"\nwrote {output_dir}: comparison.md, comparison.csv, comparison.json and loss_curves.png")
    say(f"next: {PROGRAM} order --model {runs[0].recipe.output_dir} YOUR_STORIES.txt, or push a model of {RUNS}/")
    return 0


def _absolute(source: str) -> str:
    # Not `resolve`: where a link leads, the file may be called something else, without a suffix.
    return os.path.abspath(source) if os.path.exists(source) else source
