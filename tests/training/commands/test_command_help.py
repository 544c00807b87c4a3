"""What one learns from the commands themselves: `--help`, the completion of a shell, and what `--quiet` leaves."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.training.conftest import TRAIN_FLAGS, Trained, run_command
from training.commands.command_line import COMMANDS, program_parser
from training.commands.parsing import SHELLS

ASK = """
source "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
function=$(complete -p sentence-ordering | sed -E 's/.*-F ([^ ]+).*/\\1/')
"$function" sentence-ordering "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_does_takes_and_writes(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = run_command(command, "--help").out
    assert "--quiet" in text and "--verbose" in text
    what, examples, writes = re.split(r"\n\nexamples?:\n|\n\nwhat it writes:\n", text)
    assert len(what) > 500 and len(writes) > 100
    assert max(map(len, writes.splitlines())) <= 80
    assert "(default: )" not in text and "None" not in text
    parser, _ = program_parser()
    for example in examples.splitlines():
        program, typed, *arguments = shlex.split(example)
        assert (program, typed) == ("sentence-ordering", command)
        parser.parse_args([command, *arguments])  # exits with an error if it cannot


@pytest.fixture(scope="module")
def completion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = run_command("--print-completion", "bash")
    assert (result.code, result.err) == (0, "")
    path = tmp_path_factory.mktemp("completion") / "sentence-ordering.bash"
    path.write_text(result.out, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        ("", list(COMMANDS)),
        ("tr", ["train"]),
        ("train --fram", ["--framework"]),
        ("train --framework ", ["trainer", "lightning", "poutyne"]),
        ("compare --encoders cnn --qui", ["--quiet"]),
        ("order --model some/model --out", ["--output", "--output_format"]),
        ("order --model my-", ["my-model"]),
        ("order --model my-model my-", ["my-model", "my-stories.txt"]),
        ("build --data my-", ["my-model", "my-stories.txt"]),
        ("train --output_dir my-", ["my-model"]),
    ],
)
def test_bash_completes_commands_flags_choices_and_files(
    words: str, answers: list[str], completion: Path, tmp_path: Path
) -> None:
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-stories.txt").touch()
    typed = ["sentence-ordering", *words.split(" ")]
    bash = ["bash", "--norc", "-c", ASK, "bash", str(completion), *typed]
    result = subprocess.run(bash, cwd=tmp_path, capture_output=True, text=True)
    assert result.stderr == ""
    assert sorted(result.stdout.split()) == sorted(answers)


def test_completion_is_for_the_shells_that_help_names(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in SHELLS:
        result = run_command(f"--print-completion={shell}")
        assert result.code == 0 and "sentence-ordering" in result.out and "per_device_train_batch_size" in result.out
    result = run_command("--print-completion", "cmd")
    assert result.code == 2 and "'cmd'" in result.err and "bash" in result.err


def test_quiet_commands_say_their_result_alone(trained: Trained, tmp_path: Path, home: Path) -> None:
    data = home / "stories.jsonl"
    loud, quiet = (run_command("evaluate", "--model", trained.folder, "--data", data, *flags)
                   for flags in ((), ("--quiet",)))  # fmt: skip
    assert loud.out.startswith(quiet.out + "\nnext: ") and quiet.err == ""
    loud, quiet = (run_command("order", "--model", trained.folder, data, *flags) for flags in ((), ("--quiet",)))
    assert loud.out == quiet.out != "" and (quiet.code, quiet.err) == (0, "")
    for command in (
        "build --data {data} --output_dir {out}/built",
        "order --model {model} {data} --output {out}/o.csv",
    ):
        words = command.format(data=data, out=tmp_path, model=trained.folder).split()
        result = run_command(*words, "--quiet")
        assert (result.code, result.out, result.err) == (0, "", "")
    assert (tmp_path / "built" / "README.md").exists() and (tmp_path / "o.csv").exists()


def test_quiet_training_says_nothing_and_other_training_ends_with_what_is_next(
    home: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(home)
    out = tmp_path / "out"
    result = run_command("train", *TRAIN_FLAGS, "--max_steps", "1", "--output_dir", out, "--quiet")
    assert (result.code, result.out, result.err) == (0, "", "")
    assert (out / "model.safetensors").exists()
    assert trained.command.out.splitlines()[-1] == "next: sentence-ordering order --model my-model YOUR_STORIES.txt"
