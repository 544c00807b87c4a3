"""The guide's results table from the runs of a comparison: Markdown, CSV, JSON and one picture of all losses."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

from dataset_builder.file_writing import write_text
from model_card.plots import plot_loss_curves
from training.models import model_folder

FRAMEWORK_NAMES = {"trainer": "Trainer", "lightning": "Lightning", "poutyne": "Poutyne"}
# Accuracy and Kendall's tau on the guide's test split (7,373 stories of ROCStories; 42,132 for training).
PUBLISHED: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "distilbert-base-cased": {"trainer": (0.653, 0.753), "lightning": (0.651, 0.748), "poutyne": (0.645, 0.742)},
    "bert-base-cased": {"trainer": (0.699, 0.792), "lightning": (0.696, 0.785), "poutyne": (0.687, 0.776)},
    "roberta-base": {"trainer": (0.786, 0.861), "lightning": (0.776, 0.853), "poutyne": (0.748, 0.830)},
}
_COLUMNS = (
    "encoder", "framework", "seed", "split", "stories", "accuracy", "kendalls_tau", "pmr", "loss", "seconds",
    "peak_memory_mb",
)  # fmt: skip


def flat_rows(outcomes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row of plain values for each run, with the metrics of its test split, or of validation without one."""
    rows = []
    for outcome in outcomes:
        split = "test" if "test" in outcome["results"] else "validation"
        metrics = outcome["results"].get(split, {})
        everything = {**outcome, **metrics, "split": split}
        rows.append({column: everything.get(column) for column in _COLUMNS})
    return rows


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Encoders down, frameworks across: accuracy / tau (± over seeds), training time, peak memory.

    Args:
        rows: from `flat_rows`.
    """
    frameworks = list(dict.fromkeys(row["framework"] for row in rows))
    names = [FRAMEWORK_NAMES[framework] for framework in frameworks]
    lines = ["| encoder | | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for encoder in dict.fromkeys(row["encoder"] for row in rows):
        groups = [
            [row for row in rows if row["encoder"] == encoder and row["framework"] == framework]
            for framework in frameworks
        ]
        lines.append(_line(encoder, "accuracy / tau", [_scores(group) for group in groups]))
        lines.append(_line("", "pmr / loss", [_other(group) for group in groups]))
        lines.append(_line("", "training, peak memory", [_cost(group) for group in groups]))
        published = PUBLISHED.get(encoder.split("/")[-1])
        if published is not None:
            cells = [f"{published[f][0]:.3f} / {published[f][1]:.3f}" if f in published else "" for f in frameworks]
            lines.append(_line("", "the guide's, not like for like", cells))
    return "\n".join(lines)


def _line(encoder: str, kind: str, cells: Sequence[str]) -> str:
    return f"| {encoder} | {kind} | " + " | ".join(cells) + " |"


def _spread(values: Sequence[float], digits: int) -> str:
    text = f"{mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {pstdev(values):.{digits}f}"


def _scores(group: Sequence[Mapping[str, Any]]) -> str:
    return (
        " / ".join(_spread([row[name] for row in group], 3) for name in ("accuracy", "kendalls_tau")) if group else ""
    )


def _other(group: Sequence[Mapping[str, Any]]) -> str:
    return " / ".join(_spread([row[name] for row in group], 3) for name in ("pmr", "loss")) if group else ""


def _cost(group: Sequence[Mapping[str, Any]]) -> str:
    if not group:
        return ""
    return f"{_spread([row['seconds'] for row in group], 0)} s, {max(row['peak_memory_mb'] for row in group):,.0f} MiB"


def write_tables(outcomes: Sequence[Mapping[str, Any]], output_dir: Path) -> str:
    """Writes `comparison.md`, `.csv`, `.json` and `loss_curves.png`; returns the Markdown table."""
    rows = flat_rows(outcomes)
    table = markdown_table(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(output_dir / "comparison.md", table + "\n")
    write_text(output_dir / "comparison.csv", text.getvalue())
    environment = outcomes[0]["results"].get("environment", {})
    model_folder.write_json(output_dir / "comparison.json", {"environment": environment, "runs": rows})
    curves = {
        f"{row['encoder']}, {FRAMEWORK_NAMES[row['framework']]}, seed {row['seed']}": outcome["log"]
        for row, outcome in zip(rows, outcomes, strict=True)
    }
    plot_loss_curves(curves, output_dir / model_folder.CURVES_FILE)
    return table
