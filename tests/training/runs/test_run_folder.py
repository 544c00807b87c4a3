"""A run's folder: one run at a time, from the newest checkpoint that is whole, and nothing of others is replaced."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.conftest import FRAMEWORKS, TRAIN_FLAGS, Command, Trained, run_command
from training.frameworks.checkpoints import damaged_part
from training.models.model_folder import read_json
from training.system.run_lock import FolderInUse, only_run_in

ROOT = Path(__file__).parents[3]
HOLDER = """
import os, sys, time
from pathlib import Path
from training.system.run_lock import only_run_in
with only_run_in("--output_dir", Path(sys.argv[1])):
    if os.fork() == 0:  # a worker that outlives the run
        time.sleep(60)
        os._exit(0)
    print(flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that trains in the folder `out`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "out")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, process_group=0) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        os.killpg(process.pid, signal.SIGKILL)


def train(home: Path, *flags: str | os.PathLike[str]) -> Command:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        return run_command("train", *TRAIN_FLAGS, *flags)


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_a_second_run_in_a_folder_is_refused_until_the_first_has_ended(
    holder: subprocess.Popen[bytes], trained: Trained, tmp_path: Path
) -> None:
    for command in (
        ["train", *TRAIN_FLAGS],
        ["train", *TRAIN_FLAGS, "--resume_from_checkpoint"],
        ["compare", "--encoders", "cnn", "--data", "sample"],
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(trained.home)
            result = run_command(*command, "--output_dir", tmp_path / "out")
        assert result.code == 1 and result.err.count("\n") == 1
        assert "another run" in result.err and str(tmp_path / "out") in result.err
        assert not list((tmp_path / "out").iterdir())
    holder.kill()  # its worker lives on
    holder.wait()
    with only_run_in("--output_dir", tmp_path / "out"):
        pass


def test_the_folder_is_gone_if_nothing_came_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "some" / "where" / "out"
    with only_run_in("--output_dir", folder), pytest.raises(FolderInUse), only_run_in("--output_dir", folder):
        pass
    assert not list(tmp_path.iterdir())
    with only_run_in("--output_dir", folder):
        (folder / "kept").touch()
    assert (folder / "kept").exists()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_one_command_begins_a_run_and_goes_on_with_it(framework: str, trained: Trained, tmp_path: Path) -> None:
    """And from the newest checkpoint that is whole, whatever of a newer one is damaged."""
    flags: list[str | os.PathLike[str]] = ["--framework", framework, "--output_dir", tmp_path / "out"]
    flags += ["--resume_from_checkpoint"]
    flags += ["--eval_strategy", "steps", "--eval_steps", "4", "--max_steps", "8", "--save_total_limit", "3"]
    begun = train(trained.home, *flags)
    assert begun.code == 0, begun.err
    assert "the run begins" in begun.out
    checkpoints = tmp_path / "out" / "checkpoints"
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    newest, older = (next(checkpoints.glob(f"checkpoint-{step}*")) for step in (8, 4))
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "out", whole)
    files = [newest] if newest.is_file() else [path for path in newest.iterdir() if path.suffix in (".pt", ".pth")]
    assert files
    for file in files:
        for damage in (bytes(file.stat().st_size), file.read_bytes()[: file.stat().st_size // 2], b""):
            shutil.rmtree(tmp_path / "out")
            shutil.copytree(whole, tmp_path / "out")
            assert damaged_part(newest) is None
            file.write_bytes(damage)
            assert damaged_part(newest) == file.name
    resumed = train(trained.home, *flags)
    assert resumed.code == 0, resumed.err
    assert newest.name in resumed.out and f"damaged-{newest.name}" in os.listdir(checkpoints)
    assert "the run begins" not in resumed.out
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights
    assert older.exists() and damaged_part(newest) is None

    named = train(trained.home, *flags, checkpoints / f"damaged-{newest.name}")
    assert named.code == 2 and newest.name in named.err and named.err.count("\n") == 1


def test_a_run_does_not_begin_among_other_files(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    result = train(trained.home, "--output_dir", tmp_path, "--resume_from_checkpoint")
    assert result.code == 2 and "mine.txt" in result.err and result.err.count("\n") == 1
    (tmp_path / "mine.txt").rename(tmp_path / "results.json")
    (tmp_path / "results.json").write_text("{}")  # of a run that was ended before it wrote its recipe
    assert train(trained.home, "--output_dir", tmp_path, "--resume_from_checkpoint", "--max_steps", "2").code == 0
    assert read_json(tmp_path / "results.json")["test"]
