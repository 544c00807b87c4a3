"""Which stories count as ROCStories, and which may be quoted and published."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import datasets
import pytest

from dataset_builder import (
    SAMPLES,
    build_dataset,
    check_public_push,
    check_push_of_rocstories,
    in_rocstories_layout,
    may_be_quoted,
)
from tests.dataset_builder.conftest import made_up_story

WriteRoc = Callable[..., Path]
SPRING_2016 = ["storyid", "storytitle", *(f"sentence{place}" for place in range(1, 6))]


def write(path: Path, lengths: Sequence[int], record: Callable[[int, list[str]], dict[str, Any]]) -> Path:
    lines = [json.dumps(record(number, made_up_story(number, length))) for number, length in enumerate(lengths)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def plain(number: int, sentences: list[str]) -> dict[str, Any]:
    return {"storyid": f"id{number}", "storytitle": "A title", "sentences": sentences}


def with_uuid(number: int, sentences: list[str]) -> dict[str, Any]:
    return {"storyid": str(UUID(int=number)), "sentences": sentences}


def columns(number: int, sentences: list[str]) -> dict[str, Any]:
    return {f"sentence{place}": sentence for place, sentence in enumerate(sentences, 1)}


def rebart(number: int, sentences: list[str]) -> dict[str, Any]:
    return {"shuf_sents": sentences, "orig_sents": [str(place) for place in range(len(sentences))]}


def tsv(path: Path, lengths: Sequence[int], header: Sequence[str] = ()) -> Path:
    rows = [header, *(made_up_story(number, length) for number, length in enumerate(lengths))]
    path.write_text("".join("\t".join(row) + "\n" for row in rows if row), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("make", "looks_like_it"),
    [
        (lambda folder: tsv(folder / "a.tsv", [5] * 8), True),
        (lambda folder: tsv(folder / "a.tsv", [5] * 8, header=SPRING_2016[2:]), True),
        (lambda folder: tsv(folder / "a.tsv", [5] * 7 + [6]), False),
        (lambda folder: write(folder / "a.jsonl", [5] * 8, plain), False),
        (lambda folder: write(folder / "ROC-Stories.jsonl", [3] * 8, plain), True),
        (lambda folder: write(folder / "a.jsonl", [5] * 8, columns), True),
        (lambda folder: write(folder / "a.jsonl", [6] * 8, columns), False),
        (lambda folder: write(folder / "a.jsonl", [5] * 8, rebart), True),
        (lambda folder: write(folder / "a.jsonl", [5] * 7 + [4], rebart), False),
        (lambda folder: write(folder / "a.jsonl", [3] * 7 + [5], with_uuid), True),
        (lambda folder: write(folder / "a.jsonl", [3] * 8, with_uuid), False),
    ],
)
def test_formats(make: Callable[[Path], Path], looks_like_it: bool, tmp_path: Path) -> None:
    path = make(tmp_path)
    assert in_rocstories_layout([str(path)]) == ([path.name] if looks_like_it else [])


def test_csv_and_folders(write_roc: WriteRoc, tmp_path: Path) -> None:
    path = write_roc(10, "folder/train.csv")
    write(tmp_path / "folder" / "test.jsonl", [4], plain)
    seven = tmp_path / "seven.csv"
    with seven.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[f"sentence{place}" for place in range(1, 8)], made_up_story(0, 7)])
    assert in_rocstories_layout([str(path)]) == ["train.csv"]
    assert in_rocstories_layout([str(seven), str(tmp_path / "folder")]) == ["train.csv"]
    path.rename(path.with_name("train.txt")).write_text("One.\nTwo.\n")
    assert in_rocstories_layout([str(tmp_path / "folder")]) == []
    write(tmp_path / "folder" / "my_RocStories.jsonl", [3], plain)
    assert in_rocstories_layout([str(tmp_path / "folder")]) == ["my_RocStories.jsonl"]
    (tmp_path / "folder" / "my_RocStories.jsonl").unlink()
    (tmp_path / "folder").rename(tmp_path / "rocstories")
    assert in_rocstories_layout([str(tmp_path / "rocstories")]) == ["test.jsonl", "train.txt"]


def test_what_was_built_of_it_is_still_it(write_roc: WriteRoc, tmp_path: Path) -> None:
    """`shuffled` by its card, because neither ids nor columns tell any more; `guide` by its columns."""
    stories = tsv(tmp_path / "stories.tsv", [5] * 10)
    build_dataset([str(stories)], tmp_path / "built")
    build_dataset([str(tmp_path / "built")], tmp_path / "again")
    for folder in ("built", "again"):
        found = in_rocstories_layout([str(tmp_path / folder)])
        assert found == [f"{folder} ({split})" for split in ("train", "validation", "test")]
        assert in_rocstories_layout([str(tmp_path / folder / "shuffled")]) == []
        names = [f"{split}-00000-of-00001.parquet" for split in ("test", "train", "validation")]
        assert in_rocstories_layout([str(tmp_path / folder / "guide")]) == names
    table = datasets.Dataset.from_list([columns(n, made_up_story(n)) for n in range(4)])
    table.save_to_disk(str(tmp_path / "saved"))
    assert in_rocstories_layout([str(tmp_path / "saved")]) == ["saved (train)"]


def test_the_sample_is_ours(tmp_path: Path) -> None:
    assert in_rocstories_layout([*SAMPLES, *SAMPLES["sample"], *SAMPLES["sample-long"]]) == []
    build_dataset(["sample"], tmp_path / "built")
    assert in_rocstories_layout([str(tmp_path / "built")]) == []


def test_who_may_be_quoted(write_roc: WriteRoc, tmp_path: Path) -> None:
    roc, other = str(write_roc(10)), str(write(tmp_path / "other.jsonl", [4], plain))
    assert all(may_be_quoted([source]) for source in (*SAMPLES, *SAMPLES["sample"], *SAMPLES["sample-long"]))
    assert not may_be_quoted([other]) and not may_be_quoted(["sample", other])
    assert may_be_quoted([other], license="mit") and not may_be_quoted([other], license="unknown")
    assert not may_be_quoted([roc], license="mit") and not may_be_quoted([roc, other], license="mit")
    assert may_be_quoted([roc], license="mit", allow_rocstories=True)
    assert not may_be_quoted([roc], allow_rocstories=True)


def test_who_may_be_pushed(write_roc: WriteRoc, tmp_path: Path) -> None:
    roc, other = str(write_roc(10)), str(write(tmp_path / "other.jsonl", [4], plain))
    check_push_of_rocstories([other, "sample"])
    check_push_of_rocstories([roc], allow_rocstories=True)
    with pytest.raises(ValueError, match=r"^stories\.csv looks like ROCStories.*not to pass the stories on"):
        check_push_of_rocstories([other, roc])
    check_public_push([*SAMPLES])
    check_public_push([other], license="mit")
    with pytest.raises(ValueError, match=r"licence of other\.jsonl.*--license ID"):
        check_public_push(["sample", other])
    with pytest.raises(ValueError, match=r"licence of other\.jsonl"):
        check_public_push([other], license="unknown")
