"""Time and memory of train, evaluate and order against the number of stories: straight lines, and flat ones.

    python -m benchmarks.scaling --results FILE.json --plot FILE.svg [--stories 1000 10000 100000]

The commands themselves, each a process of its own from its start to its end, on made-up stories and with the `rnn`
encoder, made small so that everything else shows, too: reading, tokenizing, batches, writing. Nothing is cached from
one to the next. `train` makes one epoch and evaluates at its end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.measuring import environment_here, run_script
from training.models.model_folder import write_json

COMMAND = [sys.executable, "-m", "training.commands.command_line"]
SMALL = '{"embedding_dim": 64, "hidden_size": 64, "num_layers": 1}'
TASKS = ("train", "evaluate", "order")
_WORDS = re.findall(
    r"\w+",
    """
    the a his her old little garden dog letter train river morning friend school bread window rain city teacher ball
    went saw found lost made took gave opened closed wanted began came home again slowly then after before because
""",
)


def main() -> None:
    """Measures, writes what was found after each run, and plots it in the end."""
    options = _parser().parse_args()
    results: dict[str, Any] = {"environment": environment_here(), "runs": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = [(count, task) for count in sorted(options.stories) for task in TASKS]
        for count, task in tqdm(runs, desc="Measuring", unit=" runs", disable=None):
            path = folder / f"{count}.jsonl"
            if not path.exists():
                path.write_text("".join(_lines(count)), encoding="utf-8")
            results["runs"].append({"task": task, "stories": count, **_measured(task, folder, path)})
            results["lines"] = lines(results["runs"])
            write_json(options.results, results)
    if options.plot is not None:
        plot(results["runs"], options.plot)


def _lines(count: int, seed: int = 0) -> Iterator[str]:
    """Stories of five sentences, with the lengths of those in ROCStories."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        sentences = [
            f"{' '.join(generator.choice(_WORDS, int(generator.integers(6, 12))))} {number}." for _ in range(5)
        ]
        yield json.dumps({"storyid": str(number), "sentences": sentences}) + "\n"


def _measured(task: str, folder: Path, data: Path) -> dict[str, float]:
    """Seconds and the most memory of one command."""
    output = folder / f"{task}-{data.stem}"
    model = folder / f"train-{data.stem}"
    flags = {
        "train": ["--encoder", "rnn", "--encoder_config", SMALL, "--data", data, "--output_dir", output,
                  "--num_train_epochs", "1", "--per_device_train_batch_size", "32", "--eval_on_start", "false"],
        "evaluate": ["--model", model, "--data", data, "--split", "all"],
        "order": ["--model", model, data, "--output", output.with_suffix(".jsonl")],
    }[task]  # fmt: skip
    cache = folder / f"cache of {task} {data.stem}"
    process = subprocess.Popen(
        [*COMMAND, task, *map(str, flags), "--quiet"],
        env={**os.environ, "HF_DATASETS_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    began = time.perf_counter()
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{task} of {data.stem} stories failed: {(said.strip().splitlines() or [''])[-1]}")
    return {"seconds": time.perf_counter() - began, "peak_memory_mib": usage.ru_maxrss / 1024}


def lines(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For each task the seconds that a story costs beside the start, from the two largest numbers of stories."""
    found = {}
    for task in TASKS:
        some = sorted((run for run in runs if run["task"] == task), key=lambda run: int(run["stories"]))[-2:]
        if len(some) < 2:
            continue
        slope = (some[1]["seconds"] - some[0]["seconds"]) / (some[1]["stories"] - some[0]["stories"])
        found[task] = {
            "seconds_for_a_story": slope,
            "seconds_to_start": some[0]["seconds"] - slope * some[0]["stories"],
            "hours_for_a_million": slope * 1e6 / 3600,
        }
    return found


def plot(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Seconds and memory against stories, on logarithmic axes, where a straight line stays one."""
    import matplotlib

    matplotlib.use("svg" if path.suffix == ".svg" else "agg")
    matplotlib.rcParams["svg.hashsalt"] = "scaling"
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for task, marker in zip(TASKS, "osD", strict=True):
        some = sorted((run for run in runs if run["task"] == task), key=lambda run: int(run["stories"]))
        counts = [run["stories"] for run in some]
        left.plot(counts, [run["seconds"] for run in some], marker=marker, label=task)
        right.plot(counts, [run["peak_memory_mib"] for run in some], marker=marker, label=task)
    for axes, title in ((left, "seconds"), (right, "peak memory, MiB")):
        axes.set(xscale="log", yscale="log", xlabel="stories", title=title)
        axes.grid(alpha=0.3, which="both")
    right.set_ylim(100, 10_000)
    left.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--results", type=Path, required=True, metavar="FILE", help="JSON file that figures go to")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="picture, .svg or .png")
    parser.add_argument("--stories", type=int, nargs="+", default=[1_000, 10_000, 100_000], metavar="N")
    return parser


if __name__ == "__main__":
    raise SystemExit(run_script(main))
