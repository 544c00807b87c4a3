"""The tutorials run from end to end, and what Lightning and Poutyne resume is what an undisturbed run makes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from dataset_builder import SAMPLE_FILE, load_stories
from examples import lightning_tutorial, poutyne_tutorial, trainer_tutorial
from tests.training.frameworks.test_same_weights import write_encoder
from training.models.trained_model import load_trained_model


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    encoder = write_encoder(tmp_path_factory.mktemp("encoder") / "dropout", 0.1)
    return ["--encoder", str(encoder), "--max_train_samples", "64", "--output_dir"]


def test_lightning(flags: list[str], tmp_path: Path) -> None:
    results = lightning_tutorial.main([*flags, str(tmp_path)])
    assert results["epochs"] == 3
    assert {"val_kendalls_tau", "val_std_logits", "test_loss"} <= results.keys()
    assert [sorted(answer["order"]) for answer in results["answers"]] == [[0, 1], [0, 1]]
    model, _ = load_trained_model(str(tmp_path / "model"))
    assert model.config.objective == "mse"
    for version, epochs in (("version_0", {0, 1}), ("version_1", {2, 3})):  # the best is validated after the third
        with open(tmp_path / "logs" / version / "metrics.csv", newline="") as source:
            rows = list(csv.DictReader(source))
        assert {int(row["epoch"]) for row in rows if row["val_loss"]} == epochs
        assert any(row["lr-AdamW/pg1"] for row in rows)


def test_poutyne(flags: list[str], tmp_path: Path) -> None:
    results = poutyne_tutorial.main([*flags, str(tmp_path)])
    assert results["epochs"] == 3
    assert {"test_kendalls_tau", "test_std_logits", "test_loss"} <= results.keys()
    assert [sorted(order) for order in results["orders"]] == [[0, 1], [0, 1, 2]]
    load_trained_model(str(tmp_path / "model"))
    rows = log_of(tmp_path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]


def log_of(folder: Path) -> list[dict[str, Any]]:
    with open(folder / "experiment" / "log.tsv", newline="") as source:
        return list(csv.DictReader(source, delimiter="\t"))


@pytest.mark.slow
def test_a_resumed_experiment_is_an_undisturbed_one(flags: list[str], tmp_path: Path) -> None:
    """Dropout, shuffling and accumulation included: the tutorial's second epoch is resumed here, its third there."""
    poutyne_tutorial.main([*flags, str(tmp_path / "two"), "--epochs", "2"])
    poutyne_tutorial.main([*flags, str(tmp_path / "two"), "--epochs", "3"])
    poutyne_tutorial.main([*flags, str(tmp_path / "one"), "--epochs", "3"])
    for some, others in zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"), strict=True):
        assert {k: v for k, v in some.items() if k != "time"} == {k: v for k, v in others.items() if k != "time"}


@pytest.mark.slow
def test_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = trainer_tutorial.main(["--encoder", "cnn", "--max_steps", "4", "--n_trials", "2"])
    assert {"test_loss", "test_kendalls_tau", "test_mean_logits"} <= found.keys()
    story = load_stories(SAMPLE_FILE)["test"][0]
    assert sorted(found["ordered"]) == sorted(story["sentences"])
    assert 1e-5 <= found["best"].hyperparameters["learning_rate"] <= 1e-2
    assert -1 <= found["best"].objective <= 1
    folder = tmp_path / "trainer-tutorial"
    assert (folder / "checkpoint-2").is_dir() and (folder / "checkpoint-4").is_dir()
    assert list(tmp_path.rglob("events.out.tfevents*"))
