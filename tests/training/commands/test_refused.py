"""Refused, by every command that is handed it: exit code 2, one line that says what and where, and nothing touched.

What is wrong with flags, recipes and single commands is in `test_bad_input`; here are files and models that are wrong,
and values that are impossible, for each command that takes them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.training.bad_files import CONTENT, make_unreadable, write_bad_encoders, write_bad_files, write_bad_models
from tests.training.conftest import Trained, run_command

DATA_COMMANDS = {
    "train": "train --encoder {encoder} --output_dir {out} --data",
    "evaluate": "evaluate --model {model} --split all --data",
    "build": "build --output_dir {out} --data",
    "compare": "compare --encoders {encoder} --output_dir {out} --data",
    "order": "order --model {model}",
}
DATA = [
    *CONTENT,
    "cut.parquet",
    "latin.parquet",
    "damaged.parquet",
    "column.parquet",
    "type.parquet",
    "missing.jsonl",
    "unreadable.jsonl",
]
# Data are read by the same code for all commands but `order`, and values checked by the same for `train` and `compare`:
# of most it is enough to see it once in every run.
FEW = ("empty.txt", "binary.jsonl", "column.csv", "cut.parquet", "missing.jsonl", "unreadable.jsonl")
DATA_CASES = [
    pytest.param(command, name, marks=[] if command in ("evaluate", "order") or name in FEW else pytest.mark.slow)
    for command in DATA_COMMANDS
    for name in DATA
]
MODEL_COMMANDS = {
    "train": "train --data {data} --output_dir {out} --encoder",
    "evaluate": "evaluate --data {data} --split all --model",
    "order": "order {data} --model",
    "push": "push --repo_id somebody/model --model",
    "export": "export --output {out} --model",
    "demo": "demo --export {out} --model",
    "compare": "compare --data {data} --output_dir {out} --encoders",
}
MODELS = [
    "no-weights", "cut-weights", "empty-weights", "other-weights", "pickled-weights", "torch-weights",
    "pytorch-weights", "no-config", "broken-config", "list-config", "binary-config", "other-config",
    "no-tokenizer", "broken-tokenizer", "other-tokenizer",
]  # fmt: skip
# Flag, impossible value, what is said; for the commands that have the flag.
VALUES = [
    (["train", "compare"], "learning_rate", ["-1", "0", "inf", "nan", "much"]),
    (["train", "compare"], "num_train_epochs", ["0", "-1", "nan"]),
    (["train", "compare"], "per_device_train_batch_size", ["0", "-4", "1.5", ""]),
    (["train", "compare"], "per_device_eval_batch_size", ["0"]),
    (["train", "compare"], "gradient_accumulation_steps", ["0"]),
    (["train", "compare"], "max_steps", ["0", "-2"]),
    (["train", "compare"], "warmup_steps", ["-1"]),
    (["train", "compare"], "eval_steps", ["0"]),
    (["train", "compare"], "logging_steps", ["0"]),
    (["train", "compare"], "max_grad_norm", ["-1"]),
    (["train", "compare"], "adam_beta1", ["1"]),
    (["train", "compare"], "weight_decay", ["-0.1"]),
    (["train", "compare"], "vocab_size", ["0"]),
    (["train", "compare"], "objective", ["nothing"]),
    (["train"], "seed", ["-1", "4294967296"]),
    (["compare"], "seeds", ["-1", "x"]),
    (["train", "compare", "build", "evaluate"], "test_size", ["0", "1", "-0.5", "nan", "inf"]),
    (["train", "compare", "build", "evaluate"], "validation_size", ["0", "1.5"]),
    (["train", "compare", "build", "evaluate"], "data_seed", ["-1", "x"]),
    (["evaluate"], "per_device_eval_batch_size", ["0", "-1", "x"]),
    (["evaluate", "order"], "num_permutations", ["0", "-1", "1.5"]),
    (["order"], "batch_size", ["0", "-1", "many"]),
]
ENOUGH = {
    "train": "train --encoder cnn --data {data} --output_dir {out}",
    "compare": "compare --encoders cnn --data {data} --output_dir {out}",
    "build": "build --data {data} --output_dir {out}",
    "evaluate": "evaluate --model {model} --data {data}",
    "order": "order --model {model} {data}",
    "push": "push --model {model} --repo_id somebody/model",
    "export": "export --model {model} --output {out}",
    "demo": "demo --model {model} --export {out}",
}


@pytest.fixture(autouse=True)
def nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused before; and should it not be, the test fails at once."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the command goes on to train")

    monkeypatch.setattr("training.runs.comparison._run_in_process", fail)
    monkeypatch.setattr("training.runs.run_recipe._train", fail)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("files")
    return folder, write_bad_files(folder)


@pytest.fixture(scope="module")
def models(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("models")
    return folder, write_bad_models(folder, trained.folder, trained.home / "tiny-bert")


def refuse(arguments: str, *more: str | os.PathLike[str], trained: Trained, out: Path) -> str:
    """Runs a command that must be refused, and leave no trace; what it says."""
    places = {
        "model": trained.folder,
        "encoder": trained.home / "tiny-bert",
        "data": trained.home / "stories.jsonl",
        "out": out,
    }
    result = run_command(*arguments.format(**places).split(), *more)
    assert (result.code, result.out) == (2, ""), result
    assert result.err.count("\n") == 1, result.err
    assert result.err.startswith("sentence-ordering: ")
    assert not out.exists()
    return result.err


@pytest.mark.parametrize(("command", "name"), DATA_CASES)
def test_data(command: str, name: str, files: tuple[Path, dict[str, str]], trained: Trained, tmp_path: Path) -> None:
    folder, said = files
    path = folder / name
    if name.startswith("unreadable") and os.access(path.resolve(), os.R_OK) and not path.is_symlink():
        pytest.skip("this user may read everything")
    message = refuse(DATA_COMMANDS[command], path, trained=trained, out=tmp_path / "out")
    assert said[name] in message
    assert name in message


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".txt"])
@pytest.mark.parametrize("command", DATA_COMMANDS)
def test_a_folder_in_the_place_of_a_file(command: str, suffix: str, trained: Trained, tmp_path: Path) -> None:
    folder = tmp_path / f"stories{suffix}"
    folder.mkdir()
    message = refuse(DATA_COMMANDS[command], folder, trained=trained, out=tmp_path / "out")
    assert "no file of stories in this folder" in message


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("command", MODEL_COMMANDS)
def test_model(command: str, name: str, models: tuple[Path, dict[str, str]], trained: Trained, tmp_path: Path) -> None:
    folder, said = models
    if command in ("train", "compare") and name == "other-config":
        pytest.skip("an encoder to train")
    message = refuse(MODEL_COMMANDS[command], folder / name, trained=trained, out=tmp_path / "out")
    assert name in message
    if command in ("evaluate", "order", "export", "demo"):
        assert said[name] in message
    assert not (folder / "sprung").exists(), "code in the file was executed"


@pytest.mark.parametrize("name", ["pickled", "bare-pickle", "own-code"])
@pytest.mark.parametrize("command", ["train", "compare"])
def test_an_encoder_that_would_run_code(
    command: str, name: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody is asked whether it may."""
    asked: list[str] = []

    def answer(question: str = "") -> str:
        asked.append(question)
        return "y"

    monkeypatch.setattr("builtins.input", answer)
    said = write_bad_encoders(tmp_path, trained.home / "tiny-bert")
    message = refuse(MODEL_COMMANDS[command], tmp_path / name, trained=trained, out=tmp_path / "out")
    assert name in message and said[name] in message
    assert not asked and not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("value", ["!!python/object/apply:os.mkdir[sprung]", "["])
def test_a_value_for_one_encoder_alone(
    value: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refuse(MODEL_COMMANDS["compare"], f"cnn,learning_rate={value}", trained=trained, out=tmp_path / "out")
    assert value in message and not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("command", "flag", "value"),
    [
        pytest.param(command, flag, value, marks=pytest.mark.slow if command == "compare" and number else [])
        for commands, flag, values in VALUES
        for command in commands
        for number, value in enumerate(values)
    ],
)
def test_value(command: str, flag: str, value: str, trained: Trained, tmp_path: Path) -> None:
    message = refuse(ENOUGH[command], f"--{flag}={value}", trained=trained, out=tmp_path / "out")
    # compare has --seeds, of which each is a run's --seed; and where data are split, --data_seed is the seed.
    assert flag.removeprefix("data_").removesuffix("s") in message


@pytest.mark.parametrize("command", ENOUGH)
def test_the_nearest_flag_is_named(command: str, trained: Trained, tmp_path: Path) -> None:
    flag = {
        "order": "--batch_size",
        "push": "--commit_message",
        "evaluate": "--num_permutations",
        "export": "--quantize",
        "demo": "--port",
    }.get(command, "--data_seed")
    message = refuse(ENOUGH[command], flag[:-1], "1", trained=trained, out=tmp_path / "out")
    assert f"did you mean {flag}?" in message


@pytest.mark.parametrize("command", ["train", "build", "compare", "export", "demo"])
def test_a_folder_that_is_not_empty_is_not_touched(command: str, trained: Trained, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious.txt").write_text("years of work")
    places = {"data": trained.home / "stories.jsonl", "out": out, "model": trained.folder}
    result = run_command(*ENOUGH[command].format(**places).split())
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "empty" in result.err
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("precious.txt", "years of work")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


# Names of nothing: each flag that takes a file, a folder or a repository, and what of its command stands before it.
BLANK = [
    *("order --model {model}", "order {data} --model", "order --model {model} {data} --output"),
    *("evaluate --data {data} --model", "evaluate --model {model} --data"),
    "evaluate --model {model} --data {data} --split all --output_json",
    *("build --output_dir {out} --data", "build --data {data} --output_dir"),
    *("train --data {data} --output_dir {out} --encoder", "train --encoder cnn --output_dir {out} --data"),
    *("train --encoder cnn --data {data} --output_dir", "train --config"),
    "train --encoder cnn --data {data} --output_dir {out} --validation_data",
    *("compare --data {data} --output_dir {out} --encoders", "compare --encoders cnn --output_dir {out} --data"),
    *("compare --encoders cnn --data {data} --output_dir", "export --model", "export --model {model} --output"),
    *("demo --export {out} --model", "demo --model {model} --export"),
    *("push --repo_id a/b --model", "push --repo_id a/b --space", "push --model {model} --repo_id"),
]
NO_NAMES = {"empty": "", "white": " \t", "long": "x" * 300}


@pytest.mark.parametrize("value", NO_NAMES)
@pytest.mark.parametrize("arguments", BLANK)
def test_a_name_that_names_nothing(
    arguments: str, value: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suffix = ".jsonl" if value == "long" and arguments.endswith("--output") else ""
    refuse(arguments, NO_NAMES[value] + suffix, trained=trained, out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["train", "compare"])
@pytest.mark.parametrize("name", ["none.yaml", "folder", "unreadable"])
def test_a_recipe_that_cannot_be_read(command: str, name: str, trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    make_unreadable(tmp_path / "unreadable")
    path = tmp_path / name
    if name == "unreadable" and os.access(path.resolve(), os.R_OK) and not path.is_symlink():
        pytest.skip("this user may read everything")
    assert str(path) in refuse(ENOUGH[command], "--config", path, trained=trained, out=tmp_path / "out")


@pytest.mark.parametrize("content", [b"\0\0\0", b"\xff\xfe", b"seed: [1", b"seed: 1\nseed\n", b"", b"- seed\n",
    b"!!python/object/apply:os.mkdir [sprung]", b"seed: !!python/name:os.system", b"a: &a [*a, *a]"])  # fmt: skip
@pytest.mark.parametrize("command", ["train", "compare"])
def test_recipe(
    command: str, content: bytes, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """YAML that is none, or would be code if it were not loaded safely."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_bytes(content)
    message = refuse(ENOUGH[command], "--config", "recipe.yaml", trained=trained, out=tmp_path / "out")
    assert "recipe" in message
    assert not (tmp_path / "sprung").exists()


def test_what_a_terminal_would_obey_is_spelled_out(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "stories.csv"
    path.write_text("\x1b[2J\x07,b\n")
    assert r"\x1b[2J\x07" in refuse(DATA_COMMANDS["train"], path, trained=trained, out=tmp_path / "out")
