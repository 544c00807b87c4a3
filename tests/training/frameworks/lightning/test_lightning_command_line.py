"""`python -m training.frameworks.lightning.command_line`: Lightning's own command line on our module and stories."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.training.small_runs import interrupt_after
from training.frameworks.lightning.command_line import main
from training.models.trained_model import load_trained_model


@pytest.fixture
def config(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration file as people write it; paths are those of the folder they work in."""
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", ["lightning"])  # Lightning warns of arguments given twice
    callbacks: list[dict[str, Any]] = [
        {
            "class_path": "ModelCheckpoint",
            "init_args": {
                "monitor": "val_kendalls_tau",
                "mode": "max",
                "dirpath": str(tmp_path / "kept"),
                "filename": "best",
            },
        },
        {"class_path": "EarlyStopping", "init_args": {"monitor": "val_kendalls_tau", "mode": "max"}},
        {"class_path": "LearningRateMonitor"},
        {"class_path": "training.frameworks.lightning.checkpoints.HubFolderCallback"},
        {
            "class_path": "training.frameworks.lightning.command_line.PredictionWriter",
            "init_args": {"output": str(tmp_path / "orders.jsonl")},
        },
    ]
    values = {
        "model": {"encoder": "tiny-bert", "learning_rate": 0.002, "seed": 7},
        "data": {"data": ["stories.jsonl"], "per_device_train_batch_size": 8},
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 1,
            "accumulate_grad_batches": 2,
            "gradient_clip_val": 1.0,
            "log_every_n_steps": 1,
            "callbacks": callbacks,
            "logger": {"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path), "name": "csv"}},
        },
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_fit_validate_test_and_predict(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert "━" not in out and "%|" not in out  # no bar and no table without a terminal
    load_trained_model(str(tmp_path / "kept" / "best"))
    logged = tmp_path / "csv" / "version_0"
    assert {path.name for path in logged.iterdir()} == {"config.yaml", "hparams.yaml", "metrics.csv"}
    assert yaml.safe_load((logged / "hparams.yaml").read_text())["seed"] == 7  # of model and stories alike

    checkpoint = ["--config", str(config), "--ckpt_path", str(tmp_path / "kept" / "best.ckpt")]
    assert main(["validate", *checkpoint]) == 0
    assert "val_kendalls_tau" in capsys.readouterr().out
    assert main(["test", *checkpoint]) == 0
    assert "test_kendalls_tau" in capsys.readouterr().out
    assert main(["predict", *checkpoint]) == 0
    rows = [json.loads(line) for line in (tmp_path / "orders.jsonl").read_text().splitlines()]
    assert len({row["storyid"] for row in rows}) == len(rows) == 8
    assert all(sorted(row["order"]) == list(range(len(row["scores"]))) for row in rows)


def test_an_encoder_without_a_tokenizer_gets_one_from_the_training_stories(config: Path, tmp_path: Path) -> None:
    flags = ["--model.encoder", "cnn", "--trainer.max_steps", "1", "--trainer.limit_val_batches", "0"]
    assert main(["fit", "--config", str(config), *flags, "--trainer.callbacks", "null"]) == 0


def test_bad_input_is_one_line_and_exit_code_2(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", str(config), "--model.encoder", "nowhere/at/all"]) == 2
    error = capfd.readouterr().err
    assert "--encoder nowhere/at/all: no such folder" in error and error.count("\n") == 1, error
    for flags in (["--model.no_such_thing", "1"], ["--trainer.max_steps", "many"], ["--data.data", "{"]):
        assert main(["fit", "--config", str(config), *flags]) == 2
        error = capfd.readouterr().err
        assert error.startswith("sentence-ordering: ") and error.count("\n") == 1, error


def test_an_error_of_any_kind_is_one_line(
    config: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("train")

    monkeypatch.setattr("training.frameworks.lightning.data.open_stories", fail)
    assert main(["fit", "--config", str(config)]) == 1
    error = capfd.readouterr().err
    assert "KeyError: 'train'" in error and error.count("\n") == 1, error


def test_data_without_a_training_split_are_bad_input(
    config: Path, home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test.jsonl").write_text((home / "stories.jsonl").read_text())
    assert main(["fit", "--config", str(config), "--data.data", f"[{tmp_path / 'test.jsonl'}]"]) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    for fact in ("test.jsonl", "no train stories", "found: test"):
        assert fact in error


def test_fit_can_be_repeated_in_one_folder(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its configuration is saved there each time."""
    flags = ["--trainer.logger", "false", "--trainer.default_root_dir", str(tmp_path / "root")]
    short = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "0", "--trainer.callbacks", "null"]
    for _ in range(2):
        assert main(["fit", "--config", str(config), *flags, *short]) == 0
    assert yaml.safe_load((tmp_path / "root" / "config.yaml").read_text())["model"]["seed"] == 7


def test_data_without_a_training_split_are_tested_and_predicted(config: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text((home / "stories.jsonl").read_text())
    flags = ["--config", str(config), "--data.data", f"[{tmp_path / 'test.jsonl'}]"]
    assert main(["test", *flags]) == 0
    assert main(["predict", *flags]) == 0
    assert len((tmp_path / "orders.jsonl").read_text().splitlines()) == 60


def test_ctrl_c_is_exit_code_130(config: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hook = interrupt_after(2)
    try:
        assert main(["fit", "--config", str(config)]) == 130
    finally:
        hook.remove()
    assert capfd.readouterr().err.endswith("sentence-ordering: interrupted\n")
