"""The bundled stories: number, layout, splits, the card, and no duplicates."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import DatasetCard
from scipy.sparse import csr_array

from dataset_builder import SAMPLE_FILE, SAMPLES, Story, load_stories, read_stories
from tests.hub_server.cards import check_card

FOLDER = Path(SAMPLE_FILE).parent
FIVE, VARIED = (list(read_stories(file)) for file in SAMPLES["sample"])
(LONG,) = (list(read_stories(file)) for file in SAMPLES["sample-long"])
STORIES = [*FIVE, *VARIED]
TEXTS = [*STORIES, *LONG]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def jaccard(bags: Sequence[frozenset[str]]) -> np.ndarray:
    """Shared words of each two bags, as a share of the words of both; 0 on the diagonal."""
    columns = {word: column for column, word in enumerate(sorted(frozenset().union(*bags)))}
    indices = [columns[word] for bag in bags for word in bag]
    sizes = np.array([len(bag) for bag in bags])
    matrix = csr_array((np.ones(len(indices), np.int32), indices, np.concatenate([[0], np.cumsum(sizes)])))
    shared = (matrix @ matrix.T).toarray()
    np.fill_diagonal(shared, 0)
    found: np.ndarray = shared / (sizes[:, None] + sizes[None, :] - shared)
    return found


def test_1800_stories_in_the_layout_of_rocstories() -> None:
    with open(SAMPLE_FILE, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["storyid", "storytitle", *(f"sentence{number}" for number in range(1, 6))]
    assert len(rows) == len(FIVE) == 1800
    assert all(len(story.sentences) == 5 for story in FIVE)


def test_600_stories_of_4_to_8_sentences() -> None:
    lengths = Counter(len(story.sentences) for story in VARIED)
    assert len(VARIED) == 600 and set(lengths) == {4, 5, 6, 7, 8}
    assert min(lengths.values()) >= 100


def test_42_long_texts_of_three_genres() -> None:
    with open(SAMPLES["sample-long"][0], encoding="utf-8") as file:
        genres = Counter(json.loads(line)["genre"] for line in file)
    assert len(LONG) == 42 and set(genres) == {"tale", "how-to", "report"} and min(genres.values()) >= 10
    assert {32, 48} <= {len(text.sentences) for text in LONG} <= {*range(32, 49)}


def test_ids_and_titles_are_unique() -> None:
    assert len({text.storyid for text in TEXTS}) == len({text.title.lower() for text in TEXTS}) == len(TEXTS) == 2442
    assert all(text.title.strip() for text in TEXTS)


def test_no_two_stories_share_a_sentence() -> None:
    counts = Counter(" ".join(words(sentence)) for text in TEXTS for sentence in text.sentences)
    assert [sentence for sentence, count in counts.items() if count > 1] == []


@pytest.mark.parametrize(("texts", "most"), [(STORIES, 22), (LONG, 30)], ids=["stories", "long"])
def test_sentences_are_short_and_whole(texts: list[Story], most: int) -> None:
    for text in texts:
        for sentence in text.sentences:
            assert 4 <= len(words(sentence)) <= most, sentence
            assert re.search(r'[.!?]"?$', sentence), sentence
            assert sentence == sentence.strip() and sentence.isascii(), sentence


def test_no_two_stories_are_near_copies() -> None:
    """Two stories of one template share most of their words, names apart; independent ones a quarter at most."""
    overlap = jaccard([frozenset(words(" ".join(text.sentences))) for text in TEXTS])
    first, second = np.unravel_index(overlap.argmax(), overlap.shape)
    assert overlap.max() < 0.4, (TEXTS[first].storyid, TEXTS[second].storyid)


def test_no_two_sentences_are_of_one_template() -> None:
    """The same for sentences of some length: most of the words of one are not those of another."""
    sentences = [(frozenset(words(sentence)), sentence) for text in TEXTS for sentence in text.sentences]
    rare: dict[str, list[int]] = {}
    for index, (bag, _) in enumerate(sentences):
        for word in bag:
            rare.setdefault(word, []).append(index)
    # Near copies share a word that few sentences have.
    pairs = {pair for found in rare.values() if len(found) <= 40 for pair in combinations(found, 2)}
    alike = [
        (sentences[a][1], sentences[b][1])
        for a, b in pairs
        if len(sentences[a][0]) >= 7
        and len(sentences[a][0] & sentences[b][0]) / len(sentences[a][0] | sentences[b][0]) > 0.75
    ]
    assert alike == []


def test_the_splits_are_those_of_the_file_and_the_card() -> None:
    splits = load_stories("sample")
    listed = json.loads((FOLDER / "splits.json").read_text(encoding="utf-8"))
    assert {split: rows["storyid"] for split, rows in splits.items()} == listed
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for split, rows in splits.items():
        others = sum(len(sentences) != 5 for sentences in rows["sentences"])
        assert f"| `{split}` | {len(rows):,} | {others} |" in card


def test_the_card_is_valid_and_names_every_file() -> None:
    card = DatasetCard.load(FOLDER / "README.md")
    assert check_card(card.content, "dataset") == ([], [])
    assert (card.data.license, card.data.language) == ("apache-2.0", ["en"])
    files = {configuration["data_files"] for configuration in card.data.configs}
    assert files == {Path(file).name for paths in SAMPLES.values() for file in paths}
    for path in FOLDER.iterdir():
        assert path.name == "README.md" or f"`{path.name}`" in card.text, path.name
