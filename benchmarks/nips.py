r"""Texts of varying length: trained on NIPS abstracts alone, on ROCStories alone, and on both; judged on abstracts.

    python -m benchmarks.nips --nips FOLDER --config RECIPE.yaml --encoder NAME \
        --data SRC... --validation_data SRC... --output_dir FOLDER_OF_THE_RUNS --results FILE.json \
        [--nips_epochs N] [--both_epochs N] [--nips_batch_tokens N] [--sources nips stories both] [--seeds 42] \
        [--num_permutations 1 8]

From the project's root. FOLDER has `train.jsonl` and `validation.jsonl`, one `{"sentences": [...]}` a line, of which
texts of 2 to 15 sentences are taken, as in the literature; `--data` and `--validation_data` are the stories. Each
model is judged on the abstracts' validation texts and on the stories'. The best epoch is chosen by texts of the kind
that the model was trained on, so that the one trained on stories alone knows no abstract; of both, by abstracts. The
abstracts are few: `--nips_epochs` is for the model that has nothing else, `--both_epochs` for the one that has both.
They are long, too: 32 of the longest in a batch take 18 GB with the small encoder, hence `--nips_batch_tokens` for the
models that see them. The rest is as in `benchmarks.objectives`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.flags import BenchmarkParser, add_permutations_flag
from benchmarks.measuring import run_script
from benchmarks.objectives import measure_rows
from dataset_builder import UserError
from dataset_builder.file_writing import write_text
from training.recipe.recipe import Recipe, RecipeError

SHORTEST, LONGEST = 2, 15  # sentences
SOURCES = ("nips", "stories", "both")
SPLITS = ("train", "validation")


def main() -> None:
    """Runs what has not been run yet."""
    parser = BenchmarkParser("nips", __doc__ or "")
    add_permutations_flag(parser)
    parser.add_argument("--nips", type=Path, required=True, metavar="FOLDER", help="the abstracts")
    parser.add_argument("--nips_epochs", type=float, help="epochs where abstracts are all there is")
    parser.add_argument("--both_epochs", type=float, help="epochs where there are stories and abstracts")
    parser.add_argument("--nips_batch_tokens", type=int, help="largest batch where abstracts are trained on, in tokens")
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=SOURCES, help="what to train on")
    recipe, options = parser.parse_benchmark(decided_elsewhere={"seed": "--seeds"})
    if not recipe.validation_data:
        raise RecipeError("--validation_data is missing: stories to judge on beside the abstracts")
    abstracts = {split: filtered(options["nips"] / f"{split}.jsonl", Path(recipe.output_dir)) for split in SPLITS}
    epochs = {"nips": options["nips_epochs"], "both": options["both_epochs"]}
    tokens = options["nips_batch_tokens"]
    rows = {source: recipe_for(source, recipe, abstracts, epochs, tokens) for source in options["sources"]}
    judged_on = {"nips": [str(abstracts["validation"])], "stories": recipe.validation_data}
    measure_rows(rows, recipe, options, own_fields=(), judged_on=judged_on)


def filtered(path: Path, folder: Path) -> Path:
    """A file with the texts that have 2 to 15 sentences.

    Raises:
        UserError: if a line is not a JSON object with sentences.
    """
    kept = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            sentences = json.loads(line)["sentences"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path.name}, line {number}: no JSON object with sentences") from None
        if SHORTEST <= len(sentences) <= LONGEST:
            kept.append(json.dumps({"storyid": f"nips-{path.stem}-{number}", "sentences": sentences}))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"nips_{path.name}", "".join(f"{line}\n" for line in kept))
    return folder / f"nips_{path.name}"


def recipe_for(
    source: str, recipe: Recipe, abstracts: dict[str, Path], epochs: dict[str, float | None], batch_tokens: int | None
) -> Recipe:
    """The recipe with the data of one of `SOURCES`."""
    if source == "stories":
        return recipe
    training, validation = str(abstracts["train"]), [str(abstracts["validation"])]
    data = [training] if source == "nips" else [*recipe.data, training]
    own = {"num_train_epochs": epochs.get(source), "per_device_train_batch_tokens": batch_tokens}
    fields: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
    return replace(recipe, data=data, validation_data=validation, **fields)


if __name__ == "__main__":
    sys.exit(run_script(main))
