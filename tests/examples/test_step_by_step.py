"""The tutorial of each framework, followed on our model."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset_builder import load_stories
from examples import trainer_step_by_step


@pytest.mark.slow
def test_trainer_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = trainer_step_by_step.main(["--encoder", "cnn", "--max_steps", "4", "--n_trials", "2"])
    assert {"test_loss", "test_kendalls_tau", "test_mean_logits"} <= found.keys()
    story = load_stories(["sample"])["test"][0]
    assert sorted(found["ordered"]) == sorted(story["sentences"])
    assert 1e-5 <= found["best"].hyperparameters["learning_rate"] <= 1e-2
    assert -1 <= found["best"].objective <= 1
    folder = tmp_path / "step-by-step"
    assert (folder / "checkpoint-2").is_dir() and (folder / "checkpoint-4").is_dir()
    assert list(tmp_path.rglob("events.out.tfevents*"))
