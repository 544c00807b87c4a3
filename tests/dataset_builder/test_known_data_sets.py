"""Data sets of papers in their own files: Story Cloze, SIND and VIST, AI4Code, `<eos>`, and one abstract per file."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder import BadRecord, in_rocstories_layout, load_all, read_stories, stories_of_rows

CLOZE = ["InputStoryid", *(f"InputSentence{n}" for n in range(1, 5)), "RandomFifthSentenceQuiz1",
         "RandomFifthSentenceQuiz2", "AnswerRightEnding"]  # fmt: skip


def cloze_rows() -> list[list[str]]:
    return [
        [f"id{right}", "One.", "Two.", "Three.", "Four.", "First ending.", "Second ending.", str(right)]
        for right in (2, 1)
    ]


def write_rows(path: Path, header: list[str], rows: list[list[str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([header, *rows])
    return path


def sentences_of(path: Path, **arguments: Any) -> list[list[str]]:
    return [list(story.sentences) for story in read_stories(path, **arguments)]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_story_cloze_test_ends_with_the_right_ending(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"cloze_test{suffix}"
    records = [dict(zip(CLOZE, row, strict=True)) for row in cloze_rows()]
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps(record | {"AnswerRightEnding": int(record["AnswerRightEnding"])}) + "\n"
                                for record in records))  # fmt: skip
    elif suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        write_rows(path, CLOZE, cloze_rows())
    stories = list(read_stories(path))
    assert [story.storyid for story in stories] == ["id2", "id1"]
    assert [story.sentences[-2:] for story in stories] == [("Four.", "Second ending."), ("Four.", "First ending.")]
    assert [len(story.sentences) for story in stories] == [5, 5]
    assert in_rocstories_layout([str(path)]) == [path.name], "they are from ROCStories, which may not be passed on"
    assert list(stories_of_rows(records)["sentences"]) == [list(story.sentences) for story in stories]


@pytest.mark.parametrize("answer", ["", "3", "x"])
def test_a_story_cloze_test_without_the_answer_is_refused(answer: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "cloze.csv", CLOZE, [[*cloze_rows()[0][:-1], answer]])
    with pytest.raises(BadRecord, match="AnswerRightEnding") as caught:
        list(read_stories(path))
    assert caught.value.row == 2
    path = write_rows(tmp_path / "cloze.csv", CLOZE[:-1], [cloze_rows()[0][:-1]])
    with pytest.raises(BadRecord, match="AnswerRightEnding"):
        list(read_stories(path))


def annotation(story: str, position: int, text: str, **other: Any) -> list[dict[str, Any]]:
    return [{"story_id": story, "worker_arranged_photo_order": position, "text": text, **other}]


def test_sind_and_vist(tmp_path: Path) -> None:
    annotations = [
        annotation("7", 1, "b", original_text="B!"),
        annotation("7", 0, "a", original_text="A!"),
        annotation("8", 0, "c"),
        annotation("7", 2, "d", original_text="D!"),
        annotation("8", 1, "e"),
    ]
    path = tmp_path / "test.story-in-sequence.json"
    path.write_text(json.dumps({"images": [], "albums": [], "annotations": annotations}))
    assert sentences_of(path) == [["A!", "B!", "D!"], ["c", "e"]]
    assert [story.storyid for story in read_stories(path)] == ["7", "8"]
    assert len(load_all([str(path)])) == 2


def test_a_list_of_records_and_a_jupyter_notebook(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps([{"sentences": ["b", "a"], "labels": [1, 0]}]))
    assert sentences_of(tmp_path / "s.json") == [["a", "b"]]
    cells = [{"source": ["# Title\n", "text"]}, {"source": ""}, {"source": "x = 1"}]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells, "nbformat": 4}))
    assert sentences_of(tmp_path / "n.ipynb") == [["# Title\ntext", "x = 1"]]


def write_notebooks(folder: Path, **notebooks: dict[str, str]) -> Path:
    (folder / "train").mkdir()
    for name, source in notebooks.items():
        (folder / "train" / f"{name}.json").write_text(json.dumps({"cell_type": {}, "source": source}))
    return write_rows(folder / "train_orders.csv", ["id", "cell_order"], [[name, "c2 c1 c3"] for name in notebooks])


def test_ai4code(tmp_path: Path) -> None:
    orders = write_notebooks(tmp_path, n1={"c1": "x = 1", "c2": "# Title", "c3": "print(x)"},
                             n2={"c3": "3", "c1": "1", "c2": "2"})  # fmt: skip
    assert sentences_of(orders) == [["# Title", "x = 1", "print(x)"], ["2", "1", "3"]]
    assert list(load_all([str(orders)])["storyid"]) == ["n1", "n2"]
    (tmp_path / "train" / "n2.json").write_text(json.dumps({"source": {"c1": "1", "c2": "new", "c3": "3"}}))
    assert load_all([str(orders)])["sentences"][1] == ["new", "1", "3"], "not from the cache"
    with pytest.raises(BadRecord, match=r"train_orders\.csv"):
        list(read_stories(tmp_path / "train" / "n1.json"))
    packed = tmp_path / "train_orders.csv.gz"
    packed.write_bytes(gzip.compress(orders.read_bytes()))
    with pytest.raises(BadRecord, match="unpack"):
        load_all([str(packed)])
    (tmp_path / "train" / "n2.json").write_text("{")
    bad = [["n1", "c1 c9"], ["n2", "c1"], ["../x", "c1"], ["n3", "c1"]]
    write_rows(orders, ["id", "cell_order"], [*bad, ["n1", "c1 c3"]])
    errors: list[BadRecord] = []
    assert [story.sentences for story in read_stories(orders, on_error=errors.append)] == [("x = 1", "print(x)")]
    assert [error.row for error in errors] == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"data": []}, r"\.jsonl"),
        ([["a", "b"]], r"\.jsonl"),
        ("text", r"\.jsonl"),
        ({"annotations": [{"id": 1}]}, "annotation 1.*story_id"),
        (
            {"annotations": [annotation("1", 0, "a"), annotation("1", 0, "b")]},
            "story 1 has two.*position 0",
        ),
        ({"annotations": [annotation("1", 0, "a"), annotation("1", 1, 5)]}, "row 1: sentence 2 is not text"),  # type: ignore[arg-type]
        ({"cells": [{"text": "a"}]}, "source"),
    ],
)
def test_other_json_is_refused_with_what_to_do(document: Any, reason: str, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps(document))
    with pytest.raises(BadRecord, match=rf"s\.json.*{reason}"):
        list(read_stories(tmp_path / "s.json"))


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, '{"cells": [', "\ufffe"])
def test_damaged_json_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(BadRecord, match="not a JSON document"):
        list(read_stories(tmp_path / "s.json"))


def test_a_large_document_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataset_builder.json_formats.LARGEST_DOCUMENT", 100)
    (tmp_path / "s.json").write_text(json.dumps([{"sentences": ["a" * 100, "b"]}]))
    with pytest.raises(BadRecord, match=r"100 bytes.*\.jsonl"):
        list(read_stories(tmp_path / "s.json"))


def test_json_beside_stories_in_a_folder_is_not_data(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "stories.txt").write_text("One.\nTwo.\n")
    assert len(load_all([str(tmp_path)])) == 1


def test_sentences_joined_with_eos_are_a_story_in_each_line(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("a b . <eos> c d . <eos>\n\ne . <EOS> f . <eos> g .\nh . <eos> i .\n")
    expected = [["a b .", "c d ."], ["e .", "f .", "g ."], ["h .", "i ."]]
    assert sentences_of(tmp_path / "s.txt") == sentences_of(tmp_path / "s.txt", as_given=True) == expected
    assert [story.row for story in read_stories(tmp_path / "s.txt")] == [1, 3, 4]
    for content, row in ((b"\xff\na <eos> b\nc <eos> d\n", 1), (b"a <eos> b\n\xff <eos> x\nc <eos> d\n", 2)):
        (tmp_path / "s.txt").write_bytes(content)
        bad: list[BadRecord] = []
        assert len(list(read_stories(tmp_path / "s.txt", on_error=bad.append))) == 2, "a bad line is one bad story"
        assert [error.row for error in bad] == [row]
    (tmp_path / "s.txt").write_text("Title\n\na <eos> b\n\nThe token is <eos>\nIt ends.\n")
    errors: list[BadRecord] = []
    stories = list(read_stories(tmp_path / "s.txt", on_error=errors.append))
    assert [story.sentences for story in stories] == [("The token is <eos>", "It ends.")]
    assert [error.row for error in errors] == [1, 3], "a single sentence, and a story in one line"
    ordered = [story.sentences for story in read_stories(tmp_path / "s.txt", as_given=True)]
    assert ordered == [("Title",), ("a <eos> b",), ("The token is <eos>", "It ends.")], "texts to order are kept"


def test_a_folder_with_an_abstract_in_each_file(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(f"We show {number}.\nIt holds.\n")
    stories = load_all([str(tmp_path)])
    assert list(stories["storyid"]) == ["0-1", "1-1", "2-1"]
