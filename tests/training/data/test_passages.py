"""Passages of long texts: drawn anew in every epoch, once each sentence, within the encoder's limit, resumable."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from dataset_builder import stream_stories
from modeling_sentence_ordering import SentenceOrderingConfig, StoryTokenizer
from tests.modeling_sentence_ordering.small_encoders import word_tokenizer
from tests.training.made_up import made_up_stories
from training.data.batches import Draw
from training.data.long_texts import describe_long_texts
from training.data.passages import TextPassages, cut_story, fitting, passage_counts
from training.data.recipe_stories import fixed_passages
from training.data.stories import TokenizedStories, training_loader, training_sampler
from training.data.streaming import StreamedDraw, StreamedStories
from training.recipe.recipe import Recipe
from training.system.processes import Processes

MakeRecipe = Callable[..., Recipe]
SIZES = [4, 9]


def long_texts(count: int = 30, stories_each: int = 12) -> list[list[str]]:
    """Texts of some 54 sentences, and one of at most 6 after every ninth."""
    stories = made_up_stories(count * stories_each)
    texts = [sum(stories[start : start + stories_each], []) for start in range(0, len(stories), stories_each)]
    return [text[:6] if number % 10 == 9 else text for number, text in enumerate(texts)]


def tokenized_texts(max_input_tokens: int | None, texts: list[list[str]] | None = None) -> TokenizedStories:
    tokenizer = word_tokenizer()
    config = SentenceOrderingConfig(marker_token_id=tokenizer.cls_token_id, max_input_tokens=max_input_tokens)
    rows = [{"storyid": f"id-{i}", "sentences": text} for i, text in enumerate(texts or long_texts())]
    return TokenizedStories(Dataset.from_list(rows), StoryTokenizer(tokenizer, config))


@pytest.fixture(scope="module")
def texts() -> TokenizedStories:
    return tokenized_texts(None)


@pytest.fixture(scope="module")
def tight() -> TokenizedStories:
    """The same texts, for an encoder that takes about five sentences."""
    return tokenized_texts(50)


sizes = st.tuples(st.integers(2, 30), st.integers(0, 30)).map(lambda two: (two[0], sum(two)))


@given(sentences=st.integers(2, 400), sizes=sizes, seed=st.integers(0, 99), epoch=st.integers(0, 5))
def test_a_text_is_cut_into_passages_of_the_sizes_wanted(
    sentences: int, sizes: tuple[int, int], seed: int, epoch: int
) -> None:
    count = int(passage_counts(np.array([sentences]), sizes)[0])
    cut = cut_story("key", sentences, count, sizes, seed, epoch)
    assert len(cut) == count and cut == cut_story("key", sentences, count, sizes, seed, epoch)
    assert all(stop <= start for (_, stop), (start, _) in zip(cut, cut[1:], strict=False))
    lengths = [stop - start for start, stop in cut]
    assert cut[0][0] >= 0 and cut[-1][1] <= sentences
    if sentences <= sizes[1]:
        assert cut == [(0, sentences)]
    else:
        assert sizes[0] <= min(lengths) and max(lengths) <= sizes[1]
    if any(part * sizes[0] <= sentences <= part * sizes[1] for part in range(1, sentences)):
        assert sum(lengths) == sentences, "each sentence once"


@given(tokens=st.lists(st.integers(1, 60), min_size=1, max_size=40), room=st.integers(4, 200), seed=st.integers(0, 50))
def test_a_passage_that_is_too_long_gives_the_most_sentences_that_fit(tokens: list[int], room: int, seed: int) -> None:
    start, stop = fitting(tokens, room, "key", seed, 0)
    assert 0 <= start < stop <= len(tokens)
    if sum(tokens) <= room:
        assert (start, stop) == (0, len(tokens))
    elif stop - start > 2:
        assert sum(tokens[start:stop]) <= room
        assert stop == len(tokens) or sum(tokens[start : stop + 1]) > room


@pytest.mark.parametrize("limit", [None, 50])
def test_every_epoch_has_other_passages_of_the_same_number(limit: int | None) -> None:
    texts = tokenized_texts(limit)
    passages = TextPassages(texts, SIZES, seed=7)
    epochs = [[passages.bounds(text, epoch) for text in range(len(texts))] for epoch in range(4)]
    again = TextPassages(texts, SIZES, seed=7)
    assert [again.bounds(text, 2) for text in range(len(texts))] == epochs[2]
    assert all(sum(map(len, epoch)) == len(passages) for epoch in epochs)
    long = [text for text in range(len(texts)) if texts.num_sentences[text] > 20]
    assert all(len({str(epoch[text]) for epoch in epochs}) == 4 for text in long)
    other = TextPassages(texts, SIZES, seed=8)
    assert all(other.bounds(text, 0) != epochs[0][text] for text in long)
    per_sentence = passages.counts[long] / texts.num_sentences[long]
    assert per_sentence.max() < 1.5 * per_sentence.min(), "in proportion to the length"


def test_each_sentence_is_seen_about_once_an_epoch_whatever_the_limit(
    texts: TokenizedStories, tight: TokenizedStories
) -> None:
    for stories, least in [(texts, 1.0), (tight, 0.75)]:
        passages = TextPassages(stories, SIZES, seed=1)
        seen: Counter[tuple[int, int]] = Counter()
        for epoch in range(20):
            for text in range(len(stories)):
                seen.update(
                    (text, place) for start, stop in passages.bounds(text, epoch) for place in range(start, stop)
                )
        assert seen.total() / 20 >= least * stories.num_sentences.sum()
        assert len(seen) == stories.num_sentences.sum(), "every sentence in some epoch"
        assert max(seen.values()) == 20


@pytest.mark.parametrize("limit", [None, 50])
@pytest.mark.parametrize("tokens", [None, 400])
def test_training_draws_passages_that_fit_and_never_cross_texts(
    limit: int | None, tokens: int | None, make_recipe: MakeRecipe
) -> None:
    texts = tokenized_texts(limit)
    recipe = make_recipe(passage_sentences=SIZES, per_device_train_batch_tokens=tokens)
    passages = TextPassages(texts, SIZES, recipe.seed)
    sampler, drawn = training_sampler(texts, recipe), []
    steps = {len(list(training_sampler(texts, recipe))) for _ in range(2)}
    for epoch in range(2):
        batches = list(sampler)
        steps.add(len(batches))
        draws = [draw for batch in batches for draw in batch]
        assert sorted(draw.index for draw in draws) == list(range(len(passages)))
        lengths = passages.lengths_in(epoch)
        assert (lengths <= passages.longest).all()
        for draw in draws:
            key, ids = passages.key_and_ids(draw)
            own = texts.key(int(passages.storyid(draw).removeprefix("id-")))
            assert key.startswith(own)
            text = texts.sentence_ids(int(passages.storyid(draw).removeprefix("id-")))
            assert any(text[start : start + len(ids)] == ids for start in range(len(text)))
            assert texts.story_tokenizer.fits(ids) and 2 <= len(ids) <= SIZES[1]
            assert texts.story_tokenizer.length(ids) == lengths[draw.index]
        drawn.append({passages.key_and_ids(draw)[0] for draw in draws})
        if tokens is not None:
            assert all(len(batch) * max(lengths[draw.index] for draw in batch) <= tokens for batch in batches)
    assert len(steps) == 1
    assert len(drawn[0] & drawn[1]) < len(drawn[0]) / 2


def test_texts_that_fit_are_trained_on_as_without_passages(make_recipe: MakeRecipe) -> None:
    stories = tokenized_texts(None, made_up_stories(40))
    loaders = [training_loader(stories, make_recipe(passage_sentences=sizes)) for sizes in (None, [2, 6])]
    for one, other in zip(*loaders, strict=True):
        assert all((one[name] == other[name]).all() for name in one)


def streamed_texts(folder: Path, texts: TokenizedStories) -> StreamedStories:
    rows = texts.stories.to_list()
    for number in range(3):
        own = [row["sentences"] for row in rows[number::3]]
        ids = [row["storyid"] for row in rows[number::3]]
        pq.write_table(pa.table({"storyid": ids, "sentences": own}), folder / f"{number}.parquet", row_group_size=4)
    return StreamedStories(stream_stories([str(folder)])[0], texts.story_tokenizer)


def drawn_batches(sampler: Any, epoch: int = 0) -> list[list[StreamedDraw]]:
    sampler.set_epoch(epoch)
    return list(sampler)


def test_a_stream_gives_the_passages_of_a_table(
    tmp_path: Path, texts: TokenizedStories, make_recipe: MakeRecipe
) -> None:
    streamed = streamed_texts(tmp_path, texts)
    recipe = make_recipe(passage_sentences=SIZES, shuffle_buffer_size=40)
    passages = TextPassages(texts, SIZES, recipe.seed)
    for epoch in range(2):
        expected = [passages.key_and_ids(Draw(number, epoch, 1.0)) for number in range(len(passages))]
        batches = drawn_batches(training_sampler(streamed, recipe), epoch)
        found = [streamed.key_and_ids(draw) for batch in batches for draw in batch]
        assert sorted(found) == sorted(expected)
        numbers = [draw.index for batch in batches for draw in batch]
        assert sorted(numbers) == list(range(len(passages))) != numbers
        assert {streamed.storyid(draw) for batch in batches for draw in batch} == set(texts.stories["storyid"])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_streamed_epoch_of_passages_goes_on_from_any_place_in_any_process(
    workers: int, tmp_path: Path, tight: TokenizedStories, make_recipe: MakeRecipe
) -> None:
    streamed = streamed_texts(tmp_path, tight)
    recipe = make_recipe(passage_sentences=SIZES, shuffle_buffer_size=40, gradient_accumulation_steps=2)
    whole = drawn_batches(training_sampler(streamed, recipe), 1)
    room = tight.story_tokenizer.room
    assert all(len(ids) >= 2 and sum(len(i) + 1 for i in ids) <= room
               for batch in whole for draw in batch for _, ids in [streamed.key_and_ids(draw)])  # fmt: skip
    recipe = dataclasses.replace(recipe, dataloader_num_workers=workers)
    for place in [1, len(whole) // 2, len(whole) - 1]:
        sampler = training_sampler(streamed, recipe)
        sampler.first = place
        assert drawn_batches(sampler, 1) == whole[place:]
    one = dataclasses.replace(recipe, gradient_accumulation_steps=1)
    shares = [drawn_batches(training_sampler(streamed, one, Processes(rank, 2)), 1) for rank in range(2)]
    assert [batch for both in zip(*shares, strict=True) for batch in both] == whole


def test_evaluation_is_on_fixed_passages(texts: TokenizedStories, tight: TokenizedStories) -> None:
    for stories in (texts, tight):
        passages = fixed_passages(stories, SIZES)
        again = fixed_passages(stories, SIZES)
        assert passages.stories["sentences"][:] == again.stories["sentences"][:]
        assert passages.fits.all() and passages.num_sentences.max() <= SIZES[1]
        by_id = dict(zip(stories.stories["storyid"], stories.stories["sentences"], strict=True))
        for row in passages.stories:
            storyid, _, place = row["storyid"].partition(":")
            start, stop = map(int, place.split("-")) if place else (1, len(by_id[storyid]))
            assert by_id[storyid][start - 1 : stop] == row["sentences"]
    assert len(fixed_passages(texts, SIZES)) == len(TextPassages(texts, SIZES, 0))


def test_texts_that_would_be_cut_are_counted_before_training(
    tmp_path: Path, texts: TokenizedStories, tight: TokenizedStories, make_recipe: MakeRecipe
) -> None:
    recipe = make_recipe()
    assert describe_long_texts(texts, recipe) is None
    for stories in (tight, streamed_texts(tmp_path, tight)):
        line = describe_long_texts(stories, recipe)
        assert line is not None and "--passage_sentences" in line and "50 tokens" in line
        assert f"{(~tight.fits).sum()} of {len(tight)}" in line
        line = describe_long_texts(stories, make_recipe(passage_sentences=[2, 4]))
        assert line is not None and f"of {len(tight)} texts" in line
