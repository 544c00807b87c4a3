"""What holds for every input, and the inputs that hypothesis tries: a few in the tests, and many by a script."""

from __future__ import annotations

import gzip
import io
import json
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from dataset_builder import BadRecord, UserError, read_stories
from modeling_sentence_ordering import SentenceOrderingModel, SentenceOrderingPipeline, StoryTokenizer, load_tokenizer
from tests.modeling_sentence_ordering.small_encoders import write_encoder
from tests.training.conftest import run_command
from tests.training.hostile_text import SPECIAL_TOKENS

LINE_FORMATS = ("csv", "tsv", "jsonl", "text")
FORMATS = (*LINE_FORMATS, "json", "parquet")
TOKENIZERS = ("bert", "roberta", "xlm-roberta", "no-cls")  # one of each family

_PIECES = [
    "storyid,storytitle,sentence1,sentence2,sentence3,sentence4,sentence5\n", '{"sentences": [', '"labels": ', '"', ",",
    "\t", "\n", "\r\n", "\r", "]}", "[", "{", "\\u0000", "\\ud83d", "\\", "1e999", "null", "NaN", "It rained.", " ",
    "<eos>", "text,abstract\n", '{"text": ', '{"cells": [{"source": "a"}, ',
    '{"annotations": [{"story_id": 1, "worker_arranged_photo_order": 0, "text": "', "id,cell_order\n", "../a,b\n",
    "InputSentence1\tInputSentence2\tInputSentence3\tInputSentence4\n",
    "\ufeff", "\0", "\x85", "\u2028", "é", "👩‍👩‍👧", *SPECIAL_TOKENS,
]  # fmt: skip
sentences = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40).filter(
    str.strip
) | st.lists(st.sampled_from([*SPECIAL_TOKENS, "It", " ", "rained"]), min_size=1, max_size=6).map("".join).filter(
    str.strip
)
stories = st.lists(sentences, min_size=1, max_size=8)
any_bytes = st.binary(max_size=300) | st.lists(
    st.sampled_from([piece.encode() for piece in _PIECES]) | st.binary(max_size=4), max_size=40
).map(b"".join)


@cache
def whole_parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"storyid": ["a", "b"], "sentences": [["It rained.", "Tom."], ["x", "y", "z"]]}), sink)
    return sink.getvalue()


@st.composite
def damaged_parquet(draw: Any) -> bytes:
    """A file of which some bytes are others, or the end is missing."""
    data = bytearray(whole_parquet())
    for _ in range(draw(st.integers(1, 8))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


def packed(data: bytes, suffix: str) -> bytes:
    """A compressed file."""
    if suffix == ".gz":
        return gzip.compress(data)
    if suffix == ".zst":
        return bytes(pa.compress(data, codec="zstd", asbytes=True))
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("s.txt", data)
    return sink.getvalue()


@st.composite
def damaged_archive(draw: Any) -> tuple[str, bytes]:
    """The suffix of a compressed file, and its bytes, of which some are others, or the end is missing."""
    suffix = draw(st.sampled_from([".gz", ".zst", ".zip"]))
    data = bytearray(packed(draw(any_bytes), suffix))
    for _ in range(draw(st.integers(0, 8))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return suffix, bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


def check_archive(suffix: str, data: bytes, folder: Path) -> None:
    """Stories, or errors in one line each that name the file."""
    for name in (f"s.txt{suffix}", f"s{suffix}"):
        (folder / name).write_bytes(data)
        errors: list[BadRecord] = []
        try:
            for story in read_stories(folder / name, on_error=errors.append):
                assert len(story.sentences) >= 2
        except UserError as error:  # what is in the archive has no known name
            assert str(folder / name) in str(error) and "\n" not in str(error)
        assert all(error.file == str(folder / name) and "\n" not in str(error) for error in errors)


def check_reader(data: bytes, file_format: str, as_given: bool, split_sentences: str | None = None) -> None:
    """Stories that can be used, or errors in one line each; nothing of a line is changed."""
    errors: list[BadRecord] = []
    read = read_stories(
        io.BytesIO(data),
        file_format=file_format,
        as_given=as_given,
        on_error=errors.append,
        split_sentences=split_sentences,
    )
    for story in read:
        assert len(story.sentences) >= (0 if as_given else 2)
        for sentence in story.sentences:
            assert sentence.strip() and "\0" not in sentence
            if file_format in ("text", "tsv") and split_sentences is None:
                assert sentence.encode() in data
    assert all("\n" not in str(error) for error in errors)


def check_lines_come_back(story: list[str], file_format: str) -> None:
    """What was written as a record is read, letter by letter."""
    sink = io.StringIO(newline="")
    if file_format == "jsonl":
        sink.write(json.dumps({"sentences": story}) + "\n")
    else:
        import csv

        columns = [f"sentence{place}" for place in range(1, max(5, len(story)) + 1)]
        csv.writer(sink).writerows([columns, [*story, *["x"] * (len(columns) - len(story))]])
    read = list(read_stories(io.BytesIO(sink.getvalue().encode()), file_format=file_format, as_given=True))
    assert [sentence for found in read for sentence in found.sentences][: len(story)] == story


@cache
def story_tokenizer(name: str) -> StoryTokenizer:
    model, tokenizer = model_and_tokenizer(name)
    return StoryTokenizer(tokenizer, model.config)


@cache
def model_and_tokenizer(name: str) -> tuple[SentenceOrderingModel, Any]:
    folder = write_encoder(Path(mkdtemp()) / name, name)
    tokenizer = load_tokenizer(str(folder))
    return SentenceOrderingModel.from_encoder(str(folder), tokenizer=tokenizer), tokenizer


def check_encoding(story: list[str], name: str) -> None:
    """One marker for each sentence, and no special token that the sentences bring along."""
    tokenizer = story_tokenizer(name)
    ids = tokenizer.tokenize(story)
    special = {*tokenizer.tokenizer.all_special_ids, tokenizer.marker_token_id} - {tokenizer.tokenizer.unk_token_id}
    assert len(ids) == len(story)
    assert special.isdisjoint(i for sentence in ids for i in sentence)
    whole = tokenizer.assemble(ids)
    markers = [place for place, i in enumerate(whole.input_ids) if i == tokenizer.marker_token_id]
    assert markers[: len(whole.marker_positions)] == whole.marker_positions


@cache
def pipeline() -> SentenceOrderingPipeline:
    model, tokenizer = model_and_tokenizer("bert")
    return SentenceOrderingPipeline(model=model, tokenizer=tokenizer)


def check_pipeline(story: list[str]) -> None:
    """A permutation of the input, letter by letter; the same whatever order it comes in."""
    answer = pipeline()(story)
    assert sorted(answer["order"]) == list(range(len(story)))
    assert answer["sentences"] == [story[place] for place in answer["order"]]
    assert pipeline()(story[::-1])["sentences"] == answer["sentences"]


@contextmanager
def order_with_model_at_hand() -> Iterator[None]:
    """`order` without the time that it takes to load a model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.models.trained_model.load_trained_model", lambda _: model_and_tokenizer("bert"))
        yield


def check_order(data: bytes) -> None:
    """Standard input of whatever bytes: an exit code that there is, a line, and all sentences again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        result = run_command("order", "--model", "at hand")
    assert result.code in (0, 1, 2)
    assert result.err.count("\n") == 1 + ("note:" in result.err)  # what was wrong, or how many were ordered
    read = read_stories(io.BytesIO(data), file_format="text", as_given=True, on_error=lambda _: None)
    expected = sorted(sentence for story in read for sentence in story.sentences)
    if result.code == 0:
        inner = [sentence.replace("\r", " ") for sentence in expected]
        got = [line for line in result.out.split("\n") if line.strip()]
        assert sorted(got) == sorted(line for line in inner if line.strip()) or "\r" in data.decode()
