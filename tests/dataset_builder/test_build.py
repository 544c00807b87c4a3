"""`build_dataset` writes the rows of the script to a folder that `load_dataset` loads without a script."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub import DatasetCard

from dataset_builder import SAMPLE_FILE, build_dataset

WriteRoc = Callable[..., Path]
LoadScript = Callable[..., Any]

LOAD = """
import json, sys
import datasets
datasets.config.USE_PARQUET_EXPORT = False

folder, cache_dir, *names = sys.argv[1:]
rows = {name: datasets.load_dataset(folder, *([name] if name != "default" else []), cache_dir=cache_dir)
        for name in names}
print(json.dumps({name: {split: list(part) for split, part in splits.items()} for name, splits in rows.items()}))
"""


def load_in_process(python: str, folder: Path, cache_dir: Path, *names: str) -> dict[str, Any]:
    command = [python, "-c", LOAD, str(folder), str(cache_dir), *names]
    process = subprocess.run(command, cwd=cache_dir.parent, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def check_rows(python: str, write_roc: WriteRoc, load_script: LoadScript, tmp_path: Path) -> None:
    files = [str(write_roc(1_010, "a.csv")), str(write_roc(20, "b.csv", first=1_010))]
    built = build_dataset(files, tmp_path / "built", seed=5, test_size=0.3, validation_size=0.4)
    assert built.configurations == ("shuffled", "guide")
    loaded = load_in_process(python, tmp_path / "built", tmp_path / "fresh", "default", "guide")
    for ours, name in (("default", "shuffled"), ("guide", "guide")):
        script = load_script(name, data_files=files, seed=5, test_size=0.3, validation_size=0.4)
        assert list(loaded[ours]) == ["train", "validation", "test"]
        assert loaded[ours] == {split: list(part) for split, part in script.items()}
        assert built.stories == {split: len(part) for split, part in script.items()}


def test_plain_load_dataset_gives_the_rows_of_the_script(
    write_roc: WriteRoc, load_script: LoadScript, tmp_path: Path
) -> None:
    check_rows(sys.executable, write_roc, load_script, tmp_path)


def test_plain_load_dataset_of_datasets_5_gives_them_too(
    write_roc: WriteRoc, load_script: LoadScript, tmp_path: Path, datasets5_python: str
) -> None:
    check_rows(datasets5_python, write_roc, load_script, tmp_path)


def test_what_datasets_5_builds_datasets_3_loads(write_roc: WriteRoc, tmp_path: Path, datasets5_python: str) -> None:
    path = write_roc(30)
    code = "import sys; from dataset_builder import build_dataset; build_dataset(sys.argv[1:2], sys.argv[2])"
    root = Path(__file__).parents[2]
    command = [datasets5_python, "-c", code, str(path), str(tmp_path / "five")]
    process = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    build_dataset([str(path)], tmp_path / "three")
    for name in ("shuffled", "guide"):
        five, three = (
            datasets.load_dataset(str(tmp_path / folder), name, cache_dir=str(tmp_path / "cache"))
            for folder in ("five", "three")
        )
        assert {split: list(part) for split, part in five.items()} == {
            split: list(part) for split, part in three.items()
        }


def test_kept_splits_are_the_scripts(write_roc: WriteRoc, load_script: LoadScript, tmp_path: Path) -> None:
    train, test = str(write_roc(12, "train.csv")), str(write_roc(5, "test.csv", first=12))
    built = build_dataset([train, test], tmp_path / "built")
    assert (built.stories, built.sentences) == ({"train": 12, "test": 5}, {"train": 60, "test": 25})
    for name in ("shuffled", "guide"):
        script = load_script(name, data_files={"train": train, "test": test})
        loaded = datasets.load_dataset(str(tmp_path / "built"), name, cache_dir=str(tmp_path / "cache"))
        assert {split: list(part) for split, part in loaded.items()} == {
            split: list(part) for split, part in script.items()
        }


def test_stories_of_other_lengths_have_no_guide_configuration(tmp_path: Path) -> None:
    lines = [json.dumps({"sentences": [f"{n}.{place}" for place in range(5 + (n == 8))]}) for n in range(10)]
    (tmp_path / "stories.jsonl").write_text("\n".join(lines))
    built = build_dataset([str(tmp_path / "stories.jsonl")], tmp_path / "built")
    assert built.configurations == ("shuffled",)
    assert sorted(path.name for path in (tmp_path / "built").iterdir()) == ["README.md", "shuffled"]
    assert sum(built.sentences.values()) == 51


def test_the_code_on_the_card_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_dataset([SAMPLE_FILE], tmp_path / "path" / "to" / "this" / "folder")
    text = DatasetCard.load(tmp_path / "path" / "to" / "this" / "folder" / "README.md").text
    code = text.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    variables: dict[str, Any] = {}
    exec(code, variables)
    guide = datasets.load_dataset("path/to/this/folder", "guide")["test"][0]
    assert variables["in_order"] == [guide[f"sentence{number}"] for number in range(1, 6)]


def test_an_output_folder_with_something_in_it_is_refused(write_roc: WriteRoc, tmp_path: Path) -> None:
    path = str(write_roc(10))
    (tmp_path / "empty").mkdir()
    build_dataset([path], tmp_path / "empty")
    with pytest.raises(ValueError, match="empty: already exists and is not an empty folder"):
        build_dataset([path], tmp_path / "empty")
    with pytest.raises(ValueError, match=r"stories\.csv: already exists"):
        build_dataset([path], path)
    build_dataset([path], tmp_path / "a" / "new" / "folder")
    assert (tmp_path / "a" / "new" / "folder" / "README.md").is_file()


def test_a_build_that_could_not_be_pushed_is_taken_up_again(write_roc: WriteRoc, tmp_path: Path) -> None:
    path, folder = str(write_roc(10)), tmp_path / "built"
    first = build_dataset([path], folder, repo_id="alice/stories")
    times = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert build_dataset([path], folder, repo_id="alice/stories") == first
    others: list[dict[str, Any]] = [{"seed": 1}, {"repo_id": "alice/others"}, {"repo_id": None}]
    for other in others:
        with pytest.raises(ValueError, match="built: already exists and is not an empty folder"):
            build_dataset([path], folder, **{"repo_id": "alice/stories", **other})
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == times
    (folder / "mine.txt").touch()
    with pytest.raises(ValueError, match="built: already exists"):
        build_dataset([path], folder, repo_id="alice/stories")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("# Mine")
    with pytest.raises(ValueError, match="mine: already exists"):
        build_dataset([path], tmp_path / "mine", repo_id="alice/stories")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["built", "mine", "stories.csv"], "no unfinished folder"


def test_a_large_split_is_several_files(
    write_roc: WriteRoc, load_script: LoadScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_roc(3_400))
    built = build_dataset([path], tmp_path / "one")
    monkeypatch.setattr("dataset_builder.parquet_format.SHARD_BYTES", 200_000)
    assert build_dataset([path], tmp_path / "many").stories == built.stories
    names = sorted(file.name for file in (tmp_path / "many" / "shuffled").iterdir())
    assert names == [
        "test-00000-of-00001.parquet",
        *(f"train-{shard:05d}-of-00003.parquet" for shard in range(3)),
        "validation-00000-of-00001.parquet",
    ]
    for name in ("shuffled", "guide"):
        script = load_script(name, data_files=path)
        loaded = datasets.load_dataset(str(tmp_path / "many"), name, cache_dir=str(tmp_path / "cache"))
        assert {split: list(part) for split, part in loaded.items()} == {
            split: list(part) for split, part in script.items()
        }


def test_nothing_is_left_of_a_build_that_fails(
    write_roc: WriteRoc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **settings: Any) -> str:
        raise OSError("No space left on device")

    path = str(write_roc(10))
    monkeypatch.setattr("dataset_builder.build.dataset_card", fail)
    with pytest.raises(OSError, match="No space left"):
        build_dataset([path], tmp_path / "out" / "built")
    assert not list((tmp_path / "out").iterdir())


def test_it_prints_nothing(write_roc: WriteRoc, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    build_dataset([str(write_roc(10))], tmp_path / "built")
    assert capfd.readouterr() == ("", "")
