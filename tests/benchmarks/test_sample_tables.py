"""The tables of the sample's data set card, from the results files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import sample_tables
from benchmarks.sample_baselines import ROWS, figures, random_order


def test_a_random_order_is_computed_from_the_lengths() -> None:
    assert random_order([2, 4]) == {
        "stories": 2, "kendalls_tau": 0.0, "accuracy": pytest.approx(3 / 8), "pmr": pytest.approx((1 / 2 + 1 / 24) / 2)
    }  # fmt: skip


def test_a_trained_model_is_a_row_with_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = {"kendalls_tau": 0.5, "accuracy": 0.4, "pmr": 0.1}
    results = {
        "test": {**metrics, "stories": 2, "sentences": 6},
        "analysis": {"intervals": {"level": 0.95, **{name: [0.05, 0.75] for name in metrics}}},
        "training": {"seconds": 1.0, "stories": 8},
        "environment": {"torch": "1", "transformers": "2"},
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    measured = {"random_order": random_order([2, 4]), "rows": {"quick": figures(tmp_path, ROWS["quick"])}}
    (tmp_path / "baselines.json").write_text(json.dumps(measured))
    monkeypatch.setattr(sample_tables, "BASELINES", tmp_path / "baselines.json")
    shown = sample_tables.sample_baselines()
    assert "| 0.000 | 0.375 | 0.271 |" in shown
    assert f"`{' '.join(ROWS['quick'])}` | 0.500 [0.050, 0.750] | 0.400" in shown
    assert "2 test stories, 8 to train on" in shown


def test_what_was_dropped_adds_up() -> None:
    values = json.loads(sample_tables.READINGS.read_text(encoding="utf-8"))
    assert values["stories"] - sum(values["dropped"].values()) == values["kept"] == 2400
    assert "2,520 candidates" in sample_tables.sample_readings()
