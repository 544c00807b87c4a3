"""Input that is made to disturb: pipes, sockets, control characters, huge values, text that breaks libraries."""

from __future__ import annotations

import json
import os
import pty
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.training.conftest import Trained, run_command
from training.commands.command_line import main

STORY = {"sentences": ["It rained.", "Tom baked.", "She stayed dry."]}
ESCAPE = "\x1b[2J\x1b]0;title\x07 and \x9b31m"


def as_process(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    line = [sys.executable, "-m", "training.commands.command_line", *map(str, arguments)]
    path = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        line, env={**os.environ, "PYTHONPATH": path, **environment}, cwd=cwd, capture_output=True, check=False
    )


@pytest.fixture
def hostile_story(tmp_path: Path) -> Path:
    path = tmp_path / "stories.txt"
    path.write_text(f"It {ESCAPE} rained.\nTom baked.\n")
    return path


def test_a_named_pipe_is_ordered(trained: Trained, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    writer = threading.Thread(target=(tmp_path / "pipe.jsonl").write_text, args=(json.dumps(STORY) + "\n",))
    writer.start()
    result = run_command("order", "--model", trained.folder, tmp_path / "pipe.jsonl")
    writer.join()
    assert result.code == 0, result.err
    assert sorted(json.loads(result.out)["sentences"]) == sorted(STORY["sentences"])


@pytest.mark.parametrize(
    "command", ["order --model {model}", "evaluate --model {model} --data", "build --output_dir {out} --data"]
)
@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_cannot_be_read_is_called_what_it_is(command: str, kind: str, trained: Trained, tmp_path: Path) -> None:
    """And not missing, with a hint at its own name."""
    path = tmp_path / ("input.parquet" if kind == "pipe" else "input.jsonl")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    else:
        path.symlink_to("/dev/null")
    result = run_command(*command.format(model=trained.folder, out=tmp_path / "out").split(), path)
    words = {"pipe": "a named pipe", "socket": "a socket", "device": "a device"}[kind]
    assert (result.code, result.err.count("\n")) == (2, 1) and words in result.err, result.err
    assert "did you mean" not in result.err and "no such" not in result.err


def test_a_terminal_gets_no_escapes_and_a_file_every_byte(
    hostile_story: Path, trained: Trained, tmp_path: Path
) -> None:
    piped = as_process("order", "--model", trained.folder, hostile_story, cwd=tmp_path)
    assert ESCAPE.encode() in piped.stdout
    result = run_command("order", "--model", trained.folder, hostile_story, "--output", tmp_path / "out.txt")
    assert result.code == 0 and ESCAPE in (tmp_path / "out.txt").read_text()

    master, terminal = pty.openpty()
    with os.fdopen(terminal, "w", encoding="utf-8") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert main(["order", "--model", str(trained.folder), str(hostile_story), "--quiet"]) == 0
        stream.flush()
        shown = os.read(master, 10_000)
    os.close(master)
    assert rb"It \x1b[2J\x1b]0;title\x07 and \x9b31m rained." in shown
    assert not set(shown) & {0x1B, 0x07} and b"\xc2\x9b" not in shown


def test_an_output_that_is_ascii_is_told_what_to_set(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "stories.txt").write_text("Il pleuvait sur l'été.\nTom baked.\n", encoding="utf-8")
    result = as_process(
        "order", "--model", trained.folder, "stories.txt", cwd=tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0"
    )
    assert result.returncode == 2 and result.stderr.count(b"\n") == 1, result.stderr
    assert b"PYTHONIOENCODING=utf-8" in result.stderr and b"--output" in result.stderr


LONG = "y" * 100_000


@pytest.mark.parametrize(
    "arguments",
    [
        ["order", "--model", LONG, "sample"],
        ["train", "--encoder", "cnn", "--data", "sample", "--output_dir", "{out}", "--objective", LONG],
        ["train", "--encoder", "cnn", "--data", "sample", "--output_dir", "{out}", "--seed", LONG],
        ["train", "--encoder", "cnn", "--data", "sample", "--output_dir", "{out}", "--learning_rate", "no " * 30_000],
        ["train", "--encoder", "cnn", "--data", LONG, "--output_dir", "{out}"],
        [LONG],
        ["order", f"--{LONG}"],
        ["evaluate", "--model", "{model}", "--data", "{file}", "--split", "all"],
    ],
)
def test_an_error_does_not_repeat_a_long_value(arguments: list[str], trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "column.csv").write_text(f"storyid,{LONG}\n1,b\n")
    places = {"{out}": tmp_path / "out", "{model}": trained.folder, "{file}": tmp_path / "column.csv"}
    result = run_command(*(places.get(argument, argument) for argument in arguments))
    assert result.code == 2 and result.err.count("\n") == 1
    assert "y" * 200 not in result.err and "no no " * 40 not in result.err and len(result.err) < 1000, result.err


def test_a_regular_expression_that_does_not_end_is_one_line(trained: Trained, tmp_path: Path) -> None:
    """tokenizers panics over it, and a panic is not an `Exception`."""
    folder = tmp_path / "model"
    shutil.copytree(trained.folder, folder, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["pre_tokenizer"] = {
        "type": "Split", "pattern": {"Regex": "(a|a|aa)+(a|a)+$"}, "behavior": "Isolated", "invert": False,
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"}))
    (tmp_path / "stories.jsonl").write_text(json.dumps({"sentences": ["a" * 40 + "c", "It rained."]}) + "\n")
    result = run_command("order", "--model", folder, tmp_path / "stories.jsonl")
    assert result.code in (1, 2) and "retry-limit" in result.err and "Traceback" not in result.err, result.err
    result = run_command("evaluate", "--model", folder, "--data", tmp_path / "stories.jsonl", "--split", "all")
    assert result.code == 2 and result.err.count("\n") == 1 and "retry-limit" in result.err, result.err


@pytest.mark.parametrize("pattern", ["(?<n", "(" * 10_000 + ")" * 10_000])
def test_a_regular_expression_that_is_none_is_one_line(pattern: str, trained: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(trained.folder, folder, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"Regex": pattern}, "content": ""}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    result = run_command("order", "--model", folder, trained.home / "stories.jsonl")
    assert (result.code, result.err.count("\n")) == (2, 1) and "is damaged" in result.err, result.err


def test_a_vocabulary_beyond_all_memory_is_refused(tmp_path: Path) -> None:
    flags = ["--encoder", "cnn", "--data", "sample", "--output_dir", str(tmp_path / "out")]
    result = run_command("train", *flags, "--vocab_size", str(10**18))
    assert (result.code, result.err.count("\n")) == (2, 1) and "vocab_size" in result.err


def test_any_other_panic_is_one_line(monkeypatch: pytest.MonkeyPatch, trained: Trained) -> None:
    panic = type("PanicException", (BaseException,), {})

    def fail(*_: object, **__: object) -> None:
        raise panic("capacity overflow")

    monkeypatch.setattr("training.commands.evaluate.run", fail)
    result = run_command("evaluate", "--model", trained.folder, "--data", "sample")
    assert (result.code, result.err.count("\n")) == (2, 1) and "capacity overflow" in result.err
