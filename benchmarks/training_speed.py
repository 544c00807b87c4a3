r"""How fast training is: the guide's pipeline, each framework by our recipe, a bare loop of torch, and what options do.

    python -m benchmarks.training_speed --results FILE.json [--encoder minilm] [--data sample] [--rounds 5] \
        [--only SIDE ...] [--steps 40] [--batch_sizes 8 32]

Every side trains in a process of its own; all of them take turns, several times round, and ratios are made within a
round. The first steps of each are not counted. Beside stories a second there is the peak of memory, where the time of a
step goes in each framework, and how near the arithmetic comes to the machine's own matrix product.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.guide_pipeline import BATCH_SIZE
from benchmarks.measuring import environment_here, run_script
from benchmarks.side_by_side import measure_sides, ratios, report, summary
from dataset_builder import UserError
from training.models.model_folder import write_json
from training.recipe.recipe import FRAMEWORKS

BARE = "bare loop"
GUIDE, LONGEST = "guide", "guide, padded to the longest"
# Each alone against the default, by the bare loop.
OPTIONS: dict[str, dict[str, Any]] = {
    "fp32": {"bf16": False},
    "bf16": {"bf16": True},
    "attn_implementation eager": {"attn_implementation": "eager"},
    "attn_implementation sdpa": {"attn_implementation": "sdpa"},
    "fast_dropout false": {"fast_dropout": False},
    "optim adamw_torch": {"optim": "adamw_torch"},
    "torch_compile": {"torch_compile": True},
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "train_sampling_strategy random": {"train_sampling_strategy": "random"},
    "dataloader_num_workers 1": {"dataloader_num_workers": 1},
}


def main() -> None:
    """Measures, and writes what was found after each round."""
    options = _parser().parse_args()
    if options.side is not None:
        from benchmarks.training_sides import measure_side

        report(measure_side(json.loads(options.side)))
        return
    sides = all_sides(options)
    unknown = set(options.only or ()) - sides.keys()
    if unknown:
        raise UserError(f"--only {sorted(unknown)[0]!r}: the sides are {', '.join(sides)}")
    sides = {name: told for name, told in sides.items() if not options.only or name in options.only}

    def keep(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        told = json.loads(json.dumps(sides))
        for side in told.values():  # folders of this machine are nobody's business
            side["recipe"]["data"] = [Path(source).name for source in side["recipe"]["data"]]
        write_json(options.results, {"environment": environment_here(), "sides": told, **conclusions(found)})

    measure_sides("training_speed", sides, options.rounds, keep)


def all_sides(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What each side is told: the guide's, ours in every framework and batch size, and each option by itself."""
    common = {"encoder": options.encoder, "data": options.data}
    few = {"warm": 2, "steps": max(3, options.steps // 10)}
    stretch = {"warm": 4, "steps": options.steps}
    sides: dict[str, dict[str, Any]] = {
        GUIDE: {"padding": "max_length", "recipe": common, **few},
        LONGEST: {"padding": "longest", "recipe": common, **stretch},
    }
    for size in options.batch_sizes:
        recipe = {**common, "per_device_train_batch_size": size}
        for loop in (BARE, *FRAMEWORKS):
            sides[f"{loop}, batches of {size}"] = {"loop": loop, "recipe": recipe, **stretch}
    recipe = {**common, "per_device_train_batch_size": options.batch_sizes[-1]}
    for loop in FRAMEWORKS:
        sides[f"profile of {loop}"] = {"loop": loop, "recipe": recipe, "profile": True, **stretch}
    for name, changed in OPTIONS.items():
        told = {"loop": BARE, "recipe": {**recipe, **changed}, "warm": 4, "steps": options.steps // 2}
        sides[f"option {name}"] = told | ({"arithmetic": True} if "bf16" in changed else {})
    sides["option torch_compile"]["warm"] = options.steps  # it compiles for as long as new shapes come
    return sides


def conclusions(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Figures of each side over the rounds, and the ratios that are asked for."""
    speeds = {name: [run["stories"] / run["seconds"] for run in runs] for name, runs in found.items() if runs}
    figures = {}
    for name, runs in found.items():
        if not runs:
            continue
        figures[name] = {
            "stories_per_second": summary(speeds[name]),
            "tokens_per_second": summary(run["tokens"] / run["seconds"] for run in runs),
            "padding": 1 - runs[0]["tokens"] / runs[0]["padded"],
            "peak_memory_mib": summary(run["peak_memory"] / 2**20 for run in runs),
            "rounds": len(runs),
        }
        if "shares" in runs[0]:
            parts = runs[0]["shares"]
            figures[name]["shares"] = {part: summary(run["shares"][part] for run in runs)["median"] for part in parts}
        if "arithmetic" in runs[0]:
            figures[name]["arithmetic"] = {
                **runs[0]["arithmetic"],
                "share": summary(run["arithmetic"]["share"] for run in runs),
            }
    compared = {}
    for name in speeds:
        others = [GUIDE, LONGEST]
        loop, _, size = name.partition(", batches of ")
        if loop in FRAMEWORKS:
            others.append(f"{BARE}, batches of {size}")
        if name.startswith("option "):
            others = ["option bf16"]
        for other in others:
            if other in speeds and other != name and not name.startswith("profile"):
                compared[f"{name} / {other}"] = ratios(speeds[name], speeds[other])
    return {"figures": figures, "ratios_of_stories_per_second": compared}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help="JSON file that figures go to")
    parser.add_argument("--encoder", default="minilm", help="as for sentence-ordering train (default: minilm)")
    parser.add_argument("--data", nargs="+", default=["sample"], metavar="SRC", help="stories (default: sample)")
    parser.add_argument("--rounds", type=int, default=5, help="times that each side is measured (default: 5)")
    parser.add_argument("--steps", type=int, default=40, help="steps that are counted, a tenth for the guide's")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[BATCH_SIZE, 32], help="(default: 8 32)")
    parser.add_argument("--only", nargs="+", metavar="SIDE", help="these sides alone")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    raise SystemExit(run_script(main))
