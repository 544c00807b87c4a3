"""Data sets whose card names files outside of them are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataset_builder import load_stories, stream_stories
from tests.dataset_builder.test_bounded_yaml import BOMBS

STORY = {"storyid": "1", "storytitle": "T", "sentences": ["It rained.", "Tom baked.", "She stayed dry."]}

# What `configs` says, given the folder with somebody else's files.
ELSEWHERE: dict[str, Any] = {
    "parent": {"data_files": "../private/secret.jsonl"},
    "parent inside": {"data_files": "own/../../private/*.jsonl"},
    "absolute": {"data_files": "{private}/secret.jsonl"},
    "url": {"data_files": "http://127.0.0.1:9/secret.jsonl"},
    "file url": {"data_files": "file://{private}/secret.jsonl"},
    "chained": {"data_files": "zip://a.jsonl::http://127.0.0.1:9/a.zip"},
    "hub": {"data_files": "hf://datasets/somebody/else/a.jsonl"},
    "splits": {"data_files": [{"split": "train", "path": "own.jsonl"}, {"split": "test", "path": ["../private/*"]}]},
    "mapping": {"data_files": {"train": "own.jsonl", "test": "../private/secret.jsonl"}},
    "list": {"data_files": ["own.jsonl", "{private}/secret.jsonl"]},
    "data_dir": {"data_dir": "../private"},
    "windows": {"data_files": "..\\private\\secret.jsonl"},
    "drive": {"data_files": "C:/private/secret.jsonl"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "private").mkdir()
    (tmp_path / "data").mkdir()
    for path in (tmp_path / "private" / "secret.jsonl", tmp_path / "data" / "own.jsonl"):
        path.write_text("".join(json.dumps({**STORY, "storyid": str(n)}) + "\n" for n in range(20)))
    return tmp_path / "data"


def write_card(path: Path, configuration: dict[str, Any], private: Path) -> None:
    metadata = {
        "configs": [{"config_name": "default", "data_files": "own.jsonl"}, {"config_name": "b", **configuration}]
    }
    text = yaml.safe_dump(metadata).replace("{private}", str(private))
    path.write_text(text if path.suffix == ".yaml" else f"---\n{text}---\n# Stories\n")


@pytest.mark.parametrize("load", [load_stories, stream_stories])
@pytest.mark.parametrize("configuration", ELSEWHERE)
def test_files_outside_of_the_data_set_are_not_read(
    configuration: str, load: Any, folder: Path, tmp_path: Path
) -> None:
    write_card(folder / "README.md", ELSEWHERE[configuration], tmp_path / "private")
    with pytest.raises(ValueError, match="not a file of this data set") as error:
        load([str(folder)], cache_dir=tmp_path / "cache")
    assert "README.md" in str(error.value) and "\n" not in str(error.value)


def test_the_other_place_for_the_same_entries_is_checked(folder: Path, tmp_path: Path) -> None:
    write_card(folder / "README.md", {"data_files": "own.jsonl"}, tmp_path)
    write_card(folder / ".huggingface.yaml", ELSEWHERE["parent"], tmp_path)
    with pytest.raises(ValueError, match="huggingface.yaml names '../private"):
        load_stories([str(folder)], cache_dir=tmp_path / "cache")


def test_a_data_set_on_the_hub_is_checked_as_well(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its card is read before `datasets` looks for any file."""
    write_card(folder / "README.md", ELSEWHERE["url"], tmp_path)

    def download(repo_id: str, name: str, **_: Any) -> str:
        assert repo_id == "somebody/stories"
        return str(folder / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(ValueError, match="somebody/stories: README.md names"):
        load_stories(["somebody/stories"], cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("files", ["own.jsonl", "./*.jsonl", "**/own*", [{"split": "train", "path": "own.jsonl"}]])
def test_its_own_files_are_read(files: Any, folder: Path, tmp_path: Path) -> None:
    write_card(folder / "README.md", {"data_files": files}, tmp_path)
    assert sum(map(len, load_stories([str(folder)], cache_dir=tmp_path / "cache").values())) == 20


def test_a_damaged_card_is_one_line(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text("---\nconfigs: [a: {\n---\n")
    with pytest.raises(ValueError, match="metadata in README.md is damaged"):
        load_stories([str(folder)], cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("name", BOMBS)
def test_a_card_that_expands_to_gigabytes_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text(f"---\nconfigs: []\n{BOMBS[name]}---\n")
    with pytest.raises(ValueError, match="metadata in README.md is damaged"):
        load_stories([str(folder)], cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("state.json", {"_data_files": [{"filename": "../private/secret.arrow"}]}),
        ("state.json", {"_data_files": [{"filename": "/private/secret.arrow"}]}),
        ("dataset_dict.json", {"splits": ["../private"]}),
        ("train/state.json", {"_data_files": [{"filename": "../../private/secret.arrow"}]}),
    ],
)
def test_a_saved_data_set_names_its_own_files(file: str, content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "saved" / "train").mkdir(parents=True)
    (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    (tmp_path / "saved" / file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="not a file of this data set"):
        load_stories([str(tmp_path / "saved")], cache_dir=tmp_path / "cache")
