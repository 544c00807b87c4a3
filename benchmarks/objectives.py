"""Every objective, and the guide's own recipe, on the same encoder and data, with one and with several arrangements.

    python -m benchmarks.objectives --config RECIPE.yaml --encoder NAME --data SRC... --validation_data SRC... \\
        --output_dir FOLDER_OF_THE_RUNS --results FILE.json \\
        [--objectives mse pairwise ...] [--guide [LEARNING_RATE ...]] [--seeds 42 43 44] [--num_permutations 1 8]

From the project's root. All of the recipe's fields are flags, those of `sentence-ordering train`; objective and seed
come from this script. Each run is a process of its own, and its figures are added to the results file: a run that is
there is not done again, one that was interrupted goes on from its last checkpoint. Judged are the validation stories,
those that the best epoch and the temperature of the probabilities are chosen by; the seconds of training include
the validation after each epoch.

`--guide` is the 2021 guide's recipe as far as it is the same for its three frameworks: mse on the raw index, every
story shuffled once and for all, a constant learning rate (3e-5, or those that are named) without warm-up, gradients
not clipped. Encoder, data, epochs and batches are those of the others.
"""

from __future__ import annotations

import dataclasses
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.measuring import ResultsFile, judge_arrangements, load_splits, run_script
from modeling_sentence_ordering.objectives_sentence_ordering import OBJECTIVES
from training.command_train import RecipeParser
from training.comparison import ComparedEncoder, ComparedRun, plan_runs, run_comparison
from training.recipe import Recipe, RecipeError, shareable

GUIDE_LEARNING_RATE = 3e-5
_GUIDE: dict[str, Any] = {
    "objective": "mse",
    "target_scale": "index",
    "shuffle_sentences": "fixed",
    "lr_scheduler_type": "constant",
    "warmup_steps": 0.0,
    "max_grad_norm": 0.0,
}
# What the guide's recipe has in common with the others; whatever else a recipe says is theirs alone.
_SHARED_WITH_THE_GUIDE = (
    "encoder", "encoder_config", "vocab_size", "data", "validation_data", "test_size", "validation_size", "data_seed",
    "framework", "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps",
    "num_train_epochs", "max_steps", "train_sampling_strategy", "bf16", "gradient_checkpointing",
    "dataloader_num_workers", "eval_strategy", "eval_steps", "eval_on_start", "logging_steps",
    "metric_for_best_model", "load_best_model_at_end", "early_stopping_patience", "save_total_limit",
)  # fmt: skip
# Each run's own, or without any part in its figures.
_NOT_IN_THE_HEAD = ("objective", "seed", "logging_steps", "eval_on_start", "save_total_limit")


def main() -> None:
    """Runs what has not been run yet."""
    recipe, options = benchmark_parser("objectives", __doc__ or "").parse_benchmark()
    rows = {name: dataclasses.replace(recipe, objective=name) for name in options["objectives"]}
    if options["guide"] is not None:
        rows |= {f"guide, {rate:g}": guide_recipe(recipe, rate) for rate in options["guide"] or [GUIDE_LEARNING_RATE]}
    measure_rows(rows, recipe, options)


class BenchmarkParser(RecipeParser):
    """The recipe's flags and those that every benchmark of trained models has."""

    def parse_benchmark(self, arguments: Sequence[str] | None = None) -> tuple[Recipe, dict[str, Any]]:
        """The recipe, resolved, and the other flags.

        Raises:
            ValueError: for a recipe that cannot be run, or a field of it that the benchmark decides.
        """
        recipe, options = self.parse_recipe(sys.argv[1:] if arguments is None else arguments)
        for field, instead in (("objective", "--objectives"), ("seed", "--seeds")):
            if instead in self._option_string_actions and getattr(recipe, field) != getattr(Recipe(), field):
                raise RecipeError(f"--{field} is not for this benchmark: name it with {instead}")
        if min(options["num_permutations"], default=0) < 1:
            raise RecipeError("--num_permutations must be whole numbers of at least 1")
        recipe.check()
        return recipe.resolved(), options


def benchmark_parser(name: str, description: str) -> BenchmarkParser:
    """A parser of a benchmark's flags, `--objectives` and `--guide` included."""
    parser = BenchmarkParser(name, description)
    parser.prog = f"python -m benchmarks.{name}"
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.add_argument("--results", type=Path, required=True, metavar="FILE", help="JSON file that figures go to")
    parser.add_argument("--objectives", nargs="*", default=sorted(OBJECTIVES), choices=sorted(OBJECTIVES))
    parser.add_argument("--guide", nargs="*", type=float, metavar="LEARNING_RATE", help="the guide's own recipe, too")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42])
    parser.add_argument("--num_permutations", nargs="+", type=int, default=[1, 8], metavar="K", help="arrangements")
    return parser


def guide_recipe(recipe: Recipe, learning_rate: float) -> Recipe:
    """The guide's recipe on this one's encoder and data."""
    shared = {name: getattr(recipe, name) for name in _SHARED_WITH_THE_GUIDE}
    return Recipe(**{**shared, **_GUIDE, "output_dir": recipe.output_dir, "learning_rate": learning_rate})


def measure_rows(rows: Mapping[str, Recipe], recipe: Recipe, options: Mapping[str, Any]) -> None:
    """Trains and judges each row with each seed, and adds its figures to the results.

    Raises:
        ValueError: if the results, or the folder of the runs, are by another recipe.
        TrainingFailed: if a run fails; those that are done are kept.
    """
    common = {name: value for name, value in shareable(recipe).items() if name not in _NOT_IN_THE_HEAD}
    results = ResultsFile(options["results"], {"recipe": common, "num_permutations": options["num_permutations"]})
    planned = [(name, run) for name, row in rows.items() for run in _plan(name, row, options["seeds"])]
    left = [(name, run) for name, run in planned if not results.has(name, run.seed)]
    print(f"{len(planned) - len(left)} of {len(planned)} runs are done", file=sys.stderr)
    progress = tqdm(left, unit="run", disable=None)
    for name, run in progress:
        progress.set_description(f"{name}, seed {run.seed}")
        figures = measure(run, options["num_permutations"], common)
        results.add(name, run.seed, figures)
        tau = ", ".join(f"{judged['kendalls_tau']:.4f} ({k})" for k, judged in figures["arrangements"].items())
        tqdm.write(f"{name}, seed {run.seed}: {figures['training']['seconds']:.0f} s, tau {tau}")


def _plan(name: str, recipe: Recipe, seeds: Sequence[int]) -> list[ComparedRun]:
    folder = Path(recipe.output_dir) / name.replace(", ", "-")
    return plan_runs(recipe, [recipe.framework], [ComparedEncoder(recipe.encoder, {})], seeds, folder)


def measure(run: ComparedRun, num_permutations: Sequence[int], common: Mapping[str, Any]) -> dict[str, Any]:
    """Trains, unless its folder holds the trained model, and judges.

    Returns:
        `recipe` (what differs from the `common` one), `training` (stories, seconds, peak memory), `epochs` (the
        validation metrics as they came), `arrangements` (see `judge_arrangements`) and `environment`.
    """
    folder = Path(run.recipe.output_dir)
    outcome = run_comparison([run], folder.parents[1], lambda line: None)[0]
    own = shareable(run.recipe)
    return {
        "recipe": {name: value for name, value in own.items() if common.get(name) != value}
        | {name: None for name in common if name not in own},
        "training": {**outcome["results"]["training"], "peak_memory_mb": outcome["peak_memory_mb"]},
        "epochs": [
            {key.removeprefix("eval_"): value for key, value in row.items() if key.startswith(("eval_", "step", "ep"))}
            for row in outcome["log"]
            if "eval_kendalls_tau" in row
        ],
        "arrangements": judge_arrangements(folder, load_splits(run.recipe)["validation"], run.recipe, num_permutations),
        "environment": outcome["results"]["environment"],
    }


if __name__ == "__main__":
    sys.exit(run_script(main))
