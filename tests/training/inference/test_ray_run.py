"""Answers as a folder of files: each record once, also after an interruption. Without Ray; `test_ray.py` runs it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.training.conftest import Command, Trained, run_command
from tests.training.made_up import made_up_stories
from training.inference import ray_run
from training.inference.ray_cluster import model_digests
from training.inference.ray_run import OrderPart, RayRun
from training.system.errors import CommandFailed

STORIES = made_up_stories(23, shortest=2, longest=6, seed=11)
SETTINGS: dict[str, Any] = {"num_permutations": 1, "split_sentences": None}


def write_folder(folder: Path, stories: Sequence[Sequence[str]] = STORIES) -> Path:
    """Three files with 23 stories and a bad line."""
    folder.mkdir()
    for name, (start, end) in {"a": (0, 9), "b": (9, 10), "c": (10, 23)}.items():
        lines = [json.dumps({"storyid": f"story-{i}", "sentences": stories[i]}) for i in range(start, end)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with (folder / "b.jsonl").open("a", encoding="utf-8") as file:
        file.write("\nno JSON\n")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "stories")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "ordered").mkdir()
    return tmp_path / "ordered"


def open_run(trained: Trained, folder: Path, output: Path, output_format: str = "jsonl", **changes: Any) -> RayRun:
    settings = {**SETTINGS, **changes}
    part_size = settings.pop("part_size", 5)
    inputs = sorted(str(path) for path in folder.iterdir())
    model = {**model_digests(trained.folder), **settings.pop("model", {})}
    return RayRun(inputs, output, model=model, settings=settings, part_size=part_size, output_format=output_format)


def work(run: RayRun, trained: Trained, at_most: int = 100, **changes: Any) -> list[dict[str, Any]]:
    """What the workers do, in this process: the summary of each part."""
    worker = OrderPart(str(trained.folder), str(run.output), **{**SETTINGS, **changes})
    columns = [worker({name: [value] for name, value in part.items()}) for part in run.missing()[:at_most]]
    return [{name: values[0] for name, values in summary.items()} for summary in columns]


def read(output: Path) -> list[dict[str, Any]]:
    paths = sorted(output.glob("part-*"))
    if paths[0].suffix == ".parquet":
        return [row for path in paths for row in pq.read_table(path).to_pylist()]
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


def order(trained: Trained, *arguments: Any) -> Command:
    return run_command("order", "--model", trained.folder, *map(str, arguments))


@pytest.mark.parametrize("output_format", ["jsonl", "parquet"])
def test_the_answers_are_those_of_one_process(
    output_format: str, trained: Trained, folder: Path, output: Path, tmp_path: Path
) -> None:
    single = tmp_path / f"all.{output_format}"
    assert order(trained, folder, "--output", single).code == 1  # for the bad line
    run = open_run(trained, folder, output, output_format)
    work(run, trained)
    summaries = run.close()
    rows = read(output)
    if output_format == "jsonl":
        expected = [json.loads(line) for line in single.read_text(encoding="utf-8").splitlines()]
    else:
        expected = pq.read_table(single).to_pylist()
    assert [{k: v for k, v in row.items() if k not in ("file", "row", "scores", "confidence")} for row in rows] == [
        {k: v for k, v in row.items() if k not in ("scores", "confidence")} for row in expected
    ]
    assert len({(row["file"], row["row"]) for row in rows}) == len(rows) == 24
    assert (rows[10]["file"], rows[10]["row"], "no" in rows[10]["error"].lower()) == ("b.jsonl", 2, True)
    assert (sum(s.records for s in summaries), sum(s.failed for s in summaries)) == (24, 1)
    assert (output / "_SUCCESS").exists()


def test_what_is_written_is_not_ordered_again(trained: Trained, folder: Path, output: Path) -> None:
    run = open_run(trained, folder, output)
    with pytest.raises(CommandFailed, match="4 of 6"):
        work(run, trained, 2)
        run.close()
    (output / ".part-00003.jsonl.unfinished-4711.jsonl").write_text("half of a li", encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in output.glob("part-*")}
    again = open_run(trained, folder, output)
    assert len(before) == 2 and len(again.missing()) == 4
    work(again, trained)
    assert sum(summary.records for summary in again.close()) == len(read(output)) == 24
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not list(output.glob(".part*"))


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("{")])
def test_a_file_that_is_gone_or_cut_is_written_again(damage: Any, trained: Trained, folder: Path, output: Path) -> None:
    run = open_run(trained, folder, output)
    work(run, trained)
    damage(output / "part-00001.jsonl")
    assert [part["file"] for part in run.missing()] == ["part-00001.jsonl"]


def test_a_part_that_two_workers_write_is_there_once(trained: Trained, folder: Path, output: Path) -> None:
    run = open_run(trained, folder, output)
    part = run.missing()[0]
    work(run, trained)
    (output / "_order" / f"{part['file']}.json").unlink()  # the worker was killed before it wrote the summary
    work(run, trained)
    run.close()
    assert len(read(output)) == 24


def replace_word(folder: Path) -> None:
    """Changes a file, but neither its size nor its times."""
    path = folder / "c.jsonl"
    there = path.stat()
    path.write_bytes(path.read_bytes().replace(b"rained", b"snowed"))
    os.utime(path, ns=(there.st_atime_ns, there.st_mtime_ns))
    assert path.stat().st_size == there.st_size


@pytest.mark.parametrize(
    ("change", "changes", "named"),
    [
        (replace_word, {}, "c.jsonl"),
        (lambda folder: shutil.copy(folder / "a.jsonl", folder / "d.jsonl"), {}, "d.jsonl"),
        (None, {"num_permutations": 2}, "num_permutations"),
        (None, {"ties": 0.9}, "ties"),
        (None, {"part_size": 6}, "part_size"),
        (None, {"output_format": "parquet"}, "output_format"),
        (None, {"model": {"model.safetensors": "0"}}, "model.safetensors"),
    ],
)
def test_another_run_is_refused(
    change: Any, changes: dict[str, Any], named: str, trained: Trained, folder: Path, output: Path
) -> None:
    work(open_run(trained, folder, output), trained)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    if change is not None:
        change(folder)
    with pytest.raises(ValueError, match=named):
        open_run(trained, folder, output, **changes)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_a_folder_with_other_files_is_refused(trained: Trained, folder: Path, output: Path) -> None:
    (output / "cat.png").write_bytes(b"cat")
    with pytest.raises(ValueError, match="other files"):
        open_run(trained, folder, output)
    assert [path.name for path in output.iterdir()] == ["cat.png"]


def test_a_part_that_ends_its_worker_again_and_again(
    trained: Trained, folder: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any) -> None:
        raise KeyboardInterrupt  # anything that is not caught

    run = open_run(trained, folder, output)
    with monkeypatch.context() as patch:
        patch.setattr(ray_run, "write_rows", dies)
        for _ in range(5):
            with pytest.raises(KeyboardInterrupt):
                work(run, trained, 1)
    (summary,) = work(run, trained, 1)
    assert "a.jsonl" in summary["failure"] and "5 times" in summary["failure"] and not summary["is_input"]


def test_failures_of_the_disk_and_the_input(trained: Trained, folder: Path, output: Path) -> None:
    run = open_run(trained, folder, output)
    os.utime(folder / "a.jsonl", ns=(1, 1))
    assert [summary["is_input"] for summary in work(run, trained, 1)] == [True]
    (output / "part-00002.jsonl").mkdir()
    (summary,) = [summary for summary in work(run, trained) if summary["file"] == "part-00002.jsonl"]
    assert "part-00002.jsonl" in summary["failure"] and not summary["is_input"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["{folder}", "--output", "{output}/new"], "--engine ray"),
        (["{folder}", "--part_size", "5"], "--engine ray"),
        (["{folder}", "--address", "auto"], "--engine ray"),
        (["{folder}", "--engine", "ray"], "--output"),
        (["{folder}", "--engine", "ray", "--output", "{folder}/a.jsonl"], "a.jsonl"),
    ],
)
def test_options_that_do_not_fit(
    arguments: list[str], named: str, trained: Trained, folder: Path, output: Path
) -> None:
    refused = order(trained, *(word.format(folder=folder, output=output) for word in arguments))
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert named in refused.err


def test_without_the_extra(trained: Trained, folder: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.inference.ray_cluster.find_spec", lambda name: None if name == "ray" else name)
    refused = order(trained, folder, "--engine", "ray", "--output", output)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert "pip install 'sentence-ordering[ray]'" in refused.err
    assert list(output.iterdir()) == []


def test_a_whole_output_needs_no_ray(
    trained: Trained, folder: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--output", output, "--engine", "ray", "--part_size", 5]
    given: dict[str, Any] = {"backend": "torch", "bf16": False, "batch_size": None, "batch_tokens": 8192}
    given |= {"pairwise": False, "ties": None, "moves": False}
    work(open_run(trained, folder, output, **given), trained)
    monkeypatch.setattr("training.inference.ray_cluster.find_spec", lambda name: name)
    done = order(trained, folder, *options)
    assert done.code == 1 and "24" in done.out and "b.jsonl, row 2" in done.err
