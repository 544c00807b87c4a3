"""Failed, with exit code 1 and one line: what is no fault of the input. Nothing that was there is lost."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dataset_builder import load_all
from tests.training.conftest import TRAIN_FLAGS, Trained, run_command

ROOT = Path(__file__).parents[3]


@contextmanager
def little_space(size: int) -> Iterator[None]:
    """No file may become longer: what a full disk looks like to who writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".parquet"])
def test_order_without_space_leaves_the_old_answer(suffix: str, trained: Trained, tmp_path: Path) -> None:
    target = tmp_path / f"out{suffix}"
    target.write_text("the old one")
    with little_space(1000):
        result = run_command(*("order", "--model", trained.folder, trained.home / "stories.jsonl", "--output", target))
    assert (result.code, result.err.count("\n")) == (1, 1), result
    assert str(target) in result.err and "File too large" in result.err
    assert target.read_text() == "the old one"
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_build_without_space_leaves_nothing_half_done(trained: Trained, tmp_path: Path) -> None:
    with little_space(300):
        result = run_command("build", "--data", trained.home / "stories.jsonl", "--output_dir", tmp_path / "built")
    assert (result.code, result.err.count("\n")) == (1, 1), result
    assert "File too large" in result.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ("evaluate --model {model} --data {data} --split all --output_json {old}", 20),
        ("compare --encoders cnn --data {data} --output_dir {out}", 300),
        ("export --model {model} --output {out}", 3000),
        ("demo --model {model} --export {out}", 3000),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_without_space_the_file_is_named_and_no_other_is_lost(
    arguments: str, size: int, trained: Trained, tmp_path: Path
) -> None:
    """And nothing is there that would be in the way of the same command, given again."""
    places = {"model": trained.folder, "data": trained.home / "stories.jsonl", "out": tmp_path / "out"}
    (old := tmp_path / "old.json").write_text("the old one")
    for split in ("test", "all"):  # so that the stories are in the cache, which would be the first to find no space
        warmed = run_command(*"evaluate --model {model} --data {data} --split".format(**places).split(), split)
        assert warmed.code == 0, warmed.err
    load_all(["sample"])  # the examples of the demo
    with little_space(size):
        result = run_command(*arguments.format(**places, old=old).split())
    lines = [line for line in result.err.splitlines() if ": note: " not in line]
    assert (result.code, len(lines)) == (1, 1), result
    assert f"{tmp_path}{os.sep}" in result.err and "File too large" in result.err
    assert old.read_text() == "the old one"
    left = [path for path in tmp_path.rglob("*") if path not in (old, places["out"])]
    assert not left and (not places["out"].exists() or not any(places["out"].iterdir()))


@pytest.mark.parametrize("framework", ["trainer", "lightning", "poutyne"])
def test_train_without_space_can_be_resumed(
    framework: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit is a checkpoint, which is larger than anything before it."""
    monkeypatch.chdir(trained.home)
    flags = ["train", *TRAIN_FLAGS, "--framework", framework, "--output_dir", str(tmp_path / "out"), "--max_steps", "6"]
    with little_space(10_000):
        result = run_command(*flags)
    assert (result.code, result.err.count("\n")) == (1, 1), result
    assert "File too large" in result.err or "space" in result.err
    assert not (tmp_path / "out" / "model.safetensors").exists()
    result = run_command(*flags, "--overwrite_output_dir")
    assert result.code == 0, result.err


@pytest.mark.skipif(not os.path.isdir("/sys/kernel"), reason="needs a folder that nobody may write to")
@pytest.mark.parametrize(
    "arguments",
    [
        "train --encoder cnn --data {data} --output_dir /sys/kernel/out",
        "build --data {data} --output_dir /sys/kernel/out",
        "compare --encoders cnn --data {data} --output_dir /sys/kernel/out",
        "order --model {model} {data} --output /sys/kernel/out.jsonl",
        "evaluate --model {model} --data {data} --split all --output_json /sys/kernel/out.json",
        "export --model {model} --output /sys/kernel/out",
        "demo --model {model} --export /sys/kernel/out",
    ],
    ids=lambda arguments: arguments.split()[0],
)
def test_a_folder_that_nobody_may_write_to(arguments: str, trained: Trained) -> None:
    places = {"data": trained.home / "stories.jsonl", "model": trained.folder}
    result = run_command(*arguments.format(**places).split())
    lines = [line for line in result.err.splitlines() if ": note: " not in line]
    assert (result.code, len(lines)) == (1, 1), result
    assert "/sys/kernel" in result.err
    assert "not permitted" in result.err or "denied" in result.err or "Read-only" in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        "train --encoder cnn --data somebody/stories --output_dir {out}",
        "train --encoder cnn --data {data} --output_dir {out} --push_to_hub somebody/model",
        "evaluate --model {model} --data somebody/stories",
        "build --data somebody/stories --output_dir {out}",
        "build --data {data} --output_dir {out} --license cc0-1.0 --push_to_hub somebody/stories",
        "compare --encoders cnn --data somebody/stories --output_dir {out}",
        "push --model {model} --repo_id somebody/model",
    ],
)
def test_no_network(arguments: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests are offline. What concerns encoders and models on the Hub is in `test_command_line`."""
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    places = {"data": trained.home / "stories.jsonl", "model": trained.folder, "out": tmp_path / "out"}
    result = run_command(*arguments.format(**places).split())
    assert (result.code, result.err.count("\n")) == (1, 1), result
    assert "somebody/" in result.err
    assert "hf_x" not in result.err
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_written_is_told_once(trained: Trained) -> None:
    """As a process of its own: Python would fail again at its end, in its own words and with another code."""
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "training.commands.command_line", "order", "--model", str(trained.folder)],
            input="It rained.\nTom baked.\n", stdout=full, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])},
        )  # fmt: skip
    assert (result.returncode, result.stderr) == (1, "sentence-ordering: No space left on device\n")
