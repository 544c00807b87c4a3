"""Sides that are measured against each other: each in a process of its own, in turns, several times round."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
PREFIX = "measured: "


def measure_sides(
    module: str, sides: Mapping[str, Mapping[str, Any]], rounds: int, so_far: Callable[[dict[str, Any]], None]
) -> dict[str, list[dict[str, Any]]]:
    """What every side measured, in each round.

    Args:
        module: of `benchmarks`; started as `python -m benchmarks.MODULE --side JSON`, it hands its figures to `report`.
        sides: what the process of each is told.
        rounds: times that each is measured.
        so_far: called with the figures after each round, so that what was measured is kept.

    Raises:
        RuntimeError: if a side fails; the message ends with the last line of what it said.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    with tqdm(total=rounds * len(sides), desc="Measuring", unit=" runs", disable=None) as progress:
        for _ in range(rounds):
            for name, told in sides.items():
                command = [sys.executable, "-m", f"benchmarks.{module}", "--side", json.dumps(told)]
                result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
                lines = [line for line in result.stdout.splitlines() if line.startswith(PREFIX)]
                if result.returncode or not lines:
                    last = (result.stderr.strip().splitlines() or ["it said nothing"])[-1]
                    raise RuntimeError(f"{name}: exit code {result.returncode}: {last}")
                found[name].append(json.loads(lines[-1].removeprefix(PREFIX)))
                progress.update()
            so_far(dict(found))
    return found


def report(figures: Mapping[str, Any]) -> None:
    """Hands the figures of this process to the one that started it."""
    print(PREFIX + json.dumps(figures), flush=True)


def peak_memory() -> int:
    """The most memory that this process had at once, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def summary(values: Iterable[float]) -> dict[str, float]:
    """Median and extremes of some rounds."""
    some = sorted(values)
    return {"median": median(some), "min": some[0], "max": some[-1]}


def ratios(some: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """The ratio of two sides, round by round: what slowed the machine down for a while slowed down both."""
    return summary(one / other for one, other in zip(some, others, strict=True))
