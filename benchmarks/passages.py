r"""Long texts and a short encoder: trained on passages, or on texts that are cut at the encoder's limit.

    python -m benchmarks.passages --encoder NAME --max_input_tokens 128 --data SRC... --passage_sentences MIN MAX \
        --max_steps N --output_dir FOLDER_OF_THE_RUNS --results FILE.json [--seeds 42] [--test_size 0.4]

From the project's root. Both models are trained for the same number of steps with the same recipe. A step has equally
many inputs up to the encoder's limit. Each model is judged on the texts that are held out: on fixed passages of them,
and on whole texts, which are ordered in windows. The last weights are judged, because a few long texts are too few to
choose a checkpoint by.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import concatenate_datasets

from benchmarks.flags import BenchmarkParser
from benchmarks.measuring import ResultsFile, run_script
from modeling_sentence_ordering import StoryTokenizer
from training.data.recipe_stories import fixed_passages, open_stories
from training.data.stories import TokenizedStories
from training.evaluation.predictions import evaluate
from training.models.trained_model import load_trained_model
from training.recipe.recipe import Recipe, RecipeError, shareable
from training.runs.run_recipe import run_recipe

JUDGED = ("kendalls_tau", "accuracy", "pmr", "stories", "sentences")


def main() -> None:
    """Runs what has not been run yet, and prints a line for each model."""
    parser = BenchmarkParser("passages", __doc__ or "")
    recipe, options = parser.parse_benchmark(decided_elsewhere={"seed": "--seeds"})
    sizes = recipe.passage_sentences
    if sizes is None or recipe.max_steps < 1:
        raise RecipeError("this benchmark needs --passage_sentences MIN MAX and --max_steps")
    recipe = replace(
        recipe, eval_strategy="no", eval_on_start=False, load_best_model_at_end=False, overwrite_output_dir=True
    )
    common = {name: value for name, value in shareable(recipe).items() if name not in ("seed", "data")}
    results = ResultsFile(options["results"], {"recipe": common})
    for seed in options["seeds"]:
        for row, own_sizes in (("cut", None), ("passages", sizes)):
            if not results.has(row, seed):
                folder = Path(recipe.output_dir) / f"{row}-{seed}"
                own = replace(recipe, seed=seed, passage_sentences=own_sizes, output_dir=str(folder))
                trained = run_recipe(own)["training"]
                judged = judge(own, sizes)
                results.add(row, seed, {"steps": recipe.max_steps, "seconds": trained["seconds"], **judged})
            print(f"{row}, seed {seed}: {_line(results.runs()[row][str(seed)])}", flush=True)


def judge(recipe: Recipe, sizes: list[int]) -> dict[str, dict[str, float | int]]:
    """The model of a run on the held-out texts: on their passages of so many sentences, and on whole texts."""
    model, tokenizer = load_trained_model(recipe.output_dir)
    splits = open_stories(recipe).splits
    held_out = concatenate_datasets([splits[name] for name in ("validation", "test") if name in splits])
    texts = TokenizedStories(held_out, StoryTokenizer(tokenizer, model.config), recipe.data_seed)
    found = {}
    for name, stories in (("passages", fixed_passages(texts, sizes)), ("whole_texts", texts)):
        metrics = evaluate(model, stories, batch_size=recipe.per_device_eval_batch_size)
        found[name] = {metric: metrics[metric] for metric in JUDGED}
    return found


def _line(figures: Mapping[str, Any]) -> str:
    judged = (f"tau {figures[name]['kendalls_tau']:.3f} on {figures[name]['stories']} {name.replace('_', ' ')}"
              for name in ("passages", "whole_texts"))  # fmt: skip
    return f"{', '.join(judged)}; {figures['steps']} steps in {figures['seconds']:.0f} s"


if __name__ == "__main__":
    sys.exit(run_script(main))
