"""Nobody reads, or nobody can: as with other tools of a shell, that is no error, and no traceback is shown.

`order … | head -1` is in `test_order_command`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.conftest import Trained

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "training.commands.command_line"]


@pytest.fixture
def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])}


@pytest.mark.parametrize(
    "arguments", ["--version", "--help", pytest.param("--print-completion bash", marks=pytest.mark.slow)]
)
def test_a_pipe_that_is_closed_at_once(arguments: str, environment: dict[str, str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, *arguments.split()], env=environment, stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("closed", "arguments", "code"), [(">&-", "--version", 0), ("2>&-", "trian", 2), (">&- 2>&-", "trian", 2)]
)
def test_a_stream_that_is_not_there(closed: str, arguments: str, code: int, environment: dict[str, str]) -> None:
    shell = ["sh", "-c", f'exec "$0" "$@" {closed}', *COMMAND, *arguments.split()]
    done = subprocess.run(shell, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@pytest.mark.slow
def test_no_stream_is_there(trained: Trained, environment: dict[str, str]) -> None:
    """Nothing is read from what is closed: there is no story, and that is no error either."""
    order = [*COMMAND, "order", "--model", str(trained.folder)]
    done = subprocess.run(["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', *order], env=environment)
    assert done.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_the_version_cannot_be_written(environment: dict[str, str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "--version"], env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "sentence-ordering: No space left on device\n")
