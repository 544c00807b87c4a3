"""Prose becomes sentences, from text files and from a column of text, in every function that reads sources."""

from __future__ import annotations

import io
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder import (
    BadRecord,
    build_dataset,
    load_all,
    load_stories,
    read_stories,
    stories_of_rows,
    stream_stories,
)
from dataset_builder.sentence_splitting import SentenceSplitter

PROSE = 'Dr. Smith came at 5 p.m. to the door. "Who is it?" she asked. It began to rain.'
SENTENCES = ("Dr. Smith came at 5 p.m. to the door.", '"Who is it?" she asked.', "It began to rain.")
OTHER, OTHER_SENTENCES = "He ate. He slept.", ("He ate.", "He slept.")
WRAPPED = PROSE.replace("to the", "to\nthe")


def sentences_of(path: Path, **arguments: Any) -> list[tuple[str, ...]]:
    return [story.sentences for story in read_stories(path, split_sentences="en", **arguments)]


def write_prose(folder: Path, suffix: str) -> Path:
    path = folder / f"prose{suffix}"
    rows = [{"storyid": "a", "text": PROSE}, {"storyid": "b", "text": OTHER}]
    if suffix == ".txt":
        path.write_text(f"{WRAPPED}\n\n{OTHER}\n", encoding="utf-8")
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        datasets.Dataset.from_list(rows).to_csv(path, sep="\t" if suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".tsv", ".jsonl", ".parquet"])
def test_prose_in_each_format(suffix: str, tmp_path: Path) -> None:
    path = write_prose(tmp_path, suffix)
    for as_given in (False, True):
        assert sentences_of(path, as_given=as_given) == [SENTENCES, OTHER_SENTENCES]
    if suffix != ".txt":
        assert [story.storyid for story in read_stories(path, split_sentences="en")] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "stories"),
    [
        (f"{PROSE}\n{OTHER}\n", [SENTENCES, OTHER_SENTENCES]),  # a text in each line
        (f"{PROSE}\n{OTHER}\n\n \n", [SENTENCES, OTHER_SENTENCES]),
        (WRAPPED, [SENTENCES]),
        (f"{PROSE}\n{OTHER}\n\n{OTHER}\n", [SENTENCES + OTHER_SENTENCES, OTHER_SENTENCES]),
    ],
)
def test_what_is_one_text_in_a_text_file(text: str, stories: list[tuple[str, ...]], tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text(text)
    assert sentences_of(tmp_path / "s.txt") == stories


@pytest.mark.parametrize("column", ["text", "abstract", "story"])
def test_columns_of_prose(column: str, tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text(json.dumps({column: OTHER, "other": 1}))
    assert sentences_of(tmp_path / "s.jsonl") == [OTHER_SENTENCES]


def test_sentences_are_not_split_again(tmp_path: Path) -> None:
    record = {"sentences": ["He ate. He slept.", "It rained."], "text": PROSE}
    (tmp_path / "s.jsonl").write_text(json.dumps(record))
    assert sentences_of(tmp_path / "s.jsonl") == [("He ate. He slept.", "It rained.")]


def test_german(tmp_path: Path) -> None:
    stories = read_stories(io.StringIO("Er kam am 3. März an. Dr. Müller war z. B. da."), split_sentences="de")
    assert next(stories).sentences == ("Er kam am 3. März an.", "Dr. Müller war z. B. da.")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_without_the_option_the_message_names_it(suffix: str, tmp_path: Path) -> None:
    path = write_prose(tmp_path, suffix)
    with pytest.raises(BadRecord, match=r"'text'.*--split_sentences") as caught:
        list(read_stories(path))
    assert caught.value.file == str(path)


def test_lines_of_several_sentences_are_no_sentences(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text(f"{PROSE}\n" * 3)
    with pytest.raises(BadRecord, match=r"--split_sentences"):
        list(read_stories(tmp_path / "s.txt"))
    (story,) = read_stories(tmp_path / "s.txt", as_given=True)
    assert len(story.sentences) == 3, "paragraphs may be put in order"


def test_each_function_that_reads_sources(tmp_path: Path) -> None:
    texts = [f"{number} came. {number} went. {number} stayed." for number in range(20)]
    expected = [[f"{number} {word}." for word in ("came", "went", "stayed")] for number in range(20)]
    source = tmp_path / "s.parquet"
    pq.write_table(pa.table({"text": texts}), source)
    cached: dict[str, Any] = {"split_sentences": "en", "cache_dir": tmp_path / "cache"}
    assert list(load_all([str(source)], **cached)["sentences"]) == expected
    splits = load_stories([str(source)], **cached)
    assert sum(map(len, splits.values())) == 20
    stream, _ = stream_stories([str(source)], **cached)
    assert [list(story.sentences) for _, story in stream.read(stream.order())] == expected
    assert stream.digest() != stream_stories([str(source)], split_sentences="fr")[0].digest()
    pickle.dumps(stream)
    assert list(stories_of_rows({"text": texts}, split_sentences="en")["sentences"]) == expected
    built = build_dataset([str(source)], tmp_path / "built", **cached)
    assert sum(built.sentences.values()) == 60
    with pytest.raises(BadRecord, match="split_sentences"):
        load_all([str(source)], cache_dir=tmp_path / "cache")
    datasets.Dataset.from_dict({"text": texts}).save_to_disk(tmp_path / "saved")
    assert list(load_all([str(tmp_path / "saved")], **cached)["sentences"]) == expected


def test_a_table_in_the_cache_is_that_of_its_language(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("Er kam am 3. März an. Er ging.\n")
    lengths = {
        language: len(load_all([str(tmp_path / "s.txt")], split_sentences=language, cache_dir=tmp_path)[0]["sentences"])
        for language in ("de", "en", "de")
    }
    assert lengths["de"] == 2 < lengths["en"]


def test_the_loading_script_splits_too(tmp_path: Path, load_script: Callable[..., Any]) -> None:
    (tmp_path / "s.txt").write_text("\n\n".join(f"{number} came. {number} went." for number in range(20)))
    for streaming in (False, True):
        loaded = load_script(data_files=str(tmp_path / "s.txt"), split_sentences="en", streaming=streaming)
        assert {len(row["sentences"]) for part in loaded.values() for row in part} == {2}


def test_unknown_language_and_missing_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for language in ("english", "EN", "xx", ""):
        with pytest.raises(ValueError, match=rf"{language!r}.*\bde el en es\b"):
            read_stories(io.StringIO(PROSE), split_sentences=language)
    monkeypatch.setitem(sys.modules, "sentencex", None)
    with pytest.raises(ValueError, match=r"sentence-ordering\[split\]"):
        SentenceSplitter("en")
