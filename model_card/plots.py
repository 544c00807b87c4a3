"""Plots of training runs and results; the same input gives the same bytes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, TypeGuard

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dataset_builder.file_writing import new_file

Row = Mapping[str, float | None]
"""A row of a training log: ``step`` and the values logged at it."""

# Without pyplot, which keeps every figure alive and selects a backend for the whole process.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#555555", "#a6761d")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
GRID, QUIET, INK = "#e3e6ea", "#6b7280", "#1f2937"
TRAINING: dict[str, Any] = {"linewidth": 0.9, "alpha": 0.65}
# Hollow markers keep identical curves distinguishable.
EVALUATION: dict[str, Any] = {"linewidth": 1.8, "markersize": 6, "markerfacecolor": "none"}
MOST_NUMBERED = 12  # a heatmap with more positions has no numbers in its cells
MOST_GROUPS = 40
LEGEND_CHARACTERS = 88  # width of the legend below the plot


def plot_loss_curves(runs: Mapping[str, Sequence[Row]], path: str | os.PathLike[str]) -> None:
    """Draw the loss (above) and Kendall's tau (below) of one or more training runs against the step, as a PNG.

    The training loss is a thin line, values on the evaluation data have markers. Values that are missing, None or not
    finite are omitted.

    Args:
        runs: For each run's name the rows of its log, in any order. Read are ``step`` (optimizer steps done), ``loss``
            (on the training data), ``eval_loss`` and ``eval_kendalls_tau``.
        path: The file to write; it has a temporary name until it is complete.

    Raises:
        ValueError: ``runs`` is empty.
    """
    if not runs:
        raise ValueError("no runs to plot")
    columns = max(1, min(3, LEGEND_CHARACTERS // (max(map(len, runs)) + 6)))
    legend_rows = math.ceil(len(runs) / columns) if len(runs) > 1 else 0
    figure = Figure(figsize=(8, 6.4 + 0.19 * legend_rows), dpi=150, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    loss, tau = figure.subplots(2, 1, sharex=True)
    for (name, rows), color, marker in zip(runs.items(), cycle(COLORS), cycle(MARKERS), strict=False):
        _draw(loss, _points(rows, "loss"), f"{name}: training", color)
        _draw(loss, _points(rows, "eval_loss"), f"{name}: evaluation", color, marker)
        _draw(tau, _points(rows, "eval_kendalls_tau"), f"{name}: evaluation", color, marker)
    if tau.lines:
        tau.axhline(0, color=QUIET, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    _style(loss, "Loss during training", "Loss")
    _style(tau, "Order on the evaluation data: 0 is random, 1 is perfect", "Kendall's tau")
    tau.set_xlabel("Optimizer step", color=INK)
    _legends(figure, loss, list(runs), columns)
    _save(figure, Path(path))


def plot_position_heatmap(positions: Sequence[Sequence[float]], path: str | os.PathLike[str]) -> None:
    """Draw the distribution of predicted positions for each true position as a PNG, in percent.

    One hue from light to dark, which also works in grey and for the colour-blind; with numbers if they fit.

    Args:
        positions: Square matrix of sentence counts; rows are true positions, columns predicted positions.
        path: The file to write; it has a temporary name until it is complete.

    Raises:
        ValueError: The matrix is empty, or a row has no sentences.
    """
    rows = [[float(count) for count in row] for row in positions]
    if not rows or any(sum(row) <= 0 for row in rows):
        raise ValueError("every true position needs at least one sentence")
    shares = [[count / sum(row) for count in row] for row in rows]
    size = len(shares)
    side = min(7.0, max(3.2, 0.5 * size + 1.1))
    figure = Figure(figsize=(side + 0.9, side), dpi=150, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if size <= MOST_NUMBERED:
        for true, row in enumerate(shares):
            for given, share in enumerate(row):
                ink = "white" if share > 0.55 else INK
                axes.text(given, true, f"{share:.0%}", ha="center", va="center", color=ink, fontsize=9)
        axes.set_xticks(range(size), [str(place + 1) for place in range(size)])
        axes.set_yticks(range(size), [str(place + 1) for place in range(size)])
    else:
        ticks = list(range(0, size, math.ceil(size / MOST_NUMBERED)))
        axes.set_xticks(ticks, [str(place + 1) for place in ticks])
        axes.set_yticks(ticks, [str(place + 1) for place in ticks])
    axes.set_title("Predicted by true position", loc="left", color=INK, fontsize=11, fontweight="bold", pad=10)
    axes.set_xlabel("Predicted position", color=INK)
    axes.set_ylabel("True position", color=INK)
    axes.tick_params(colors=QUIET, labelsize=9, length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format=lambda share, _: f"{share:.0%}")
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=QUIET, labelsize=9, length=0)
    _save(figure, Path(path))


def plot_groups(groups: Mapping[str, Mapping[str, Any]], path: str | os.PathLike[str], *, name: str) -> None:
    """Draw the coherence of groups of texts with confidence intervals as a PNG, the first group at the top.

    Args:
        groups: For each group ``texts`` (their number), ``log_probability``, ``kendalls_tau`` (means over texts) and
            ``intervals``, which may have both. More than `MOST_GROUPS` groups are cut to those of most texts.
        path: The file to write; it has a temporary name until it is complete.
        name: What the groups are, such as ``genre``.

    Raises:
        ValueError: ``groups`` is empty.
    """
    if not groups:
        raise ValueError("no groups to plot")
    largest = set(sorted(groups, key=lambda group: -groups[group]["texts"])[:MOST_GROUPS])
    shown = [group for group in groups if group in largest]
    figure = Figure(figsize=(8, 1.6 + 0.32 * len(shown)), dpi=150, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"log_probability": "Mean log-probability of pairs", "kendalls_tau": "Kendall's tau"}
    for axes, (measure, title) in zip(panels, titles.items(), strict=True):
        for row, group in enumerate(shown):
            interval = groups[group]["intervals"].get(measure)
            if interval:
                axes.plot(interval, [row, row], color=COLORS[0], linewidth=1.8)
            axes.plot([groups[group][measure]], [row], color=COLORS[0], marker="o", markersize=5)
        _style(axes, title, "")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    labels = [f"{_shortened(group)} ({groups[group]['texts']:,})" for group in shown]
    panels[0].set_yticks(range(len(shown)), labels)
    panels[0].set_ylabel(_shortened(name), color=INK)
    panels[0].invert_yaxis()
    _save(figure, Path(path))


def _shortened(text: str) -> str:
    """A name for a plot; `$` would begin a formula."""
    return (text if len(text) <= 30 else f"{text[:29]}…").replace("$", r"\$")


def _points(rows: Sequence[Row], key: str) -> list[tuple[float, float]]:
    """The (step, value) pairs of one curve, by step."""
    pairs = ((row.get("step"), row.get(key)) for row in rows)
    return sorted((step, value) for step, value in pairs if _is_number(step) and _is_number(value))


def _is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _draw(axes: Axes, points: list[tuple[float, float]], label: str, color: str, marker: str | None = None) -> None:
    if not points:
        return
    steps, values = zip(*points, strict=True)
    if marker is not None:
        axes.plot(steps, values, color=color, label=label, marker=marker, **EVALUATION)
    else:
        lone = "." if len(points) == 1 else ""  # a line needs two points
        axes.plot(steps, values, color=color, label=label, marker=lone, **TRAINING)


def _style(axes: Axes, title: str, name: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold", pad=10)
    axes.set_ylabel(name, color=INK)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(colors=QUIET, labelsize=9)
    axes.margins(x=0.03, y=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    if not axes.lines:
        axes.text(0.5, 0.5, "not logged", transform=axes.transAxes, ha="center", va="center", color=QUIET)
        axes.set_yticks([])


def _legends(figure: Figure, above: Axes, names: list[str], columns: int) -> None:
    """Legend of the line styles in the upper plot; with several runs also their names below."""
    style: dict[str, Any] = {"frameon": False, "fontsize": 9, "labelcolor": INK}
    several = len(names) > 1
    color = QUIET if several else COLORS[0]
    kinds = [
        Line2D([], [], color=color, label="training", **TRAINING),
        Line2D([], [], color=color, label="evaluation", marker=MARKERS[0], **EVALUATION),
    ]
    above.legend(handles=kinds, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2, ncols=2, **style)
    if several:
        entries = [
            Line2D([], [], color=color, label=name, marker=marker, **EVALUATION)
            for name, color, marker in zip(names, cycle(COLORS), cycle(MARKERS), strict=False)
        ]
        figure.legend(handles=entries, loc="outside lower center", ncols=columns, **style)


def _save(figure: Figure, path: Path) -> None:
    with new_file(path) as unfinished, open(unfinished, "wb") as file:
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
