"""The documentation's tables of speed, from the results of the speed benchmarks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
TRAINING, INFERENCE, SCALING = (RESULTS / f"{name}.json" for name in ("training_speed", "inference_speed", "scaling"))
EVALUATION = RESULTS / "evaluation_speed.json"
BARE, GUIDE, LONGEST = "bare loop", "guide", "guide, padded to the longest"
LOOPS = {BARE: "a bare loop of torch", "trainer": "Trainer", "lightning": "Lightning", "poutyne": "Poutyne"}
PARTS = ("forward", "loss", "backward", "optimizer", "clipping", "batches", "schedule", "logging", "framework")


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _ratio(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return ""
    median, low, high = (values[name][key] for key in ("median", "min", "max"))
    digits = 2 if median < 10 else 0
    return f"{median:.{digits}f}× [{low:.{digits}f}, {high:.{digits}f}]"


def _machine(values: Mapping[str, Any], rounds: int) -> str:
    environment = values["environment"]
    return (
        f"Medians over {rounds} rounds in which all sides take turns, with the extremes in brackets. "
        f"{environment['hardware']}; torch {environment['torch']}, transformers {environment['transformers']}."
    )


def training_speed() -> str | None:
    """Every framework and the bare loop beside the guide's pipeline; None without results."""
    values = _read(TRAINING)
    if values is None:
        return None
    figures, ratios = values["figures"], values["ratios_of_stories_per_second"]
    rows = []
    for name, found in figures.items():
        loop, _, size = name.partition(", batches of ")
        if name not in (GUIDE, LONGEST) and loop not in LOOPS:
            continue
        shown = f"{LOOPS[loop]}, batches of {size}" if loop in LOOPS else name.replace("guide", "the guide's pipeline")
        rows.append([
            shown,
            f"{found['stories_per_second']['median']:.1f}",
            _ratio(ratios, f"{name} / {GUIDE}"),
            _ratio(ratios, f"{name} / {LONGEST}"),
            _ratio(ratios, f"{name} / {BARE}, batches of {size}"),
            f"{found['peak_memory_mib']['median']:,.0f} MiB",
            f"{found['padding']:.1%}",
        ])  # fmt: skip
    header = ["", "stories a second", "the guide's", "padded to the longest", "the bare loop", "peak memory", "padding"]
    return f"{_table(header, rows)}\n\n{_machine(values, figures[GUIDE]['rounds'])}"


def step_profile() -> str | None:
    """Of each framework the share of a step that each part takes; None without results."""
    values = _read(TRAINING)
    if values is None:
        return None
    figures = {
        name.removeprefix("profile of "): found for name, found in values["figures"].items() if "shares" in found
    }
    rows = [[LOOPS[loop], *(f"{found['shares'][part]:.1%}" for part in PARTS)] for loop, found in figures.items()]
    return _table(["", *PARTS[:-1], "the framework itself"], rows)


def recipe_options() -> str | None:
    """What each option of the recipe does to speed and memory; None without results."""
    values = _read(TRAINING)
    if values is None:
        return None
    figures, ratios = values["figures"], values["ratios_of_stories_per_second"]
    rows = []
    for name, found in figures.items():
        if name.startswith("option "):
            share = found["arithmetic"]["share"]["median"] if "arithmetic" in found else None
            rows.append([
                f"`{name.removeprefix('option ')}`",
                f"{found['stories_per_second']['median']:.1f}",
                _ratio(ratios, f"{name} / option bf16"),
                f"{found['peak_memory_mib']['median']:,.0f} MiB",
                "" if share is None else f"{share:.0%}",
            ])  # fmt: skip
    return _table(["", "stories a second", "the default's", "peak memory", "of the matrix product's rate"], rows)


def inference_speed() -> str | None:
    """Evaluation and ordering beside the guide's way and plain loops; None without results."""
    values = _read(INFERENCE)
    if values is None:
        return None
    figures, ratios = values["figures"], values["ratios_of_speed"]
    rows = []
    for name, found in figures.items():
        kind = name.partition(", ")[0]
        if kind == "start":
            rows.append([name, f"{found['seconds']['median']:.1f} s", "", "", ""])
            continue
        others = ("guide", "plain loop, 1") if kind == "order" else ("guide", "guide, longest")
        rows.append([
            name,
            f"{found['stories_per_second']['median']:,.0f} a second",
            *(_ratio(ratios, f"{name} / {kind}, {other}") for other in others),
            f"{found['peak_memory_mib']['median']:,.0f} MiB",
        ])  # fmt: skip
    header = ["", "stories", "the guide's", "padded to the longest, or a plain loop's", "peak memory"]
    table = _table(header, rows)
    agreement = values.get("agreement")
    told = ""
    if agreement is not None:
        exact, rough = agreement["onnx"], agreement["onnx-int8"]
        told = (
            f" ONNX puts {exact['same_order']} of the {agreement['stories']} stories of "
            f"{agreement.get('sample', 'the sample')} in the same order as torch, its scores differ by "
            f"{exact['largest_difference']:.0e} at most; "
        )
        told += f"int8 {rough['same_order']} of them, by {rough['largest_difference']:.1g}."
    longer = _read(EVALUATION)
    if longer is not None:
        ratio = _ratio(longer["ratios_of_speed"], "evaluate, bf16 / evaluate, guide")
        told += f" With {longer['stories']:,} stories instead of {values['stories']:,}, evaluating in bf16 is {ratio}."
    return f"{table}\n\n{_machine(values, values['rounds'])}{told}"


def scaling() -> str | None:
    """Time and memory against the number of stories; None without results."""
    values = _read(SCALING)
    if values is None:
        return None
    runs = values["runs"]
    counts = sorted({run["stories"] for run in runs})
    rows = []
    for task, line in values["lines"].items():
        by_count = {run["stories"]: run for run in runs if run["task"] == task}
        cells = [
            f"{by_count[count]['seconds']:,.0f} s, {by_count[count]['peak_memory_mib']:,.0f} MiB" for count in counts
        ]
        rows.append([f"`{task}`", *cells, f"{line['hours_for_a_million']:.1f} h"])
    return _table(["", *(f"{count:,} stories" for count in counts), "a million more"], rows)


PARTS_OF_PAGES = {
    "training_speed": training_speed,
    "step_profile": step_profile,
    "recipe_options": recipe_options,
    "inference_speed": inference_speed,
    "scaling": scaling,
}
