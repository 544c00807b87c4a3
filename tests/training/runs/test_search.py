"""`sentence-ordering search`: trials, pruning, resuming, and the recipe that it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from tests.training.conftest import Command, run_command
from training.recipe.file import read_recipe_file
from training.recipe.recipe import RecipeError
from training.runs.search import read_space

SPACE = "learning_rate: {low: 1e-4, high: 1e-2, log: true}\nper_device_train_batch_size: [8, 16]\n"
FLAGS = ["--encoder", "cnn", "--vocab_size", "200", "--bf16", "false", "--num_train_epochs", "1"]


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(
        study_name="sentence-ordering", storage=JournalStorage(JournalFileBackend(str(folder / "trials.log")))
    )
    return study.trials


def search(home: Path, folder: Path, *flags: str) -> Command:
    space = folder.with_suffix(".yaml")
    space.write_text(SPACE)
    data = ["--data", str(home / "stories.jsonl"), "--space", str(space), "--output_dir", str(folder)]
    return run_command("search", *FLAGS, *data, *flags)


@pytest.fixture(scope="module")
def found(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("found") / "search"
    done = search(home, folder, "--n_trials", "2")
    assert done.code == 0, done.err
    assert "best of 2 trials" in done.out
    return folder


def test_the_best_recipe_is_written_for_train(found: Path) -> None:
    best = max(trials(found), key=lambda trial: trial.value)
    fields = read_recipe_file(found / "recipe.yaml")
    assert {name: fields[name] for name in best.params} == best.params
    assert fields["encoder"] == "cnn" and fields["num_train_epochs"] == 1
    assert (found / "trials.png").stat().st_size > 5000


def test_the_first_trial_is_the_recipe_itself(found: Path) -> None:
    first, second = trials(found)
    assert first.params == {} and set(second.params) == {"learning_rate", "per_device_train_batch_size"}
    tried = yaml.safe_load((found / "trials" / "0000" / "recipe.yaml").read_text())
    assert tried["per_device_train_batch_size"] == 16


def test_trials_keep_their_log_and_no_weights(found: Path) -> None:
    for number in ("0000", "0001"):
        names = {path.name for path in (found / "trials" / number).iterdir()}
        assert names == {"recipe.yaml", "results.json", "training_log.csv"}


def test_started_again_it_continues(home: Path, found: Path) -> None:
    before = [(trial.value, trial.params) for trial in trials(found)]
    done = search(home, found, "--n_trials", "3")
    assert done.code == 0, done.err
    after = trials(found)
    assert [(trial.value, trial.params) for trial in after[:2]] == before
    assert len(after) == 3
    refused = search(home, found, "--n_trials", "4", "--weight_decay", "0.5")
    assert refused.code == 2 and "another recipe" in refused.err


def test_a_trial_that_is_worse_than_the_median_is_pruned(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna.pruners.MedianPruner, "prune", lambda self, study, trial: trial.number > 0)
    done = search(home, tmp_path / "search", "--n_trials", "2")
    assert done.code == 0, done.err
    assert [trial.state for trial in trials(tmp_path / "search")] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert trials(tmp_path / "search")[1].intermediate_values


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("[1, 2]", "must map"),
        ("nonsense: [1]", "nonsense"),
        ("learning_rate: 3", "learning_rate"),
        ("learning_rate: {low: 1}", "learning_rate"),
        ("learning_rate: {low: 2, high: 1}", "above"),
        ("objective: {low: 1, high: 2}", "objective"),
        ("seed: {low: a, high: 2}", "seed"),
        ("a: [1", "YAML"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(text: str, fact: str, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=fact):
        read_space(path)


@pytest.mark.slow
def test_a_search_that_is_killed_ends_with_as_many_trials_and_a_better_recipe(tmp_path: Path) -> None:
    """On the sample with cnn: 20 trials, killed at the eighth."""
    space, folder = tmp_path / "space.yaml", tmp_path / "search"
    space.write_text(
        "learning_rate: {low: 3e-4, high: 1e-2, log: true}\n"
        "objective: [mse, pairwise, listmle]\nper_device_train_batch_size: [8, 16, 32]\n"
    )
    command = [sys.executable, "-P", "-m", "training.commands.command_line", "search", "--encoder", "cnn"]
    command += ["--data", "sample", "--space", str(space), "--output_dir", str(folder), "--n_trials", "20"]
    with subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, start_new_session=True) as process:
        while not (folder / "trials" / "0008").exists() and process.poll() is None:
            time.sleep(0.2)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
    interrupted = trials(folder)
    assert interrupted[-1].state == TrialState.RUNNING
    subprocess.run(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=True)
    ended = [trial for trial in trials(folder) if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(ended) == 20
    values = [trial.value for trial in ended if trial.state == TrialState.COMPLETE]
    print(f"default {values[0]:.4f}, best {max(values):.4f}")
    assert max(values) > values[0]


def test_a_space_that_stands_for_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("learning_rate: " + "[" * 5000 + "]" * 5000)
    with pytest.raises(RecipeError, match="is not YAML"):
        read_space(path)
