"""`sentence-ordering search`."""

from __future__ import annotations

import argparse
from pathlib import Path

from training.recipe.recipe import Recipe, RecipeError
from training.system.console import PROGRAM, say, show
from training.system.processes import Processes

from .parsing import ArgumentParser, add_recipe_flags, recipe_of, set_help

SUMMARY = "Try recipes with Optuna and keep the best."
_NOT_SEARCHED = ("resume_from_checkpoint", "overwrite_output_dir")


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's flags and the text of its help."""
    parser.usage = (
        f"{PROGRAM} search --encoder ENCODER --data SRC [SRC ...] --space FILE --output_dir DIR [--n_trials N] "
        "[--FIELD VALUE ...]"
    )
    add_recipe_flags(parser)
    parser.add_argument(
        "--space",
        required=True,
        metavar="FILE",
        help="search space as YAML: recipe fields, each with a list of choices, or with low and high and log or step",
    )
    parser.add_number("--n_trials", "number of trials, pruned ones included", default=20, at_least=1)
    set_help(
        parser,
        "Try recipes with Optuna: first the recipe of the flags, then others from the search space. A trial that is "
        "worse than the median at an evaluation is pruned. The same command continues a search that was interrupted.",
        examples=["search --encoder cnn --data sample --space space.yaml --n_trials 20 --output_dir search"],
        writes="DIR: recipe.yaml, the best recipe by --metric_for_best_model on the validation stories, for train "
        "--config; trials.png; trials.log, from which the search continues; and the log and results of each trial in "
        "trials/.",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    if Processes.from_environment().world_size > 1:
        raise RecipeError("search trains in one process: start it without torchrun")
    recipe = recipe_of(options)
    for field in _NOT_SEARCHED:
        if getattr(recipe, field) != getattr(Recipe(), field):
            raise RecipeError(f"--{field} is not a flag of search: the same command continues the search")
    recipe.check()
    if recipe.eval_strategy == "no":
        raise RecipeError("search prunes trials at evaluations: use --eval_strategy epoch or steps, got no")
    try:
        from training.runs.search import read_space, search
    except ImportError:
        raise RecipeError("search needs Optuna: pip install 'sentence-ordering[search]'") from None
    from training.system.run_lock import only_run_in

    space = read_space(options.space)
    with only_run_in("--output_dir", Path(recipe.output_dir)):
        best, trials = search(recipe, space, n_trials=options.n_trials, report=say)
    changed = {name: getattr(best, name) for name in space}
    show(f"best of {len(trials)} trials: {changed}")
    say(f"next: {PROGRAM} train --config {Path(recipe.output_dir) / 'recipe.yaml'} --output_dir my-model")
    return 0
