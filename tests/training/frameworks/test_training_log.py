"""The log of a run: rows as they come, the same columns always, and no step twice after a restart."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.frameworks.training_log import COLUMNS, TrainingFailed, TrainingLog, read_training_log

METRICS = {
    "loss": 2.0,
    "accuracy": 0.5,
    "kendalls_tau": 0.25,
    "pmr": 0.125,
    "mean_logits": 9.0,
    "std_logits": 0.5,
    "stories": 4,
}


def test_rows_are_in_the_file_as_soon_as_they_are_known(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    said: list[str] = []
    log = TrainingLog(path, report=said.append)
    assert path.read_bytes() == (",".join(COLUMNS) + "\n").encode()
    log.training(10, 0.5, 3.0, 1e-4, 1.5)
    assert path.read_bytes().splitlines()[1:] == [b"10,0.5,3.0,0.0001,1.5,,,,,,"]
    log.evaluation(20, 1.0, METRICS)
    assert path.read_bytes().splitlines()[2:] == [b"20,1.0,,,,2.0,0.5,0.25,0.125,9.0,0.5"]
    log.training(30, 1.5, 2.0, 1e-5, None)
    assert said == ["epoch 1.00, step 20: validation tau 0.250, accuracy 0.500, pmr 0.125, loss 2.000"]
    assert read_training_log(path) == log.rows
    assert [set(row) for row in log.rows][2] == {"step", "epoch", "loss", "learning_rate"}


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_no_number_is_written_down_and_ends_the_run(loss: float, tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log.csv")
    with pytest.raises(TrainingFailed, match=r"the training loss is -?(nan|inf) at step 7: lower --learning_rate"):
        log.training(7, 0.5, loss, 1e-4, 1.0)
    assert read_training_log(tmp_path / "log.csv")[0]["step"] == 7


def steps_shown(folder: Path) -> list[int]:
    return [event.step for event in EventAccumulator(str(folder)).Reload().Scalars("training/loss")]


def test_a_resumed_log_goes_on_after_the_step_of_its_checkpoint(tmp_path: Path) -> None:
    path, folder = tmp_path / "log.csv", tmp_path / "tensorboard"

    def record(log: TrainingLog, steps: range) -> None:
        for step in steps:
            log.training(step, step / 10, 1.0, 1e-4, 1.0)
        log.close()

    record(TrainingLog(path, folder), range(1, 8))
    rows = read_training_log(path)
    resumed = TrainingLog(path, folder)
    resumed.continue_from(rows, 4)
    assert read_training_log(path) == rows[:4]
    record(resumed, range(5, 11))
    assert [row["step"] for row in read_training_log(path)] == list(range(1, 11))
    assert steps_shown(folder) == list(range(1, 11))


def test_a_run_that_has_logged_nothing_has_no_rows(tmp_path: Path) -> None:
    assert read_training_log(tmp_path / "none.csv") == []
    TrainingLog(tmp_path / "log.csv").close()
    assert read_training_log(tmp_path / "log.csv") == []


def test_without_a_folder_there_is_no_tensorboard(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log.csv")
    log.training(1, 0.1, 1.0, 1e-4, 1.0)
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_the_file_is_what_a_spreadsheet_reads(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log.csv")
    log.evaluation(1, 0.1, METRICS)
    with open(tmp_path / "log.csv", newline="", encoding="utf-8") as source:
        (row,) = csv.DictReader(source)
    assert list(row) == list(COLUMNS)
    assert row["eval_kendalls_tau"] == "0.25"
    assert (row["eval_mean_logits"], row["eval_std_logits"]) == ("9.0", "0.5"), "a collapse shows in them"
    assert "eval_stories" not in row
