"""Commands that are ended at two random moments each; `kill_many_times.py` has the long version."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.hostile.kill_many_times import FRAMEWORKS, kill_many_times

COMMANDS = [*(f"train-{framework}" for framework in FRAMEWORKS), "train-streamed-trainer", "order", "compare", "push"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("command", COMMANDS)
def test_the_end_is_the_same(command: str, number: signal.Signals, tmp_path: Path) -> None:
    assert kill_many_times(tmp_path, 2, [command], number) == []
