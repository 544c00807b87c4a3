"""`sentence-ordering search`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training.recipe.recipe import Recipe, RecipeError
from training.system.console import PROGRAM, say, show
from training.system.processes import Processes
from training.system.run_lock import only_run_in

from .parsing import complete_help
from .train import RecipeParser

_NOT_SEARCHED = ("resume_from_checkpoint", "overwrite_output_dir")


def command_parser() -> RecipeParser:
    """The parser of the command."""
    parser = RecipeParser(
        "search",
        "Try recipes with Optuna: the recipe of the flags first, then others from the search space. A trial that is "
        "worse than the median at an evaluation is pruned. Started again, the search continues.",
    )
    parser.usage = (
        f"{parser.prog} --encoder ENCODER --data SRC [SRC ...] --space FILE --output_dir DIR [--n_trials N] "
        "[--FIELD VALUE ...]"
    )
    parser.add_argument(
        "--space",
        required=True,
        metavar="FILE",
        help="search space as YAML: recipe fields, each with a list of choices, or with low and high and log or step",
    )
    parser.add_argument("--n_trials", type=int, default=20, help="trials in all, pruned ones included")
    complete_help(
        parser,
        examples=["search --encoder cnn --data sample --space space.yaml --n_trials 20 --output_dir search"],
        writes="DIR: recipe.yaml, the best recipe by --metric_for_best_model on the validation stories, for train "
        "--config; trials.png; trials.log, from which the search continues; and the log and results of each trial in "
        "trials/.",
    )
    return parser


def run(arguments: Sequence[str]) -> int:
    """Runs the command; its exit code."""
    if Processes.from_environment().world_size > 1:
        raise RecipeError("search trains in one process: start it without torchrun")
    recipe, options = command_parser().parse_recipe(arguments)
    for field in _NOT_SEARCHED:
        if getattr(recipe, field) != getattr(Recipe(), field):
            raise RecipeError(f"--{field} is not for search: started again, the search continues by itself")
    if options["n_trials"] < 1:
        raise RecipeError(f"--n_trials must be at least 1, got {options['n_trials']}")
    recipe.check()
    if recipe.eval_strategy == "no":
        raise RecipeError("--eval_strategy no: trials are pruned at evaluations; use epoch or steps")
    try:
        from training.runs.search import read_space, search
    except ImportError:
        raise RecipeError("search needs Optuna: pip install 'sentence-ordering[search]'") from None
    space = read_space(options["space"])
    with only_run_in("--output_dir", Path(recipe.output_dir)):
        best, trials = search(recipe, space, n_trials=options["n_trials"], report=say)
    changed = {name: getattr(best, name) for name in space}
    show(f"best of {len(trials)} trials: {changed}")
    say(f"next: {PROGRAM} train --config {Path(recipe.output_dir) / 'recipe.yaml'} --output_dir my-model")
    return 0
