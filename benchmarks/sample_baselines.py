"""Models trained on the bundled sample, for the card of that data set: the guide's recipe, the quick start's, the best.

    python -m benchmarks.sample_baselines --results FILE.json --output_dir FOLDER [--rows guide quick small]

Each row is one run of `sentence-ordering train` in a process of its own, and its figures on the test split are added to
the results file. A model that is already in the folder is not trained again, and an interrupted run is resumed. Without
rows (`--rows`), only the expected figures of a random order are computed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from math import factorial
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.measuring import run_script
from dataset_builder import load_stories
from training.models.model_folder import read_json, write_json

COMMAND = [
    *(sys.executable, "-m", "training.commands.command_line", "train", "--encoder", "minilm", "--data", "sample"),
    "--resume_from_checkpoint",  # the last one in the folder; a new run if there is none
]
ROWS: Mapping[str, Sequence[str]] = {
    "guide": ["--recipe", "guide"],
    "quick": ["--recipe", "small", "--num_train_epochs", "3"],
    "small": ["--recipe", "small"],
}


def main() -> None:
    """Trains what is not in the folder yet, and writes the figures after each run."""
    options = _parser().parse_args()
    results = read_json(options.results) if options.results.is_file() else {"rows": {}}
    results["random_order"] = random_order([len(story) for story in load_stories("sample")["test"]["sentences"]])
    write_json(options.results, results)
    for row in options.rows:
        folder = options.output_dir / row
        if not (folder / "README.md").is_file():  # written last
            subprocess.run([*COMMAND, *ROWS[row], "--output_dir", str(folder)], check=True)
        results["rows"][row] = figures(folder, ROWS[row])
        write_json(options.results, results)


def random_order(lengths: Sequence[int]) -> dict[str, float]:
    """Expected figures of a random order of stories of these numbers of sentences."""
    return {
        "stories": len(lengths),
        "kendalls_tau": 0.0,
        "accuracy": mean(1 / length for length in lengths),
        "pmr": mean(1 / factorial(length) for length in lengths),
    }


def figures(folder: Path, flags: Sequence[str]) -> dict[str, Any]:
    """Figures of a trained model on the test split, with intervals."""
    values = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    metrics = ("kendalls_tau", "accuracy", "pmr")
    return {
        "flags": " ".join(flags),
        "test": {name: values["test"][name] for name in (*metrics, "stories", "sentences")},
        "intervals": values["analysis"]["intervals"],
        "training": values["training"],
        "environment": values["environment"],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sample_baselines",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--results", type=Path, required=True, metavar="FILE", help="JSON file of the figures")
    parser.add_argument("--output_dir", type=Path, required=True, metavar="DIR", help="folder of the trained models")
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS), help="what to train (all)")
    return parser


if __name__ == "__main__":
    sys.exit(run_script(main))
