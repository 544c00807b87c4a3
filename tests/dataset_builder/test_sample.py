"""The bundled stories: number, layout, and no duplicates."""

from __future__ import annotations

import csv
import re
from collections import Counter
from itertools import combinations

from dataset_builder import SAMPLE_FILE, read_stories

STORIES = list(read_stories(SAMPLE_FILE))


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def test_at_least_320_stories_in_the_layout_of_rocstories() -> None:
    with open(SAMPLE_FILE, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["storyid", "storytitle", *(f"sentence{number}" for number in range(1, 6))]
    assert len(rows) == len(STORIES) >= 320
    assert all(len(story.sentences) == 5 for story in STORIES)


def test_ids_and_titles_are_unique() -> None:
    assert len({story.storyid for story in STORIES}) == len(STORIES)
    assert len({story.title.lower() for story in STORIES}) == len(STORIES)
    assert all(story.title.strip() for story in STORIES)


def test_no_two_stories_share_a_sentence() -> None:
    counts = Counter(" ".join(words(sentence)) for story in STORIES for sentence in story.sentences)
    assert [sentence for sentence, count in counts.items() if count > 1] == []


def test_sentences_are_short_and_whole() -> None:
    for story in STORIES:
        for sentence in story.sentences:
            assert 4 <= len(words(sentence)) <= 22, sentence
            assert sentence[-1] in ".!?", sentence
            assert sentence == sentence.strip() and sentence.isascii(), sentence


def test_no_two_stories_are_near_copies() -> None:
    """Two stories of one template share most of their words, names apart; independent ones a quarter at most."""
    sets = [frozenset(words(" ".join(story.sentences))) for story in STORIES]
    worst = max(
        (len(one & other) / len(one | other), first.storyid, second.storyid)
        for (first, one), (second, other) in combinations(zip(STORIES, sets, strict=True), 2)
    )
    assert worst[0] < 0.4, worst


def test_no_two_sentences_are_of_one_template() -> None:
    """The same for sentences of some length: most of the words of one are not those of another."""
    sentences = [
        (frozenset(words(sentence)), story.storyid, sentence) for story in STORIES for sentence in story.sentences
    ]
    rare: dict[str, list[int]] = {}
    for index, (bag, _, _) in enumerate(sentences):
        for word in bag:
            rare.setdefault(word, []).append(index)
    pairs = {
        pair for places in rare.values() if len(places) <= 40 for pair in combinations(places, 2)
    }  # near copies share a word that is not everywhere
    alike = [
        (sentences[a][2], sentences[b][2])
        for a, b in pairs
        if len(sentences[a][0]) >= 7
        and len(sentences[a][0] & sentences[b][0]) / len(sentences[a][0] | sentences[b][0]) > 0.75
    ]
    assert alike == []
