"""The shuffles of both configurations: random, and the same in every process."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builder import story_hash
from dataset_builder.configurations import CONFIGURATIONS, guide_orders, shuffled_labels

ROOT = Path(__file__).parents[2]
SENTENCES = ["One.", "Two.", "Three.", "Four.", "Five."]

sentence_lists = st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=8)


@given(sentences=sentence_lists, seed=st.integers(0, 2**40), storyid=st.text(max_size=5))
def test_a_shuffled_row_holds_the_story(sentences: list[str], seed: int, storyid: str) -> None:
    story = {"storyid": storyid, "storytitle": "T", "sentences": sentences}
    row = CONFIGURATIONS["shuffled"].row(story, 0, seed)
    assert [sentence for _, sentence in sorted(zip(row["labels"], row["sentences"], strict=True))] == sentences
    assert (row["storyid"], row["storytitle"]) == (storyid, "T")
    assert list(row) == list(CONFIGURATIONS["shuffled"].columns)
    assert row == CONFIGURATIONS["shuffled"].row(story, 999, seed), "the position of a story is of no matter"


def test_every_order_is_as_likely_as_any_other() -> None:
    orders = Counter(tuple(shuffled_labels(f"story {number}", ["a", "b", "c"], 42)) for number in range(6000))
    assert len(orders) == 6
    assert max(abs(count - 1000) for count in orders.values()) < 150  # five standard deviations


def test_the_shuffle_hangs_on_seed_id_and_text() -> None:
    long = [f"Sentence {number}." for number in range(40)]
    labels = shuffled_labels("id", long, 42)
    assert labels != shuffled_labels("id", long, 43)
    assert labels != shuffled_labels("other", long, 42)
    assert labels != shuffled_labels("id", [*long[:-1], "Another end."], 42)
    assert labels == shuffled_labels("id", long, 42)


def test_shuffles_and_hashes_are_the_same_in_every_process() -> None:
    assert shuffled_labels("id", SENTENCES, 42) == [0, 4, 2, 3, 1]
    assert story_hash(SENTENCES) == "fdd6b6d9e0d8b39f1d82ff7cdcd31d59"
    code = (
        "from dataset_builder import story_hash; from dataset_builder.configurations import shuffled_labels; "
        f"print(shuffled_labels('id', {SENTENCES}, 42), story_hash({SENTENCES}))"
    )
    for hash_seed in ("1", "2"):
        answer = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True
        )
        assert answer.stdout.strip() == "[0, 4, 2, 3, 1] fdd6b6d9e0d8b39f1d82ff7cdcd31d59", answer.stderr


@given(sentences=sentence_lists, data=st.data())
def test_a_story_is_known_again_in_any_order(sentences: list[str], data: st.DataObject) -> None:
    again = data.draw(st.permutations(sentences))
    assert story_hash(again) == story_hash(sentences)
    assert story_hash([*sentences, "more"]) != story_hash(sentences)


def test_sentences_do_not_run_together_in_the_hash() -> None:
    assert story_hash(["ab", "c"]) != story_hash(["a", "bc"])
    assert story_hash(["a", "a", "b"]) != story_hash(["a", "b"])
    assert story_hash([" a", "b\r"]) == story_hash(["a", "b"])


def guide_function(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """What the guide did to a batch, in our own words; with the global generator, as it did."""
    random.seed(42)
    texts, targets = [], []
    for story in zip(*(batch[f"sentence{number}"] for number in range(1, 6)), strict=True):
        pairs = [(sentence, index) for index, sentence in enumerate(story)]
        random.shuffle(pairs)
        texts.append("[CLS] " + " [CLS] ".join(sentence for sentence, _ in pairs))
        targets.append([index for _, index in pairs])
    return {"text": texts, "so_targets": targets}


def test_guide_shuffles_as_the_guide_did() -> None:
    state = random.getstate()
    try:
        batch = {f"sentence{number}": [f"{row}.{number}" for row in range(1000)] for number in range(1, 6)}
        expected = guide_function(batch)
    finally:
        random.setstate(state)
    assert guide_orders(42)[0] == [3, 1, 2, 4, 0]
    assert random.getstate() == state, "the global generator is left alone"
    for position in (0, 1, 999, 1000, 52_664):
        story = [batch[f"sentence{number}"][position % 1000] for number in range(1, 6)]
        row = CONFIGURATIONS["guide"].row({"storyid": "i", "storytitle": "t", "sentences": story}, position, 42)
        assert row["so_targets"] == expected["so_targets"][position % 1000]
        assert row["text"] == expected["text"][position % 1000]
        assert [row[f"sentence{number}"] for number in range(1, 6)] == story


@pytest.mark.parametrize("name", ["shuffled", "guide"])
def test_features_have_the_columns_in_order(name: str) -> None:
    columns = {
        "shuffled": ["storyid", "storytitle", "sentences", "labels"],
        "guide": [*(f"sentence{number}" for number in range(1, 6)), "so_targets", "storyid", "storytitle", "text"],
    }
    assert list(CONFIGURATIONS[name].features) == columns[name]
