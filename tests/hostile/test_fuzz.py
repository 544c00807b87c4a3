"""Any input: no crash, no answer that is no permutation, no sentence that was changed. `fuzz_many.py` tries more."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.hostile import properties
from tests.hostile.properties import FORMATS, TOKENIZERS, any_bytes, damaged_archive, damaged_parquet, stories

COUNT = int(os.environ.get("SENTENCE_ORDERING_FUZZ_INPUTS", "20"))
few = settings(max_examples=COUNT, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@few
@given(any_bytes, st.sampled_from(FORMATS), st.booleans(), st.sampled_from([None, "en"]))
@example(b'{"sentences":' + b"[" * 100_000, "jsonl", True, None)
@example(b'{"sentences": ["' + b"1" * 5000 + b'"], "labels": [' + b"1" * 5000 + b"]}", "jsonl", False, None)
@example(b'storyid,storytitle,sentence1\n"' + b"a" * 200_000, "csv", True, None)
def test_readers(data: bytes, file_format: str, as_given: bool, split_sentences: str | None) -> None:
    properties.check_reader(data, file_format, as_given, split_sentences)


@few
@given(damaged_archive())
def test_a_damaged_archive(tmp_path: Path, archive: tuple[str, bytes]) -> None:
    properties.check_archive(*archive, tmp_path)


@few
@given(damaged_parquet(), st.booleans())
def test_a_damaged_parquet_file(data: bytes, as_given: bool) -> None:
    properties.check_reader(data, "parquet", as_given)


@few
@given(stories, st.sampled_from(["csv", "jsonl"]))
def test_what_is_written_is_read(story: list[str], file_format: str) -> None:
    properties.check_lines_come_back(story, file_format)


@few
@given(stories, st.sampled_from(TOKENIZERS))
def test_encoding(story: list[str], name: str) -> None:
    properties.check_encoding(story, name)


@few
@given(stories)
def test_pipeline(story: list[str]) -> None:
    properties.check_pipeline(story)


@few
@given(any_bytes | stories.map(lambda story: "\n".join(story).encode()))
def test_order(data: bytes) -> None:
    with properties.order_with_model_at_hand():
        properties.check_order(data)
