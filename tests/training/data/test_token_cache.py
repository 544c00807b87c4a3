"""Tokenized stories in the cache: made again if they are damaged, and elsewhere if they cannot be written there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dataset_builder import load_all
from modeling_sentence_ordering import SentenceOrderingModel, StoryTokenizer, load_tokenizer
from tests.training.made_up import made_up_stories, write_jsonl
from training.data.stories import TokenizedStories


@pytest.fixture(scope="module")
def story_tokenizer(home: Path) -> StoryTokenizer:
    encoder = str(home / "tiny-bert")
    return StoryTokenizer(load_tokenizer(encoder), SentenceOrderingModel.from_encoder(encoder).config)


@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: content[:-200], lambda content: os.urandom(len(content))],
    ids=["empty", "cut", "garbage"],
)
def test_a_damaged_file_is_made_again(
    damage: Callable[[bytes], bytes], tmp_path: Path, story_tokenizer: StoryTokenizer
) -> None:
    path = write_jsonl(tmp_path / "stories.jsonl", made_up_stories(20, seed=3))

    def ids() -> list[list[list[int]]]:
        stories = TokenizedStories(load_all([str(path)], cache_dir=tmp_path / "cache"), story_tokenizer)
        return [stories.sentence_ids(index) for index in range(len(stories))]

    expected = ids()
    (file,) = (tmp_path / "cache" / "sentence_ordering").glob("cache-*.arrow")
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(damage(content))
    assert ids() == expected


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@pytest.mark.skipif(not hasattr(os, "seteuid") or os.geteuid() != 0, reason="needs to become another user")
def test_stories_of_another_user_are_tokenized_elsewhere(
    open_to_all: Path, story_tokenizer: StoryTokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_jsonl(open_to_all / "stories.jsonl", made_up_stories(20, seed=4))
    stories = load_all([str(path)], cache_dir=open_to_all / "cache")
    folder = open_to_all / "cache" / "sentence_ordering"
    (table,) = folder.iterdir()
    table.chmod(0o444)
    folder.chmod(0o555)
    os.seteuid(65534)
    try:
        found = TokenizedStories(stories, story_tokenizer)
    finally:
        os.seteuid(0)
    assert found.sentence_ids(0) == story_tokenizer.tokenize(stories[0]["sentences"])
    assert list(folder.iterdir()) == [table]
    assert caplog.text.count("HF_HOME") <= 1
