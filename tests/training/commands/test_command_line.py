"""Exit codes: 0 done, 1 failed for a reason outside of the input, 2 bad input, 130 interrupted; each in one line."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from dataset_builder import UserError
from tests.training.conftest import Command, Trained, run_command
from training.commands import command_line
from training.commands.command_line import COMMANDS, main
from training.system import console
from training.system.errors import CommandFailed

ROOT = Path(__file__).parents[3]
RunsAs = Callable[..., Command]


@pytest.fixture
def runs_as(monkeypatch: pytest.MonkeyPatch) -> RunsAs:
    """Calls a command that is this function."""
    for library in ("TRANSFORMERS", "DATASETS", "HF_HUB"):  # --verbose sets them for the process
        monkeypatch.setenv(f"{library}_VERBOSITY", "error")

    def call(function: Callable[[], int], *flags: str) -> Command:
        module = types.SimpleNamespace(
            SUMMARY="Does it.", add_arguments=lambda parser: None, run=lambda options: function()
        )
        monkeypatch.setitem(command_line.COMMANDS, "made-up", module)
        return run_command("made-up", *flags)

    return call


def fails_with(error: BaseException) -> Callable[[], int]:
    def fail() -> int:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("stories.csv, row 3: no\n  sentence"), 2, "stories.csv, row 3: no sentence"),
        (FileNotFoundError(2, "No such file or directory", "a.csv"), 1, "a.csv: No such file or directory"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (OSError("the Hub is not there\nreally"), 1, "the Hub is not there really"),
        (CommandFailed("the loss is nan"), 1, "the loss is nan"),
        (MemoryError(), 1, "MemoryError"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_each_error_has_its_code_and_one_line(error: BaseException, code: int, line: str, runs_as: RunsAs) -> None:
    assert runs_as(fails_with(error)) == Command(code, "", f"sentence-ordering: {line}\n")


def made_up_process(folder: Path, body: str, **variables: str) -> tuple[int, str]:
    """A process of its own whose command `order` does this; its exit code, and what it says on standard error."""
    (folder / "made_up.py").write_text(
        "import sys, threading, time\n"
        "from training.commands import command_line\n"
        "SUMMARY = ''\n"
        "def add_arguments(parser): pass\n"
        f"def run(options):\n    {body}\n"
        "command_line.COMMANDS['order'] = sys.modules[__name__]\n"
        "if __name__ == '__main__':\n"
        "    command_line.run_and_exit()\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])} | variables
    command = [sys.executable, "-m", "made_up", "order"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


def test_an_interrupt_within_the_run_of_a_text_is_no_end_by_a_signal(tmp_path: Path) -> None:
    ended = made_up_process(tmp_path, "exec('raise KeyboardInterrupt')")
    assert ended == (130, "sentence-ordering: interrupted\n")


def test_one_of_several_processes_that_fails_waits_for_no_thread(tmp_path: Path) -> None:
    """Not for those that speak with the others: taken down in order, they would abort the process."""
    speaks_on = "threading.Thread(target=time.sleep, args=(600,)).start()"
    body = f"{speaks_on}; import dataset_builder; raise dataset_builder.UserError('stories.csv: no stories')"
    ended = made_up_process(tmp_path, body, RANK="0", WORLD_SIZE="2")
    assert ended == (2, "sentence-ordering: stories.csv: no stories\n")


def test_what_a_command_answers_is_the_exit_code(runs_as: RunsAs) -> None:
    assert runs_as(lambda: 0) == Command(0, "", "")
    assert runs_as(lambda: 1) == Command(1, "", "")
    assert runs_as(fails_with(SystemExit(0))).code == 0
    assert runs_as(fails_with(SystemExit(2))).code == 2


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, TypeError, KeyError])
def test_an_unexpected_exception_is_not_bad_input_and_is_to_be_reported(kind: type[Exception], runs_as: RunsAs) -> None:
    result = runs_as(fails_with(kind("shapes")))
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert all(fact in result.err for fact in (kind.__name__, "shapes", "report", "--verbose")), result.err


def test_a_warning_is_a_line_of_its_own(runs_as: RunsAs) -> None:
    def warn() -> int:
        warnings.warn("the disk\nis slow", stacklevel=1)
        return 0

    assert runs_as(warn) == Command(0, "", "sentence-ordering: note: the disk is slow\n")


def test_quiet_leaves_the_result_and_errors(runs_as: RunsAs) -> None:
    calls = iter("abc")  # Python repeats no warning

    def speak() -> int:
        console.say("wrote a file")
        console.say("run 1 of 2", sys.stderr)
        console.note("the disk is slow")
        warnings.warn(f"the disk is full: {next(calls)}", stacklevel=1)
        print("the result")
        console.complain("the disk is gone")
        return 1

    assert runs_as(speak, "--quiet") == Command(1, "the result\n", "sentence-ordering: the disk is gone\n")
    for flags in ((), ("--verbose",)):  # and the one before is over
        loud = runs_as(speak, *flags)
        assert loud.out == "wrote a file\nthe result\n"
        assert len(loud.err.splitlines()) == 4 + len(flags)


def test_quiet_shows_no_progress_bar_on_a_terminal_either(runs_as: RunsAs) -> None:
    def is_terminal() -> int:
        sys.stderr.write("")
        return int(sys.stderr.isatty())

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, "StringIO", Terminal)
        assert [runs_as(is_terminal, *flags).code for flags in ((), ("--quiet",))] == [1, 0]


def test_verbose_shows_where_it_failed_and_with_what(runs_as: RunsAs) -> None:
    def fail() -> int:
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        raise UserError("no sentence")

    result = runs_as(fail, "--verbose")
    warning, first, *trace, words, last = result.err.splitlines()
    assert (result.code, result.out) == (2, "")
    assert "note: old (DeprecationWarning in " in warning and __file__ in warning
    assert first.startswith("Traceback") and any(", in fail" in line for line in trace)
    assert words == "sentence-ordering: no sentence"
    assert re.fullmatch(r"sentence-ordering: exit code 2 after \d+\.\d s, Python .*, torch .*, transformers .*", last)
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"


@pytest.mark.parametrize("command", COMMANDS)
def test_quiet_or_verbose_but_not_both(command: str) -> None:
    result = run_command(command, "--quiet", "--verbose")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert "--verbose: not allowed with argument --quiet" in result.err


@pytest.mark.parametrize(
    ("command", "facts"),
    [
        ("train --lerning_rate 3", ["--lerning_rate", "did you mean --learning_rate?", "train --help"]),
        ("trian", ["'trian'", "did you mean train?", "evaluate"]),
        ("evaluate --model x --data y --split tset", ["split 'tset'", "did you mean test?", "validation"]),
        ("demo --model x --port 70000", ["--port", "between 1 and 65535", "70000"]),
        ("order --model x --batch_size 0", ["--batch_size", "at least 1", "0"]),
        ("order --model", ["--model", "expected one argument"]),
    ],
)
def test_an_argument_that_is_refused_is_named_with_what_is_allowed(command: str, facts: list[str]) -> None:
    result = run_command(*command.split())
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert all(fact in result.err for fact in facts) and "argument --" not in result.err, result.err


def test_the_arguments_are_those_of_the_process_unless_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sentence-ordering", "nothing"])
    assert main() == 2
    assert "'nothing'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        "train --encoder somebody/encoder --data {data} --output_dir {out}",
        "evaluate --model somebody/model --data {data}",
        "order --model somebody/model {data}",
        "export --model somebody/model --output {out}",
        "demo --model somebody/model --export {out}",
        "compare --encoders somebody/encoder --data {data} --output_dir {out}",
    ],
)
def test_a_hub_that_cannot_be_reached_is_no_fault_of_the_input(
    arguments: str, trained: Trained, tmp_path: Path
) -> None:
    """The tests are offline."""
    places = {"data": trained.home / "stories.jsonl", "out": tmp_path / "out"}
    result = run_command(*[argument.format(**places) for argument in arguments.split()])
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert "somebody/" in result.err
    assert "connect" in result.err
