"""How fast stories are evaluated and put in order, beside the guide's way and a plain loop of transformers.

    python -m benchmarks.inference_speed --model DIR --results FILE.json [--encoder minilm] [--data sample] [--rounds 5]
        [--stories 400] [--only SIDE ...]

`--model` is a trained model, and `--encoder` what it was made of, for the guide's. It is exported to ONNX in a copy.
Every side is a process of its own; all of them take turns, several times round, and ratios are made within a round.
What each needs to start is not counted, but for the sides named `start`: those are whole processes, from the command to
the answer for one story.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import environment_here, run_script
from benchmarks.side_by_side import measure_sides, ratios, report, summary
from dataset_builder import UserError
from training.models.model_folder import write_json

STORY = ["He took it out of the oven.", "Tom mixed flour and eggs.", "The cake was delicious."]
COMMAND = [sys.executable, "-m", "training.commands.command_line"]
_PLAIN = """
import torch
from transformers import AutoModel, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({model!r}, trust_remote_code=True)
model = AutoModel.from_pretrained({model!r}, trust_remote_code=True)
story = {story!r}
marker = tokenizer.decode(model.config.marker_token_id)
inputs = tokenizer(marker + marker.join(story), add_special_tokens=False, return_tensors="pt")
with torch.no_grad():
    print([story[i] for i in model(**inputs).logits[0].argsort()])
"""
_GUIDE = """
from benchmarks.guide_pipeline import guide_orders, load_guide_model
story = {story!r}
model, tokenizer = load_guide_model({model!r})
print([story[i] for i in guide_orders([story], model.eval(), tokenizer)[0]])
"""
# What is to be compared with what: the first of each pair by the second.
COMPARED = [
    *(
        ("evaluate, " + ours, "evaluate, " + other)
        for ours in ("fp32", "bf16")
        for other in ("guide", "guide, longest")
    ),
    *(
        ("order, " + ours, "order, " + other)
        for ours in ("pipeline", "fp32", "bf16", "onnx", "onnx-int8")
        for other in ("guide", "plain loop, 1", "plain loop, 8")
    ),
    ("order, onnx-int8", "order, fp32"),
    ("order, onnx-int8", "order, bf16"),
    ("order, onnx", "order, fp32"),
]


def main() -> None:
    """Measures, and writes what was found after each round."""
    options = _parser().parse_args()
    if options.side is not None:
        report(_measure(json.loads(options.side)))
        return
    if options.model is None or options.results is None:
        raise UserError("--model and --results are missing")
    with tempfile.TemporaryDirectory() as folder:
        prepared = _prepare(options, Path(folder))
        sides = all_sides(options, prepared)
        sides = {name: told for name, told in sides.items() if not options.only or name in options.only}

        def keep(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
            agreements = found.get("agreement", [])
            figures = {name: runs for name, runs in found.items() if name != "agreement"}
            values = {"environment": environment_here(), "stories": options.stories, **conclusions(figures)}
            values["rounds"] = len(next(iter(found.values())))
            write_json(options.results, {**values, **({"agreement": agreements[-1]} if agreements else {})})

        measure_sides("inference_speed", sides, options.rounds, keep)


def _prepare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The model with its ONNX files, the guide's model, and a story to order."""
    from benchmarks.guide_pipeline import load_guide_model
    from training.models.encoders import resolve_encoder

    shutil.copytree(options.model, folder / "model", ignore=shutil.ignore_patterns("checkpoints", "runs"))
    export = [*COMMAND, "export", "--model", str(folder / "model"), "--quantize", "--quiet"]
    subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
    model, tokenizer = load_guide_model(resolve_encoder(options.encoder))
    model.save_pretrained(folder / "guide")
    tokenizer.save_pretrained(folder / "guide")
    (folder / "story.txt").write_text("\n".join(STORY) + "\n", encoding="utf-8")
    return {"model": str(folder / "model"), "guide_model": str(folder / "guide"), "data": options.data}


def all_sides(options: argparse.Namespace, prepared: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What each side is told."""
    few = {**prepared, "stories": max(16, options.stories // 10)}
    many = {**prepared, "stories": options.stories}
    model, story = prepared["model"], str(Path(prepared["model"]).with_name("story.txt"))
    order = [*COMMAND, "order", "--model", model, story]
    return {
        "evaluate, guide": {"work": "guide_evaluation", "padding": "max_length", **few},
        "evaluate, guide, longest": {"work": "guide_evaluation", "padding": "longest", **many},
        "evaluate, fp32": {"work": "our_evaluation", "bf16": False, **many},
        "evaluate, bf16": {"work": "our_evaluation", "bf16": True, **many},
        "order, guide": {"work": "guide_ordering", **few},
        "order, plain loop, 1": {"work": "plain_loop", "batch_size": 1, **many},
        "order, plain loop, 8": {"work": "plain_loop", "batch_size": 8, **many},
        "order, pipeline": {"work": "pipeline", **many},
        "order, fp32": {"work": "order", **many},
        "order, fp32, batches of 2,048 tokens": {"work": "order", "batch_tokens": 2048, **many},
        "order, bf16": {"work": "order", "bf16": True, **many},
        "order, onnx": {"work": "order", "backend": "onnx", **many},
        "order, onnx-int8": {"work": "order", "backend": "onnx-int8", **many},
        "agreement": {"agreement": model, "data": ["sample"]},
        "start, order": {"command": order},
        "start, order by onnx": {"command": [*order, "--backend", "onnx"]},
        "start, plain loop": {"command": [sys.executable, "-c", _PLAIN.format(model=model, story=STORY)]},
        "start, guide": {"command": [sys.executable, "-c", _GUIDE.format(model=prepared["guide_model"], story=STORY)]},
    }


def _measure(told: Mapping[str, Any]) -> dict[str, Any]:
    if "command" in told:
        began = time.perf_counter()
        subprocess.run(told["command"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return {"seconds": time.perf_counter() - began, "stories": 1}
    from benchmarks.inference_sides import agreement, measure_side

    return agreement(told["agreement"], told["data"]) if "agreement" in told else measure_side(told)


def conclusions(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Figures of each side over the rounds, and the ratios that are asked for."""
    figures: dict[str, Any] = {}
    for name, runs in found.items():
        if not runs:
            continue
        if name.startswith("start, "):
            figures[name] = {"seconds": summary(run["seconds"] for run in runs)}
            continue
        figures[name] = {
            "stories_per_second": summary(run["stories"] / run["seconds"] for run in runs),
            "peak_memory_mib": summary(run["peak_memory"] / 2**20 for run in runs),
        }
    speeds = {name: [run["stories"] / run["seconds"] for run in runs] for name, runs in found.items()}
    pairs = [(one, other) for one, other in COMPARED if speeds.get(one) and speeds.get(other)]
    starts = [name for name in speeds if name.startswith("start, ") and name != "start, order"]
    pairs += [("start, order", other) for other in starts if "start, order" in speeds]
    compared = {f"{one} / {other}": ratios(speeds[one], speeds[other]) for one, other in pairs}
    return {"figures": figures, "ratios_of_speed": compared}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.inference_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", metavar="DIR", help="a trained model")
    parser.add_argument("--results", type=Path, metavar="FILE", help="JSON file that figures go to")
    parser.add_argument("--encoder", default="minilm", help="of the guide's model (default: minilm)")
    parser.add_argument("--data", nargs="+", default=["sample"], metavar="SRC", help="stories (default: sample)")
    parser.add_argument("--rounds", type=int, default=5, help="times that each side is measured (default: 5)")
    parser.add_argument("--stories", type=int, default=400, help="that are counted, a tenth for the guide's")
    parser.add_argument("--only", nargs="+", metavar="SIDE", help="these sides alone")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    raise SystemExit(run_script(main))
