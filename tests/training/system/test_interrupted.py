"""Commands that are stopped: by Ctrl-C, with one line and nothing half done; or killed, and resumed unharmed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.training.conftest import TRAIN_FLAGS, Trained, run_command
from training.frameworks.training_log import read_training_log
from training.recipe.recipe import FRAMEWORKS

ROOT = Path(__file__).parents[3]
# 48 stories in steps of 2 x 4 are 6 steps an epoch: a checkpoint after 8 steps is within the second one.
FLAGS = [
    *TRAIN_FLAGS, "--num_train_epochs", "10", "--eval_strategy", "steps", "--eval_steps", "4",
    "--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2",
]  # fmt: skip


@dataclass
class Stopped:
    """A process that was sent a signal: its exit status, and what it wrote to standard error."""

    code: int
    err: str


def start(arguments: list[str], home: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])}
    return subprocess.Popen(
        [sys.executable, "-m", "training.commands.command_line", *arguments], cwd=home, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def stop(process: subprocess.Popen[str], number: signal.Signals, ready: Callable[[], object]) -> Stopped:
    """Sends a signal as soon as the process is ready for it."""
    deadline = time.monotonic() + 120
    while process.poll() is None and not ready() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    assert process.stderr is not None and process.stdin is not None
    code = process.wait(60)  # with standard input open: a command that waits for it must not have to
    process.stdin.close()
    return Stopped(code, process.stderr.read())


@pytest.fixture(scope="module")
def stopped(trained: Trained) -> Iterator[dict[str, Stopped]]:
    """Three commands, started together since most of their time goes to imports."""
    home = trained.home
    processes = {
        "killed": start(["train", *FLAGS, "--output_dir", "killed"], home),
        # Long enough that it is still training when the first process has been killed.
        "train": start(["train", *FLAGS, "--num_train_epochs", "100", "--output_dir", "interrupted"], home),
        "order": start(["order", "--model", "my-model", "--output", "ordered.txt"], home),
    }
    try:
        yield {
            "killed": stop(
                processes["killed"],
                signal.SIGKILL,
                (home / "killed" / "checkpoints" / "checkpoint-8" / "trainer_state.json").exists,
            ),
            "train": stop(  # any checkpoint: old ones are removed
                processes["train"], signal.SIGINT, lambda: list(home.glob("interrupted/checkpoints/checkpoint-*"))
            ),
            "order": stop(processes["order"], signal.SIGINT, lambda: list(home.glob(".ordered.txt.unfinished-*"))),
        }
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()


def test_ctrl_c_ends_training_with_one_line_and_leaves_what_can_be_resumed(
    stopped: dict[str, Stopped], home: Path
) -> None:
    assert stopped["train"] == Stopped(130, "sentence-ordering: interrupted\n")
    assert not (home / "interrupted" / "model.safetensors").exists()
    assert (home / "interrupted" / "recipe.yaml").exists()


def test_ctrl_c_ends_ordering_with_one_line_and_nothing_half_done(stopped: dict[str, Stopped], home: Path) -> None:
    assert stopped["order"] == Stopped(130, "sentence-ordering: interrupted\n")
    assert not list(home.glob("*ordered.txt*"))
    assert not list(home.glob(".*ordered.txt*"))


def test_a_killed_run_that_is_resumed_makes_the_model_of_one_that_was_not(
    stopped: dict[str, Stopped], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stopped["killed"].code == -signal.SIGKILL
    monkeypatch.chdir(home)
    whole = run_command("train", *FLAGS, "--output_dir", "whole")
    assert whole.code == 0, whole.err
    # A checkpoint that was being written when the process ended is none.
    torn = home / "killed" / "checkpoints" / "checkpoint-59"
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"global_step": 5')
    (torn / "model.safetensors").write_bytes(b"half")
    resumed = run_command("train", *FLAGS, "--output_dir", "killed", "--resume_from_checkpoint")
    assert resumed.code == 0, resumed.err

    for name in ("model.safetensors", "config.json", "recipe.yaml", "training_stories.txt"):
        assert (home / "killed" / name).read_bytes() == (home / "whole" / name).read_bytes(), name
    results = [json.loads((home / name / "results.json").read_text("utf-8")) for name in ("killed", "whole")]
    for split in ("before_training", "validation", "test"):
        assert results[0][split] == results[1][split]

    rows, expected = (read_training_log(home / name / "training_log.csv") for name in ("killed", "whole"))
    # A row that spans the place where the run was resumed is the mean over the steps since then.
    assert [(row["step"], set(row)) for row in rows] == [(row["step"], set(row)) for row in expected]
    assert [row for row in rows if "eval_loss" in row] == [row for row in expected if "eval_loss" in row]


def test_what_is_no_checkpoint_cannot_be_resumed_from(home: Path, tmp_path: Path, trained: Trained) -> None:
    for flags, complaint in (
        ([str(tmp_path)], "is not a complete checkpoint"),
        ([str(trained.folder)], "is not a complete checkpoint"),
    ):
        result = run_command("train", *TRAIN_FLAGS, "--output_dir", tmp_path, "--resume_from_checkpoint", *flags)
        assert result.code == 2
        assert complaint in result.err
        assert result.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_finished_run_is_resumed_by_its_own_recipe_only(
    framework: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    flags = ["train", *TRAIN_FLAGS, "--framework", framework, "--output_dir", str(tmp_path), "--max_steps", "8"]
    assert run_command(*flags).code == 0
    weights, recipe = ((tmp_path / name).read_bytes() for name in ("model.safetensors", "recipe.yaml"))
    log = read_training_log(tmp_path / "training_log.csv")

    other = run_command(*flags, "--resume_from_checkpoint", "--seed", "7")
    assert other.code == 2
    assert other.err.endswith("recipe.yaml: --seed is 42 there and 7 here\n")
    assert (tmp_path / "recipe.yaml").read_bytes() == recipe

    same = run_command(*flags, "--resume_from_checkpoint", "--per_device_eval_batch_size", "3")
    assert same.code == 0, same.err
    assert (tmp_path / "model.safetensors").read_bytes() == weights
    assert read_training_log(tmp_path / "training_log.csv") == log
