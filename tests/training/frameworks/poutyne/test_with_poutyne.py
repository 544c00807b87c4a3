"""The room of Poutyne: the same weights, logs and results as Trainer makes of the same recipe."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.conftest import TRAIN_FLAGS, Trained, run_command
from tests.training.small_runs import (
    Weights,
    assert_same_steps,
    difference,
    script_evaluations,
    small_run,
    train,
    weights,
)
from training.evaluation.predictions import evaluate
from training.frameworks.protocol import load_framework
from training.frameworks.run import TrainingRun
from training.frameworks.training_log import TrainingFailed
from training.models.model_folder import read_json
from training.recipe.recipe import FRAMEWORKS


def both(
    tmp_path: Path, home: Path, encoder: str = "tiny-bert", **fields: Any
) -> tuple[tuple[TrainingRun, list[Weights]], tuple[TrainingRun, list[Weights]]]:
    """The run with Poutyne and the run with Trainer, each with its weights after each step."""
    runs = [small_run(tmp_path / name, home / encoder, name, **fields) for name in ("poutyne", "trainer")]
    (ours, steps), (theirs, expected) = [(run, train(run)) for run in runs]
    return (ours, steps), (theirs, expected)


def test_poutyne_can_be_chosen_and_refuses_what_it_cannot_do() -> None:
    assert "poutyne" in FRAMEWORKS
    assert load_framework("poutyne").REFUSED.keys() == {"fp16", "fsdp"}


def test_every_step_of_the_recipe_gives_the_weights_and_the_log_of_trainer(home: Path, tmp_path: Path) -> None:
    """Dropout, accumulation, clipping, more than one epoch, an uneven last step, evaluations in between."""
    (ours, steps), (theirs, expected) = both(tmp_path, home, max_steps=60)
    assert len(steps) == 60
    assert_same_steps(steps, expected)
    assert ours.log.rows == theirs.log.rows
    # Not trivially so: the weights moved, and clipping had something to do and something to leave.
    assert difference(steps[0], steps[-1])[0] > 1e-3
    norms = [row["grad_norm"] for row in ours.log.rows if "grad_norm" in row]
    assert min(norms) < ours.recipe.max_grad_norm < max(norms)


@pytest.mark.parametrize(
    "fields",
    [
        # Halves are exact whether divided before or after they are added up; thirds are not.
        pytest.param({"gradient_accumulation_steps": 3, "max_steps": 16, "eval_strategy": "no"}, id="three batches"),
        pytest.param({"gradient_accumulation_steps": 1, "num_train_epochs": 1.3}, id="one batch, fraction of an epoch"),
        pytest.param({"bf16": True, "max_steps": 16, "max_grad_norm": 0.0, "optim": "adamw_torch"}, id="bfloat16"),
        pytest.param({"max_steps": 16, "dataloader_num_workers": 1, "gradient_checkpointing": True}, id="workers"),
    ],
)
def test_other_recipes_give_the_weights_and_the_log_of_trainer(
    home: Path, tmp_path: Path, fields: dict[str, Any]
) -> None:
    (ours, steps), (theirs, expected) = both(tmp_path, home, **fields)
    assert len(steps) == 16  # 1.3 epochs of 12 steps are 15.6
    assert_same_steps(steps, expected)
    assert ours.log.rows == theirs.log.rows


def test_four_batches_of_four_are_one_batch_of_sixteen(home: Path, tmp_path: Path) -> None:
    # A gradient of the wrong scale must show, and rounding must not: clipping and AdamW's division by the gradient's
    # own size would hide the one and blow up the other.
    options: dict[str, Any] = {"max_grad_norm": 0.0, "adam_epsilon": 1.0, "learning_rate": 0.05}
    options |= {"train_sampling_strategy": "random", "max_steps": 6, "eval_strategy": "no"}
    steps = []
    for size, batches in [(4, 4), (16, 1)]:
        shape = {"per_device_train_batch_size": size, "gradient_accumulation_steps": batches}
        run = small_run(tmp_path / str(size), home / "calm-bert", "poutyne", **shape, **options)
        run.model.dropout.p = 0.0
        steps.append(train(run))
    accumulated, whole = steps
    assert_same_steps(accumulated, whole, tolerance=1e-5)
    assert difference(whole[0], whole[-1])[0] > 1e-2


@pytest.mark.parametrize("metric", ["loss", "kendalls_tau"])
@pytest.mark.parametrize(
    ("fields", "stops_at"),
    [({"eval_strategy": "steps", "eval_steps": 5}, 25), ({"eval_strategy": "epoch", "max_steps": 29}, 29)],
)
def test_stops_early_and_keeps_the_best_as_trainer_does(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, fields: dict[str, Any], stops_at: int
) -> None:
    fields = {"early_stopping_patience": 2, "metric_for_best_model": metric, "max_steps": 60, **fields}
    runs = []
    for framework in ("poutyne", "trainer"):
        script_evaluations(monkeypatch, [0.1, 0.05, 0.3, 0.3, 0.2])
        run = small_run(tmp_path / framework, home / "tiny-bert", framework, **fields)
        runs.append((run, train(run)))
    (ours, steps), (theirs, expected) = runs
    assert len(steps) == stops_at
    assert_same_steps(steps, expected)
    assert ours.log.rows == theirs.log.rows
    best = 15 if fields["eval_strategy"] == "steps" else 18
    assert difference(weights(ours), steps[best - 1])[0] == 0
    assert difference(weights(ours), weights(theirs))[0] == 0


def test_keeps_the_last_weights_if_told_so(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script_evaluations(monkeypatch, [0.2, 0.1])
    options: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 2, "max_steps": 4}
    run = small_run(tmp_path, home / "tiny-bert", "poutyne", load_best_model_at_end=False, **options)
    steps = train(run)
    assert difference(weights(run), steps[-1])[0] == 0


def test_evaluates_at_the_last_step_as_the_evaluation_outside_does(home: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path, home / "tiny-bert", "poutyne", eval_strategy="steps", eval_steps=5, max_steps=7)
    train(run)
    evaluated = {row["step"]: row for row in run.log.rows if "eval_loss" in row}
    assert sorted(evaluated) == [5, 7]
    best = max(evaluated.values(), key=lambda row: row["eval_kendalls_tau"])
    outside = evaluate(run.model.eval(), run.validation, batch_size=run.recipe.per_device_eval_batch_size)
    for name in ("loss", "accuracy", "kendalls_tau", "pmr"):
        assert best[f"eval_{name}"] == pytest.approx(outside[name], rel=1e-6)


def test_trains_without_validation_stories(home: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path, home / "tiny-bert", "poutyne", max_steps=6)
    run.splits = {}
    steps = train(run)
    assert difference(weights(run), steps[-1])[0] == 0
    assert [path.name for path in run.checkpoints.iterdir()] == ["checkpoint-6"]


def test_a_loss_that_is_not_finite_ends_training(home: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path, home / "tiny-bert", "poutyne", max_steps=20, logging_steps=1, eval_strategy="no")
    with torch.no_grad():
        run.model.head.bias.fill_(math.inf)
    with pytest.raises(TrainingFailed, match="loss is .* at step 1"):
        train(run)


def test_prints_nothing_without_a_terminal(home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = small_run(tmp_path, home / "tiny-bert", "poutyne", max_steps=12)
    capfd.readouterr()
    train(run)
    assert capfd.readouterr() == ("", "")


def test_the_command_gives_the_same_folder_and_results_as_with_trainer(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.home)
    folder = tmp_path / "model"
    command = run_command("train", *TRAIN_FLAGS, "--framework", "poutyne", "--output_dir", folder)
    assert command.code == 0, command.err
    assert {path.name for path in folder.iterdir()} == {path.name for path in trained.folder.iterdir()}
    results = read_json(folder / "results.json")
    for split in ("before_training", "validation", "test"):
        assert results[split] == trained.results[split]
    assert (folder / "training_log.csv").read_text() == (trained.folder / "training_log.csv").read_text()
