"""Of several processes that fail, one prints why, at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.system.console import report_failure


def test_only_the_first_process_that_fails_prints_and_all_tell_the_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, message in ((1, "the disk is full"), (0, "another process has failed")):
        error_file = tmp_path / str(rank) / "error.json"
        error_file.parent.mkdir()
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(error_file))
        report_failure(message)
        assert json.loads(error_file.read_text(encoding="utf-8"))["message"] == message
    assert capsys.readouterr().err == "sentence-ordering: the disk is full\n"


def test_without_a_launcher_every_process_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    report_failure("the disk is full")
    assert capsys.readouterr().err == "sentence-ordering: the disk is full\n"
