"""A run with Poutyne that is interrupted anywhere goes on as if it had not been."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.small_runs import difference, interrupt_after, script_evaluations, small_run, train, weights
from training.frameworks.checkpoints import last_checkpoint
from training.frameworks.poutyne import framework as with_poutyne
from training.frameworks.poutyne.checkpoints import Progress
from training.frameworks.poutyne.framework import checkpoint_step
from training.frameworks.run import TrainingRun
from training.models.trained_model import load_trained_model

# Evaluations and entries of the log at steps that do not coincide; epochs of 6 steps.
BY_STEPS: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 4, "max_steps": 21, "logging_steps": 3}
BY_EPOCHS: dict[str, Any] = {"eval_strategy": "epoch", "max_steps": 21, "logging_steps": 5}


def poutyne_run(home: Path, folder: Path, **fields: Any) -> TrainingRun:
    return small_run(folder, home / "tiny-bert", "poutyne", **fields)


@pytest.mark.parametrize(
    ("fields", "interrupted_after", "goes_on_from"),
    [
        pytest.param(BY_STEPS, 11, 8, id="within an epoch"),
        pytest.param({**BY_STEPS, "eval_steps": 6}, 7, 6, id="at the end of an epoch"),
        pytest.param(BY_EPOCHS, 17, 12, id="from the last epoch"),
        pytest.param({**BY_STEPS, "gradient_accumulation_steps": 1, "bf16": True}, 10, 8, id="bfloat16"),
    ],
)
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    home: Path, tmp_path: Path, fields: dict[str, Any], interrupted_after: int, goes_on_from: int
) -> None:
    undisturbed = poutyne_run(home, tmp_path / "undisturbed", **fields)
    expected = train(undisturbed)

    interrupted = poutyne_run(home, tmp_path / "interrupted", **fields)
    interruption = interrupt_after(interrupted_after)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(interrupted)
    finally:
        interruption.remove()
    checkpoint = last_checkpoint(with_poutyne, interrupted.checkpoints)
    assert checkpoint is not None and checkpoint_step(checkpoint) == goes_on_from

    run = poutyne_run(home, tmp_path / "again", **fields)
    run.recipe.output_dir = interrupted.recipe.output_dir
    run.log.continue_from(interrupted.log.rows, goes_on_from)
    steps = train(run, checkpoint)
    assert len(steps) == len(expected) - goes_on_from
    for step, (one, other) in enumerate(zip(steps, expected[goes_on_from:], strict=True), goes_on_from + 1):
        assert difference(one, other)[0] == 0, f"step {step}: {difference(one, other)}"
    assert difference(weights(run), weights(undisturbed))[0] == 0
    assert run.log.rows == undisturbed.log.rows


def train_and_die_while_saving(home: Path, folder: Path) -> None:
    """Run in a process of its own, which does not survive it: killed in the midst of its second checkpoint."""
    real_save, calls = torch.save, []

    def save(*arguments: Any, **options: Any) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        real_save(*arguments, **options)

    torch.save = save
    train(poutyne_run(home, folder, **BY_STEPS))


def test_killed_between_the_files_of_a_checkpoint_it_goes_on_from_the_one_before(home: Path, tmp_path: Path) -> None:
    code = "import sys, pathlib; "
    code += "from tests.training.frameworks.poutyne.test_poutyne_checkpoints import train_and_die_while_saving as run; "
    code += "run(*map(pathlib.Path, sys.argv[1:]))"
    killed = subprocess.run([sys.executable, "-c", code, home, tmp_path], cwd=Path(__file__).parents[4])
    assert killed.returncode == -signal.SIGKILL
    checkpoints = tmp_path / "checkpoints"
    assert len(list(checkpoints.iterdir())) == 2, "the first checkpoint, and what there was of the second"
    checkpoint = last_checkpoint(with_poutyne, checkpoints)
    assert checkpoint is not None and checkpoint_step(checkpoint) == 4

    undisturbed = poutyne_run(home, tmp_path / "undisturbed", **BY_STEPS)
    train(undisturbed)
    run = poutyne_run(home, tmp_path / "again", **BY_STEPS)
    run.recipe.output_dir = str(checkpoints.parent)
    train(run, checkpoint)
    assert difference(weights(run), weights(undisturbed))[0] == 0
    assert all(path.name.startswith("checkpoint-") for path in checkpoints.iterdir())


def test_a_finished_run_resumed_is_the_same_model_without_another_step(home: Path, tmp_path: Path) -> None:
    run = poutyne_run(home, tmp_path / "run", **{**BY_STEPS, "max_steps": 12})
    train(run)
    again = poutyne_run(home, tmp_path / "again", **{**BY_STEPS, "max_steps": 12})
    again.recipe.output_dir = run.recipe.output_dir
    assert train(again, last_checkpoint(with_poutyne, run.checkpoints)) == []
    assert difference(weights(again), weights(run))[0] == 0


def test_a_run_that_was_stopped_early_stays_stopped(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_evaluations(monkeypatch, [0.1, 0.2, 0.2])
    fields = {**BY_STEPS, "eval_steps": 2, "early_stopping_patience": 1}
    run = poutyne_run(home, tmp_path / "run", **fields)
    assert len(train(run)) == 6
    again = poutyne_run(home, tmp_path / "again", **fields)
    again.recipe.output_dir = run.recipe.output_dir
    assert train(again, last_checkpoint(with_poutyne, run.checkpoints)) == []


@pytest.mark.parametrize("best_is_kept", [True, False])
def test_goes_on_from_a_checkpoint_of_another_folder_with_the_best_that_is_there(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best_is_kept: bool
) -> None:
    script_evaluations(monkeypatch, [0.1, 0.4, 0.2, 0.3, 0.2])
    fields = {"eval_strategy": "steps", "eval_steps": 2, "max_steps": 6}
    run = poutyne_run(home, tmp_path / "run", **fields)
    steps = train(run)
    if not best_is_kept:
        shutil.rmtree(run.checkpoints / "checkpoint-4")
    again = poutyne_run(home, tmp_path / "again", **{**fields, "max_steps": 10})
    more_steps = train(again, last_checkpoint(with_poutyne, run.checkpoints))
    assert len(more_steps) == 4
    best = steps[4 - 1] if best_is_kept else more_steps[2 - 1]  # the evaluations of 0.4 and, after going on, of 0.3
    assert difference(weights(again), best)[0] == 0


@pytest.mark.parametrize(("limit", "kept"), [(1, {4, 10}), (2, {4, 10}), (3, {4, 8, 10})])
def test_keeps_the_last_checkpoints_and_the_best(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, kept: set[int]
) -> None:
    script_evaluations(monkeypatch, [0.1, 0.3, 0.2, 0.3, 0.2])
    run = poutyne_run(home, tmp_path, eval_strategy="steps", eval_steps=2, max_steps=10, save_total_limit=limit)
    steps = train(run)
    assert {path.name for path in run.checkpoints.iterdir()} == {f"checkpoint-{step}" for step in kept}
    assert difference(weights(run), steps[4 - 1])[0] == 0


def test_a_checkpoint_is_a_model_that_can_be_used(home: Path, tmp_path: Path) -> None:
    run = poutyne_run(home, tmp_path, max_steps=6)
    steps = train(run)
    model, tokenizer = load_trained_model(str(run.checkpoints / "checkpoint-6"))
    assert difference(steps[-1], {name: value.cpu() for name, value in model.state_dict().items()})[0] == 0
    assert len(tokenizer) == len(run.tokenizer)
    # Nothing in it needs unpickling.
    assert (
        torch.load(run.checkpoints / "checkpoint-6" / "optimizer.pt", weights_only=True)["schedule"]["last_epoch"] == 6
    )


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    assert last_checkpoint(with_poutyne, tmp_path) is None
    assert last_checkpoint(with_poutyne, tmp_path / "missing") is None
    of_trainer = tmp_path / "checkpoint-7"
    of_trainer.mkdir()
    (of_trainer / "trainer_state.json").write_text('{"global_step": 7}')
    for wrong in (of_trainer, tmp_path / "missing"):
        with pytest.raises(ValueError, match="Poutyne") as refusal:
            checkpoint_step(wrong)
        assert str(wrong) in str(refusal.value) and "\n" not in str(refusal.value)
    assert last_checkpoint(with_poutyne, tmp_path) is None


@pytest.mark.parametrize(
    ("greater_is_better", "metrics", "best", "in_a_row"),
    [
        (True, [0.1, 0.3, 0.3, 0.2], 0.3, 2),
        (False, [0.3, 0.1, float("nan"), 0.1], 0.1, 2),
        (True, [0.1, 0.0, 0.2], 0.2, 0),
    ],
)
def test_an_equal_evaluation_is_no_better(
    greater_is_better: bool, metrics: list[float], best: float, in_a_row: int
) -> None:
    progress = Progress()
    for progress.step, metric in enumerate(metrics, 1):
        progress.record_evaluation("accuracy" if greater_is_better else "loss", metric)
    assert progress.best_metric == best and progress.best_step == metrics.index(best) + 1
    assert progress.evaluations_since_best == in_a_row
