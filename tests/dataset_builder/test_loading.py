"""Sources: files, folders, data sets and their splits."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from dataset_builder import SAMPLE_FILE, SAMPLES, BadRecord, build_dataset, load_all, load_stories, split_rows
from dataset_builder.story_cache import stories_of_files

ROOT = Path(__file__).parents[2]
WriteRoc = Callable[..., Path]


def ids(splits: datasets.DatasetDict) -> dict[str, list[str]]:
    return {split: list(part["storyid"]) for split, part in splits.items()}


def split_ids(names: list[str], **sizes: Any) -> dict[str, list[str]]:
    return {split: [names[row] for row in rows] for split, rows in split_rows(len(names), **sizes).items()}


def numbered(first: int, stop: int) -> list[str]:
    return [f"id{number}" for number in range(first, stop)]


STORIES = [["It rained.", "She opened an umbrella."], ["He baked.", "They ate."]]
IN_MEMORY = datasets.Dataset.from_dict({"sentences": STORIES})


@pytest.mark.parametrize("sources", [STORIES, IN_MEMORY, datasets.DatasetDict(train=IN_MEMORY)])
def test_stories_in_memory_are_not_sources(sources: Any) -> None:
    with pytest.raises(TypeError, match="a source is the name of a file"):
        load_stories(sources)


def test_a_file_is_split_in_three_in_true_order(write_roc: WriteRoc) -> None:
    splits = load_stories([str(write_roc(30))], seed=3, test_size=0.4, validation_size=0.5)
    assert ids(splits) == split_ids(numbered(0, 30), seed=3, test_size=0.4, validation_size=0.5)
    assert {tuple(part.column_names) for part in splits.values()} == {("storyid", "storytitle", "sentences")}
    row = splits["test"][0]
    number = row["storyid"].removeprefix("id")
    assert row["sentences"] == [f"Sentence {place}, of story {number}." for place in range(5)]
    assert row["storytitle"] == f"Title {number}"


def test_sources_without_splits_are_joined_before_they_are_split(write_roc: WriteRoc, tmp_path: Path) -> None:
    a, b = str(write_roc(20, "a.csv")), str(write_roc(10, "b.csv", first=20))
    (tmp_path / "more").mkdir()
    write_roc(5, "more/z.csv", first=35)
    write_roc(5, "more/y.csv", first=30)
    write_roc(5, "more/.hidden.csv", first=40)
    (tmp_path / "more" / "README.txt").write_text("About the data.\n")
    (tmp_path / "more" / "notes.md").write_text("About the data.\n")
    assert ids(load_stories([a, b])) == split_ids(numbered(0, 30))
    assert ids(load_stories([a, str(tmp_path / "more"), b])) == split_ids(
        [*numbered(0, 20), *numbered(30, 40), *numbered(20, 30)]
    )


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train.csv", "validation.csv", "test.csv"),
        ("train-00000-of-00001.csv", "valid.csv", "test-00000-of-00001.csv"),
        ("roc.train.csv", "roc_val.csv", "TEST_roc.csv"),
        ("training.csv", "dev2.csv", "testing.csv"),
    ],
)
def test_names_of_files_tell_their_splits(
    write_roc: WriteRoc, tmp_path: Path, train: str, validation: str, test: str
) -> None:
    files = [write_roc(6, f"data/{train}"), write_roc(4, f"data/{validation}", first=6)]
    files.append(write_roc(2, f"data/{test}", first=10))
    expected = {"train": numbered(0, 6), "validation": numbered(6, 10), "test": numbered(10, 12)}
    assert ids(load_stories([str(tmp_path / "data")])) == expected
    assert ids(load_stories([str(path) for path in reversed(files)])) == expected
    assert list(ids(load_stories([str(files[2])]))) == ["test"]


def test_train_alone_and_names_that_tell_nothing_are_split(write_roc: WriteRoc) -> None:
    for name in ("train.csv", "latest.csv", "contest.csv", "train_and_test.csv"):
        assert ids(load_stories([str(write_roc(12, name))])) == split_ids(numbered(0, 12)), name


def test_splits_are_kept_and_the_rest_is_split_and_added(write_roc: WriteRoc, tmp_path: Path) -> None:
    write_roc(6, "data/train.csv")
    write_roc(4, "data/test.csv", first=6)
    write_roc(12, "data/more.csv", first=10)
    other = str(write_roc(8, "other.csv", first=22))
    rest = split_ids(numbered(10, 30))
    assert ids(load_stories([str(tmp_path / "data"), other])) == {
        "train": numbered(0, 6) + rest["train"],
        "validation": rest["validation"],
        "test": numbered(6, 10) + rest["test"],
    }


def test_with_validation_sources_everything_else_is_trained_on(write_roc: WriteRoc, tmp_path: Path) -> None:
    write_roc(6, "data/train.csv")
    write_roc(4, "data/test.csv", first=6)
    other = str(write_roc(3, "other.csv", first=10))
    validation = str(write_roc(2, "chosen-test.csv", first=13))
    splits = load_stories([str(tmp_path / "data"), other], validation_sources=[validation])
    assert ids(splits) == {
        "train": [*numbered(6, 10), *numbered(0, 6), *numbered(10, 13)],
        "validation": numbered(13, 15),
    }


def test_load_all_takes_every_story_once(write_roc: WriteRoc, tmp_path: Path) -> None:
    write_roc(6, "data/train.csv")
    write_roc(4, "data/dev.csv", first=6)
    one = str(write_roc(1, "one.csv", first=10))
    stories = load_all([one, str(tmp_path / "data")])
    assert stories["storyid"] == [*numbered(10, 11), *numbered(6, 10), *numbered(0, 6)]
    assert stories.column_names == ["storyid", "storytitle", "sentences"]


def test_names_of_bundled_stories_are_their_files() -> None:
    for name, files in SAMPLES.items():
        assert load_all([name])["sentences"] == load_all(list(files))["sentences"]
    assert {split: len(rows) for split, rows in load_stories("sample").items()} == {
        "train": 1920, "validation": 144, "test": 336
    }  # fmt: skip


def test_stories_in_two_splits_are_one_warning(write_roc: WriteRoc, caplog: pytest.LogCaptureFixture) -> None:
    turned = [["x", "t", *(f"Sentence {place}, of story 3." for place in (4, 2, 0, 1, 3))]]
    files = [str(write_roc(6, "train.csv")), str(write_roc(name="test.csv", stories=turned))]
    with caplog.at_level(logging.WARNING):
        load_stories(files)
        load_stories(files[:1], validation_sources=files[1:])
    assert [re.findall(r"\(.*\)|^\d+", record.getMessage()) for record in caplog.records] == [
        ["1", "(train and test: 1)"],
        ["1", "(train and validation: 1)"],
    ]


def test_what_build_writes_is_a_source_with_its_splits(write_roc: WriteRoc, tmp_path: Path) -> None:
    path = str(write_roc(30))
    build_dataset([path], tmp_path / "built")
    before, after = load_stories([path]), load_stories([str(tmp_path / "built")])
    assert {split: part.to_list() for split, part in after.items()} == {
        split: part.to_list() for split, part in before.items()
    }


def test_a_saved_data_set_is_a_source(write_roc: WriteRoc, tmp_path: Path) -> None:
    splits = load_stories([str(write_roc(30))])
    splits.save_to_disk(tmp_path / "saved")
    assert ids(load_stories([str(tmp_path / "saved")])) == ids(splits)
    shuffled = datasets.Dataset.from_dict({"sentences": [["b", "a"], ["c", "d"]], "labels": [[1, 0], [0, 1]]})
    shuffled.save_to_disk(tmp_path / "one")
    assert load_all([str(tmp_path / "one")])["sentences"] == [["a", "b"], ["c", "d"]]
    wrong = datasets.DatasetDict({"dev": datasets.Dataset.from_dict({"sentences": [["b", "a"]], "labels": [[1, 1]]})})
    wrong.save_to_disk(tmp_path / "wrong")
    with pytest.raises(BadRecord, match=r"wrong \(dev\), row 1: 'labels' is not a permutation"):
        load_all([str(tmp_path / "wrong")])


def test_an_id_of_the_hub_is_loaded_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Hub: checks the arguments of `load_dataset`, and how its answer is used."""
    asked = []

    def load_dataset(source: str, **arguments: bool) -> datasets.DatasetDict:
        asked.append((source, arguments))
        part = datasets.Dataset.from_dict({"sentences": [["b", "a"]], "labels": [[1, 0]], "unused": [1]})
        return datasets.DatasetDict({"train": part, "dev": part})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    splits = load_stories(["someone/their-stories.v2"])
    assert asked == [("someone/their-stories.v2", {"trust_remote_code": False})]
    assert {split: part["sentences"] for split, part in splits.items()} == {
        "train": [["a", "b"]],
        "validation": [["a", "b"]],
    }


def test_an_id_that_the_hub_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(source: str, **arguments: bool) -> None:
        raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{source}' doesn't exist on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ValueError, match="someone/nothing: no file or folder here and no data set on the Hub"):
        load_stories(["someone/nothing"])


def test_errors_name_what_was_tried(write_roc: WriteRoc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_roc(5, "stories.csv")
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").touch()
    monkeypatch.chdir(tmp_path)
    for source, message in {
        "storie.csv": r"storie\.csv: no such file; did you mean stories\.csv\?",
        "data/stories.csv": r"data/stories\.csv: no such file$",
        "stories": r"stories: no such data: it is not 'sample' or 'sample-long', .*\.csv.*did you mean stories\.csv\?",
        "a/b/c": r"a/b/c: no such data: .* a data set on the Hub is called user/name",
        "empty": r"empty: no file of stories in this folder.*\.csv",
        "list.txt": r"no stories in list\.txt",
        "stories.csv": "^5 stories are too few to split",
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            load_stories([source])
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="no data"):
        load_stories([])
    (tmp_path / "stories.pdf").touch()
    with pytest.raises(ValueError, match=r"no reader for \.pdf"):
        load_stories(["stories.pdf"])


def test_a_bad_row_stops_with_file_and_row_and_leaves_nothing(write_roc: WriteRoc, tmp_path: Path) -> None:
    good, bad = write_roc(9, "good.csv"), write_roc(9, "bad.csv")
    bad.write_bytes(bad.read_bytes() + b"last,T,One.,,Three.,,\n")
    for _ in range(2):
        with pytest.raises(BadRecord, match=r"bad\.csv, row 11: column 'sentence2' is empty"):
            load_stories([str(good), str(bad)], cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache" / "sentence_ordering").iterdir())


def test_tables_are_on_disk_and_follow_the_files(write_roc: WriteRoc, tmp_path: Path) -> None:
    def tables() -> list[Path]:
        return sorted((tmp_path / "cache" / "sentence_ordering").iterdir())

    path = write_roc(20)
    splits = load_stories([str(path)], cache_dir=tmp_path / "cache")
    assert {file["filename"] for part in splits.values() for file in part.cache_files} == {str(tables()[0])}
    written = tables()[0].stat().st_mtime_ns
    load_stories([str(path)], cache_dir=tmp_path / "cache", seed=1)
    load_all([str(path)], cache_dir=tmp_path / "cache")
    assert [table.stat().st_mtime_ns for table in tables()] == [written], "read once"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"Title 7", b"Other 7"))  # of the same size
    os.utime(path, ns=(0, 12345))
    assert "Other 7" in load_all([str(path)], cache_dir=tmp_path / "cache")["storytitle"]


def test_stories_are_never_all_in_memory(tmp_path: Path) -> None:
    """In a process of its own, with less memory than the stories would take as Python objects."""
    story = json.dumps({"sentences": ["word " * 80 + str(place) for place in range(5)]}) + "\n"
    path = tmp_path / "stories.jsonl"
    with path.open("w") as file:
        for _ in range(30):
            file.write(story * 1_000)  # 61 MB together
    code = (
        "import resource, sys\n"
        "from dataset_builder import load_all, load_stories\n"
        "import datasets, pyarrow, pyarrow.compute, pandas\n"
        "load_all([sys.argv[1]], cache_dir=sys.argv[3])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "splits = load_stories([sys.argv[2]], cache_dir=sys.argv[3])\n"
        "print(len(splits['train']), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    small = tmp_path / "small.jsonl"
    small.write_text(story * 3_000)
    arguments = [str(small), str(path), str(tmp_path / "cache")]
    answer = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    count, kilobytes = map(int, answer.stdout.split())
    assert count == 24_000
    assert kilobytes < 30_000


def test_files_are_read_as_far_as_stories_are_asked_for(write_roc: WriteRoc) -> None:
    good = write_roc(2)
    good.write_bytes(good.read_bytes() + b"last,T,One.,,Three.,,\n")
    stories = stories_of_files([("stories.csv", str(good)), ("missing.csv", "missing.csv")])
    assert [next(stories).storyid for _ in range(2)] == ["id0", "id1"]
    with pytest.raises(BadRecord, match=r"^stories\.csv, row 4: column 'sentence2'"):
        next(stories)


def test_readers_load_nothing_heavy() -> None:
    code = (
        "import sys; from dataset_builder import read_stories, story_hash\n"
        "list(read_stories(sys.argv[1]))\n"
        "print(*sorted({'torch', 'transformers', 'datasets', 'pyarrow', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code, SAMPLE_FILE], cwd=ROOT, capture_output=True, text=True)
    assert (answer.returncode, answer.stdout.strip()) == (0, ""), answer.stderr
