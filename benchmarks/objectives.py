r"""Every objective, and the guide's own recipe, on the same encoder and data, with one and with several arrangements.

    python -m benchmarks.objectives --config RECIPE.yaml --encoder NAME --data SRC... --validation_data SRC... \
        --output_dir FOLDER_OF_THE_RUNS --results FILE.json \
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from tqdm import tqdm

from benchmarks.flags import BenchmarkParser, add_permutations_flag
from benchmarks.measuring import ResultsFile, judge_arrangements, load_splits, run_script
from dataset_builder import load_all
from modeling_sentence_ordering.objectives_sentence_ordering import OBJECTIVES
from training.recipe.recipe import Recipe, shareable
from training.runs.comparison import ComparedEncoder, ComparedRun, plan_runs, run_comparison

GUIDE, GUIDE_LEARNING_RATE = "guide", 3e-5
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
_LOGGED = ("step", "epoch", "eval_loss", "eval_accuracy", "eval_kendalls_tau", "eval_pmr")
_WITHOUT_PART = ("logging_steps", "eval_on_start", "save_total_limit")


def main() -> None:
    """Runs what has not been run yet."""
    parser = BenchmarkParser("objectives", __doc__ or "")
    add_permutations_flag(parser)
    parser.add_argument("--objectives", nargs="*", default=sorted(OBJECTIVES), choices=sorted(OBJECTIVES))
    parser.add_argument("--guide", nargs="*", type=float, metavar="LEARNING_RATE", help="the guide's own recipe, too")
    recipe, options = parser.parse_benchmark(decided_elsewhere={"objective": "--objectives", "seed": "--seeds"})
    rows = {name: dataclasses.replace(recipe, objective=name) for name in options["objectives"]}
    if options["guide"] is not None:
        rows |= {f"{GUIDE}, {rate:g}": guide_recipe(recipe, rate) for rate in options["guide"] or [GUIDE_LEARNING_RATE]}
    results = measure_rows(rows, recipe, options)
    results.conclude({"not_better_than_the_guide": not_better_than_the_guide(results.runs())})


def guide_recipe(recipe: Recipe, learning_rate: float) -> Recipe:
    """The guide's recipe on this one's encoder and data."""
    shared = {name: getattr(recipe, name) for name in _SHARED_WITH_THE_GUIDE}
    return Recipe(**{**shared, **_GUIDE, "output_dir": recipe.output_dir, "learning_rate": learning_rate})


def not_better_than_the_guide(runs: Mapping[str, Any]) -> dict[str, list[str]]:
    """For each number of arrangements the objectives whose tau, the mean over seeds, is not above the guide's best."""
    taus: dict[str, dict[str, float]] = {}
    for name, by_seed in runs.items():
        for run in by_seed.values():
            for count, metrics in run["judged"]["validation"].items():
                taus.setdefault(count, {}).setdefault(name, 0.0)
                taus[count][name] += metrics["kendalls_tau"] / len(by_seed)
    found = {}
    for count, of in taus.items():
        guides = [tau for name, tau in of.items() if name.startswith(GUIDE)]
        if guides:
            found[count] = [name for name, tau in of.items() if not name.startswith(GUIDE) and tau <= max(guides)]
    return found


def measure_rows(
    rows: Mapping[str, Recipe],
    recipe: Recipe,
    options: Mapping[str, Any],
    *,
    own_fields: Sequence[str] = ("objective",),
    judged_on: Mapping[str, list[str]] | None = None,
) -> ResultsFile:
    """Trains and judges each row with each seed, and adds its figures to the results.

    Args:
        rows: the recipe of each row, by its name.
        recipe: what they have in common, or nearly.
        options: `results`, `seeds` and `num_permutations`.
        own_fields: what rows of one results file may differ in.
        judged_on: sources of stories to judge on, by a name for them; the recipe's validation stories if not given.

    Returns:
        The results, with what else they hold.

    Raises:
        ValueError: if the results, or the folder of the runs, are by another recipe.
        TrainingFailed: if a run fails; those that are done are kept.
    """
    common = {name: value for name, value in _shown(recipe).items() if name not in (*own_fields, "seed")}
    results = ResultsFile(options["results"], {"recipe": common, "num_permutations": options["num_permutations"]})
    planned = [(name, run) for name, row in rows.items() for run in _plan(name, row, options["seeds"])]
    left = [(name, run) for name, run in planned if not results.has(name, run.seed, _differs(run.recipe, common))]
    print(f"{len(planned) - len(left)} of {len(planned)} runs are done", file=sys.stderr)
    stories = {name: load_all(sources) for name, sources in (judged_on or {}).items()}
    if not stories:
        stories = {"validation": load_splits(recipe)["validation"]}
    progress = tqdm(left, unit="run", disable=None)
    for name, run in progress:
        progress.set_description(f"{name}, seed {run.seed}")
        figures = measure(run, stories, options["num_permutations"], common)
        results.add(name, run.seed, figures)
        for kind, judged in figures["judged"].items():
            tau = ", ".join(f"{metrics['kendalls_tau']:.4f} ({count})" for count, metrics in judged.items())
            tqdm.write(f"{name}, seed {run.seed}: {figures['training']['seconds']:.0f} s, {kind} tau {tau}")
    return results


def _shown(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe has a part in the figures."""
    return {name: value for name, value in shareable(recipe).items() if name not in _WITHOUT_PART}


def _differs(recipe: Recipe, common: Mapping[str, Any]) -> dict[str, Any]:
    own = _shown(recipe)
    return {name: own.get(name) for name in [*own, *common] if own.get(name) != common.get(name)}


def _plan(name: str, recipe: Recipe, seeds: Sequence[int]) -> list[ComparedRun]:
    folder = Path(recipe.output_dir) / name.replace(", ", "-")
    return plan_runs(recipe, [recipe.framework], [ComparedEncoder(recipe.encoder, {})], seeds, folder)


def measure(
    run: ComparedRun, stories: Mapping[str, Dataset], num_permutations: Sequence[int], common: Mapping[str, Any]
) -> dict[str, Any]:
    """Trains, unless its folder holds the trained model, and judges.

    Returns:
        `recipe` (what differs from the `common` one), `training` (stories, seconds, peak memory), `epochs` (the
        validation metrics as they came), `judged` (for each kind of stories, see `judge_arrangements`) and
        `environment`.
    """
    folder = Path(run.recipe.output_dir)
    outcome = run_comparison([run], folder.parents[1], lambda _: None)[0]
    return {
        "recipe": _differs(run.recipe, common),
        "training": {**outcome["results"]["training"], "peak_memory_mb": outcome["peak_memory_mb"]},
        "epochs": [
            {key.removeprefix("eval_"): value for key, value in row.items() if key in _LOGGED}
            for row in outcome["log"]
            if "eval_kendalls_tau" in row
        ],
        "judged": {
            kind: judge_arrangements(folder, some, run.recipe, num_permutations) for kind, some in stories.items()
        },
        "environment": outcome["results"]["environment"],
    }


if __name__ == "__main__":
    sys.exit(run_script(main))
