"""Invisible text, byte-order marks and line ends, in every reader."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder import BadRecord, read_stories
from dataset_builder.line_formats import Lines

INVISIBLE = ["\u200b", "\u00ad", "\ufeff", "\u2060", " \u200b\u200d ", "\u3164", "\ufe0f", "\u00a0"]


@pytest.mark.parametrize("nothing", INVISIBLE)
def test_a_line_that_shows_nothing_is_an_empty_line(nothing: str) -> None:
    text = f"One.\nTwo.\n{nothing}\n1\n2\n"
    for stream in (io.StringIO(text), io.BytesIO(text.encode())):
        assert [story.sentences for story in read_stories(stream)] == [("One.", "Two."), ("1", "2")]
    for suffix, line in (("tsv", "a\tb"), ("jsonl", '{"sentences": ["a", "b"]}')):
        some = io.StringIO(f"{line}\n{nothing}\n{line}\n")
        assert [story.sentences for story in read_stories(some, file_format=suffix)] == [("a", "b")] * 2


@pytest.mark.parametrize("nothing", INVISIBLE)
def test_a_sentence_that_shows_nothing_is_empty(nothing: str, tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text(json.dumps({"sentences": ["One.", nothing]}))
    (tmp_path / "s.tsv").write_text(f"One.\t{nothing}\tThree.\n", encoding="utf-8")
    (tmp_path / "s.csv").write_text(f"sentence1,sentence2,sentence3\nOne.,{nothing},Three.\n", encoding="utf-8")
    pq.write_table(pa.table({"sentences": [["One.", nothing]]}), tmp_path / "s.parquet")
    for name in ("s.jsonl", "s.tsv", "s.csv", "s.parquet"):
        for as_given in (False, True):
            with pytest.raises(BadRecord, match="is empty"):
                list(read_stories(tmp_path / name, as_given=as_given))


def test_invisible_characters_inside_of_visible_text_stay(tmp_path: Path) -> None:
    sentences = ["Zero\u200bwidth.", "\u200eLeft to right.", "Soft\u00adhyphen.", "\U0001f468\u200d\U0001f469 here."]
    (tmp_path / "s.txt").write_text("\n".join(sentences), encoding="utf-8")
    (story,) = read_stories(tmp_path / "s.txt")
    assert list(story.sentences) == sentences


def test_byte_order_marks_of_concatenated_files_go() -> None:
    stream = io.BytesIO("\ufeffOne.\nTwo.\n\n\ufeffEins.\nZwei.\n\ufeff\n\ufeff1\n2\n".encode())
    assert [story.sentences for story in read_stories(stream)] == [("One.", "Two."), ("Eins.", "Zwei."), ("1", "2")]


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_lines_end_as_in_the_first_line(end: str, last: bool, tmp_path: Path) -> None:
    texts = {
        "s.txt": "One.\nTwo.\n\n1\n2",
        "s.tsv": "One.\tTwo.\n1\t2",
        "s.jsonl": '{"sentences": ["One.", "Two."]}\n{"sentences": ["1", "2"]}',
        "s.csv": "sentence1,sentence2\nOne.,Two.\n1,2",
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes((text + "\n" * last).replace("\n", end).encode())
        stories = list(read_stories(tmp_path / name))
        assert [story.sentences for story in stories] == [("One.", "Two."), ("1", "2")], name
        assert [story.row for story in stories] == {"s.txt": [1, 4], "s.csv": [2, 3]}.get(name, [1, 2])


def test_a_return_within_a_line_of_another_file_stays() -> None:
    (story,) = read_stories(io.BytesIO(b"One.\nTwo\rparts.\n"))
    assert story.sentences == ("One.", "Two\rparts.")


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
@pytest.mark.parametrize("length", [(1 << 16) - 2, (1 << 16) - 1, 1 << 16, 200_000])
def test_lines_at_the_edge_of_what_is_read_at_once(end: str, length: int) -> None:
    lines = ["x" * length, "", "y" * length, "z"]
    text = end.join(lines)
    for stream in (io.BytesIO(text.encode()), io.StringIO(text, newline="")):
        assert [line for _, line in Lines(stream, "s").without_ends()] == lines
