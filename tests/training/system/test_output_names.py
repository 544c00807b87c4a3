"""An output over an input is refused before anything is read, for every command and every pair of paths."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.conftest import Trained, run_command

Given = dict[str, Path]
PAIRS: list[tuple[str, str]] = [
    ("order --model {model} {data} --output", "{data}"),
    ("order --model {model} {data} --output", "{link}"),
    ("order --model {model} {data} --output", "{hard}"),
    ("order --model {model} {data} --output", "{relative}"),
    ("order --model {model} {data} --output", "{model}/answers.jsonl"),
    ("order --model {model} {folder} --output", "{folder}"),
    ("order --model {model} {folder} --output", "{linked}"),
    ("order --model {model} {folder} --output", "{folder}/answers.jsonl"),
    ("order --model {model} {data} --engine ray --output", "{model}/answers"),
    ("evaluate --model {model} --data {data} --output_json", "{data}"),
    ("evaluate --model {model} --data sample {link} --output_json", "{hard}"),
    ("evaluate --model {model} --data {folder} --output_json", "{folder}/metrics.json"),
    ("evaluate --model {model} --data {data} --output_json", "{model}/metrics.json"),
    ("evaluate --model {model} --data {data} --output_json", "{model}/config.json"),
    ("evaluate --model {model_link} --data {data} --output_json", "{model}/onnx/metrics.json"),
    ("build --data {folder} --output_dir", "{folder}"),
    ("train --encoder {encoder} --data {folder} --overwrite_output_dir --output_dir", "{linked}"),
    ("train --encoder cnn --data sample --validation_data {folder} --output_dir", "{folder}"),
    ("train --encoder {encoder} --data {data} --output_dir", "{encoder}"),
    ("train --encoder {encoder} --data {data} --output_dir", "{encoder}/mine"),
    ("train --encoder {encoder} --data {data} --overwrite_output_dir --output_dir", "{folder}"),
    ("train --encoder {folder}/encoder --data sample --overwrite_output_dir --output_dir", "{folder}"),
    ("compare --encoders cnn {encoder},learning_rate=1e-4 --data {data} --output_dir", "{encoder}/compared"),
    ("compare --encoders cnn --data {folder} --output_dir", "{folder}"),
    ("export --model {model} --output", "{model}/exported"),
    ("demo --model {model} --export", "{model}/space"),
]


@pytest.fixture
def given(trained: Trained, tmp_path: Path) -> Given:
    folder, model, encoder = tmp_path / "folder", tmp_path / "model", tmp_path / "encoder"
    folder.mkdir()
    shutil.copytree(trained.folder, model, ignore=shutil.ignore_patterns("checkpoints"))
    shutil.copytree(trained.home / "tiny-bert", encoder)
    shutil.copytree(encoder, folder / "encoder")
    data = folder / "stories.jsonl"
    shutil.copy(trained.home / "stories.jsonl", data)
    links = {"link": tmp_path / "link.jsonl", "linked": tmp_path / "linked", "model_link": tmp_path / "model-link"}
    for name, target in (("link", data), ("linked", folder), ("model_link", model)):
        links[name].symlink_to(target)
    hard = tmp_path / "hard.jsonl"
    os.link(data, hard)
    relative = folder / ".." / "folder" / "stories.jsonl"
    return {
        "folder": folder,
        "model": model,
        "encoder": encoder,
        "data": data,
        "hard": hard,
        "relative": relative,
        **links,
    }


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize(("command", "output"), PAIRS, ids=lambda text: text[:60])
def test_an_output_over_an_input_is_refused(
    command: str, output: str, given: Given, tmp_path: Path, unread: Callable[[], list[str]]
) -> None:
    before = contents(tmp_path)
    result = run_command(*command.format(**given).split(), output.format(**given))
    assert (result.code, result.err.count("\n"), result.out) == (2, 1, ""), result
    assert output.format(**given) in result.err or "{data}".format(**given) in result.err or "encoder" in result.err
    assert unread() == []
    assert contents(tmp_path) == before


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What was loaded or read, if anything."""
    from dataset_builder import story_files
    from modeling_sentence_ordering import SentenceOrderingModel

    calls: list[str] = []
    monkeypatch.setattr(SentenceOrderingModel, "from_pretrained", lambda *_, **__: calls.append("model"))
    monkeypatch.setattr(story_files, "open_bytes", lambda *_, **__: calls.append("stories"))
    return lambda: calls


def test_other_names_are_taken(given: Given, tmp_path: Path) -> None:
    for output in (tmp_path / "answers.jsonl", tmp_path / "model-answers.jsonl"):
        result = run_command("order", "--model", given["model"], given["data"], "--output", output)
        assert result.code == 0, result.err


def test_standard_input_is_an_input_too(given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "story.txt"
    path.write_text("It rained.\nHe slept.\n")
    before, kept = path.read_bytes(), os.dup(0)
    try:
        with path.open() as stream:
            os.dup2(stream.fileno(), 0)
            result = run_command("order", "--model", given["model"], "--output", path)
    finally:
        os.dup2(kept, 0)
        os.close(kept)
    assert result.code == 2 and str(path) in result.err and path.read_bytes() == before
