"""A real disk that is really full, a small tmpfs: one line that names what was written and the space."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dataset_builder.file_writing import UNFINISHED
from tests.training.conftest import TRAIN_FLAGS, Trained, run_command
from tests.training.made_up import made_up_stories, write_jsonl

ROOT = Path(__file__).parents[3]
MakeDisk = Callable[[int], Path]
STEPS = ["--max_steps", "6", "--eval_strategy", "steps", "--eval_steps", "2"]
TRAIN = ["train", *TRAIN_FLAGS, *STEPS, "--output_dir", "{disk}/out", "--framework"]
# Each command with sizes of a disk, in kB, that are too small for it at different moments.
COMMANDS: dict[str, tuple[list[str], list[int]]] = {
    "trainer": ([*TRAIN, "trainer"], [8, 40, 100, 300]),
    "lightning": ([*TRAIN, "lightning"], [8, 40, 100, 300]),
    "poutyne": ([*TRAIN, "poutyne"], [8, 40, 100, 300]),
    "compare": (["compare", "--encoders", "tiny-bert", *TRAIN_FLAGS[2:], "--output_dir", "{disk}/out"], [8, 40]),
    "build": (["build", "--data", "{many}", "--output_dir", "{disk}/out"], [8, 40]),
    "order jsonl": (["order", "--model", "my-model", "{many}", "--output", "{disk}/out.jsonl"], [8, 40]),
    "order csv": (["order", "--model", "my-model", "{many}", "--output", "{disk}/out.csv"], [8, 40]),
    "order parquet": (["order", "--model", "my-model", "{many}", "--output", "{disk}/out.parquet"], [8]),
    "evaluate": (
        ["evaluate", "--model", "my-model", "--data", "stories.jsonl", "--output_json", "{disk}/out.json"],
        [0],
    ),
    "export": (["export", "--model", "my-model", "--output", "{disk}/out"], [8, 40]),
    "demo": (["demo", "--model", "my-model", "--export", "{disk}/out"], [8, 60]),
}


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[MakeDisk]:
    """Mounts a disk of so many kB; with 0 there is not even room for a file."""
    with ExitStack() as mounted:

        def make(size: int) -> Path:
            folder = tmp_path / "disk"
            folder.mkdir()
            options = f"size={size}k" if size else "size=4k,nr_inodes=1"
            command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
            try:
                subprocess.run(command, check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                pytest.skip("may not mount a disk here")
            mounted.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
            return folder

        yield make


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("many") / "many.jsonl"
    write_jsonl(path, made_up_stories(1000))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [(name, size) for name, (_, sizes) in COMMANDS.items() for size in sizes])
def test_a_full_disk(
    name: str, size: int, make_disk: MakeDisk, many: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = make_disk(size)
    monkeypatch.chdir(trained.home)
    result = run_command(*[word.format(disk=disk, many=many) for word in COMMANDS[name][0]])
    *before, line = result.err.splitlines()
    assert result.code == 1 and all(said.startswith("run ") for said in before), result.err
    assert str(disk) in line and "No space left on device" in line and " are free)" in line
    assert not [path for path in disk.rglob("*") if UNFINISHED in path.name]


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["HF_DATASETS_CACHE", "TMPDIR"])
def test_a_full_cache(
    variable: str, make_disk: MakeDisk, many: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = make_disk(8)
    (disk / "filler").write_bytes(bytes(4096))
    monkeypatch.chdir(trained.home)
    monkeypatch.setenv(variable, str(disk))
    command = ["train", *TRAIN_FLAGS, "--max_steps", "2", "--data", str(many), "--output_dir", str(disk.parent / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "training.commands.command_line", *command],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )
    if done.returncode:  # or there is another folder to cache in
        line = done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr and str(disk) in line and " are free)" in line, done.stderr
