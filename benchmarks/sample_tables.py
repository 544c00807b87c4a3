"""The tables of the sample's data set card: how well readers and models order its stories."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
BASELINES, READINGS = RESULTS / "sample_baselines.json", RESULTS / "sample_readings.json"
METRICS = {"kendalls_tau": "Kendall's tau", "accuracy": "accuracy", "pmr": "perfect stories"}
_NAMES = {"guide": "the guide's recipe", "quick": "the quick start", "small": "the best recipe for small encoders"}


def _table(rows: Mapping[str, Mapping[str, str]]) -> str:
    lines = [f"| | {' | '.join(METRICS.values())} |", "|---" + "|---:" * len(METRICS) + "|"]
    lines += [f"| {name} | {' | '.join(cells[metric] for metric in METRICS)} |" for name, cells in rows.items()]
    return "\n".join(lines)


def _plain(values: Mapping[str, float]) -> dict[str, str]:
    return {metric: f"{values[metric]:.3f}" for metric in METRICS}


def sample_readings() -> str:
    """What the two blind readings of all candidates found."""
    values = json.loads(READINGS.read_text(encoding="utf-8"))
    rows = {f"reading {name}": _plain(found) for name, found in values["readings"].items()}
    between, dropped = values["agreement_of_the_readings"], values["dropped"]
    return (
        f"{_table(rows)}\n\n{values['stories']:,} candidates, before any was dropped. The two readings agree with each "
        f"other: tau {between['kendalls_tau']:.3f}, the same order for {between['same_order']:.1%} of the stories. "
        f"{values['found_by_neither']} stories that neither reading put in order were dropped, "
        f"{dropped['found_by_one']} of the {values['found_by_one']} that only one put in order, and the last "
        f"{dropped['found_by_both']} written, to come to {values['kept']:,}."
    )


def sample_baselines() -> str | None:
    """Random order and the trained models on the sample's test split; None without results."""
    if not BASELINES.is_file():
        return None
    values: dict[str, Any] = json.loads(BASELINES.read_text(encoding="utf-8"))
    measured, random_order = values["rows"], values["random_order"]
    rows = {"random order (computed)": _plain(random_order)}
    for key in (key for key in _NAMES if key in measured):
        run = measured[key]
        rows[f"{_NAMES[key]}, `{run['flags']}`"] = {
            metric: "{:.3f} [{:.3f}, {:.3f}]".format(run["test"][metric], *run["intervals"][metric])
            for metric in METRICS
        }
    if not measured:
        return f"{_table(rows)}\n\n{random_order['stories']} test stories. No trained model has been measured yet."
    run = next(iter(measured.values()))
    environment = run["environment"]
    return (
        f"{_table(rows)}\n\n{run['test']['stories']} test stories, {run['training']['stories']:,} to train on; encoder "
        f"minilm (22.7 M parameters), one seed, one arrangement; in brackets {run['intervals']['level']:.0%} bootstrap "
        f"intervals over stories. torch {environment['torch']}, transformers {environment['transformers']}."
    )


PARTS_OF_CARD = {"sample_readings": sample_readings, "sample_baselines": sample_baselines}
