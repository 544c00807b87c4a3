"""Batches of a stream: every story once an epoch, whoever asks and from where, and little padding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder import shuffled_labels, stream_stories
from modeling_sentence_ordering import SentenceOrderingConfig, StoryTokenizer
from tests.modeling_sentence_ordering.small_encoders import word_tokenizer
from tests.training.made_up import made_up_stories
from training.data.batches import Draw
from training.data.stories import TrainingStories, training_loader
from training.data.streaming import StreamBatchSampler, StreamedDraw, StreamedStories
from training.recipe.recipe import Recipe
from training.system.processes import Processes

ROWS = 701
MakeSampler = Callable[..., StreamBatchSampler]


@cache
def story_tokenizer() -> StoryTokenizer:
    tokenizer = word_tokenizer()
    return StoryTokenizer(tokenizer, SentenceOrderingConfig(marker_token_id=tokenizer.cls_token_id))


def streamed(folder: Path, stories: list[list[str]], sizes: list[tuple[int, int]]) -> StreamedStories:
    """Stories in files of so many rows, in row groups of so many."""
    folder.mkdir(exist_ok=True)
    first = 0
    for number, (rows, group) in enumerate(sizes):
        table = pa.table({"sentences": stories[first : first + rows]})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=group)
        first += rows
    return StreamedStories(stream_stories([str(folder)])[0], story_tokenizer())


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> StreamedStories:
    sizes = [(300, 64), (1, 1), (250, 1000), (150, 7)]
    return streamed(tmp_path_factory.mktemp("stream"), made_up_stories(ROWS), sizes)


@pytest.fixture
def read(stories: StreamedStories, monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each story has been read."""
    counts: Counter[int] = Counter()
    original = stories.stream.read

    def counted(*arguments: Any) -> Any:
        for number, story in original(*arguments):
            counts[number] += 1
            yield number, story

    monkeypatch.setattr(stories.stream, "read", counted)
    return counts


def batches(sampler: StreamBatchSampler, epoch: int = 0) -> list[list[Draw]]:
    sampler.set_epoch(epoch)
    return list(sampler)


# Batches in a step, stories in a batch, buffer: no leftovers or some, a lane with a story more than the next, steps of
# single stories, a buffer smaller than a batch and one larger than everything.
SHAPES = [(1, 16, 100), (2, 8, 100), (3, 7, 250), (4, 4, 10), (7, 100, 10_000), (10, 1, 50), (350, 2, 99), (1, 701, 5)]


@pytest.mark.parametrize(("lanes", "size", "buffer"), SHAPES)
@pytest.mark.parametrize("epoch", [0, 3])
def test_every_story_comes_once_an_epoch_in_whole_steps(
    stories: StreamedStories, lanes: int, size: int, buffer: int, epoch: int
) -> None:
    sampler = StreamBatchSampler(stories, size, gradient_accumulation_steps=lanes, buffer_size=buffer)
    found = batches(sampler, epoch)
    assert sorted(draw.index for batch in found for draw in batch) == list(range(ROWS))
    assert len(found) == len(sampler) == sampler.steps_per_epoch * lanes
    assert {draw.epoch for batch in found for draw in batch} == {epoch}
    steps = [found[start : start + lanes] for start in range(0, len(found), lanes)]
    for step in steps:
        assert min(map(len, step)) > 0 and max(map(len, step)) <= max(size, 2 if size == 1 else 0)
        assert max(map(len, step)) - min(map(len, step)) <= 1
        weights = {draw.num_stories for batch in step for draw in batch}
        assert len(weights) == 1
        assert weights.pop() * lanes == pytest.approx(sum(map(len, step)))
    assert all(len(batch) == size for step in steps[:-2] for batch in step)


@pytest.mark.parametrize(("lanes", "size", "buffer"), [(2, 8, 100), (4, 4, 10_000), (6, 3, 60)])
def test_processes_share_an_epoch_without_reading_a_story_of_another(
    stories: StreamedStories, read: Counter[int], lanes: int, size: int, buffer: int
) -> None:
    options: dict[str, Any] = {"gradient_accumulation_steps": lanes, "buffer_size": buffer}
    alone = batches(StreamBatchSampler(stories, size, **options), 1)
    seen: Counter[int] = Counter()
    for rank in range(2):
        read.clear()
        share = batches(StreamBatchSampler(stories, size, processes=Processes(rank, 2), **options), 1)
        assert [batch for batch in share if batch] == alone[rank::2]
        assert [bool(batch) for batch in share] == [place % 2 == rank for place in range(len(alone))]
        assert read == Counter(draw.index for batch in share for draw in batch)
        seen += read
    assert seen == Counter(range(ROWS))


def test_workers_change_nothing(stories: StreamedStories) -> None:
    options: dict[str, Any] = {"gradient_accumulation_steps": 2, "buffer_size": 200}
    alone = batches(StreamBatchSampler(stories, 4, **options))
    for num_workers in (1, 2):
        assert batches(StreamBatchSampler(stories, 4, num_workers=num_workers, **options)) == alone


@pytest.mark.parametrize("group_by_length", [True, False])
@pytest.mark.parametrize(("lanes", "size", "buffer"), SHAPES[:-1])
def test_an_epoch_goes_on_from_any_place(
    stories: StreamedStories, read: Counter[int], lanes: int, size: int, buffer: int, group_by_length: bool
) -> None:
    options: dict[str, Any] = {"gradient_accumulation_steps": lanes, "buffer_size": buffer}
    sampler = StreamBatchSampler(stories, size, group_by_length=group_by_length, **options)
    whole = batches(sampler)
    for place in {0, 1, lanes, len(whole) // 2, len(whole) // 2 // lanes * lanes, len(whole) - lanes, len(whole) - 1}:
        read.clear()
        sampler.will_skip(place)
        rest = batches(sampler)
        assert rest[place:] == whole[place:]
        assert not any(rest[:place])
        assert read.total() <= sum(map(len, whole[place:])) + max(buffer, lanes * size)
        assert batches(sampler) == whole, "said for one iteration only"


def test_stories_are_shuffled_within_the_buffer_and_anew_in_each_epoch(tmp_path: Path) -> None:
    stories = streamed(tmp_path, made_up_stories(4000), [(2000, 100), (2000, 100)])
    sampler = StreamBatchSampler(stories, 16, buffer_size=1000, group_by_length=False)
    epochs = [[draw.index for batch in batches(sampler, epoch) for draw in batch] for epoch in range(2)]
    for order in epochs:
        within = np.array(order[:992])
        assert len({index // 100 for index in within}) <= 11, "ten row groups, and eight stories less"
        assert abs(np.corrcoef(within, range(992))[0, 1]) < 0.2
    together: list[set[frozenset[int]]] = [
        {frozenset(pair) for batch in batches(sampler, epoch) for pair in _neighbours(batch)} for epoch in range(2)
    ]
    assert len(together[0] & together[1]) < 0.1 * len(together[0])


def _neighbours(batch: list[Draw]) -> list[tuple[int, int]]:
    return [(one.index, other.index) for one in batch for other in batch if one.index < other.index]


def test_padding_is_small_and_batches_come_in_random_order(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    words = [generator.integers(2, 18, 5) for _ in range(4000)]
    stories = streamed(tmp_path, [[" ".join(["cat"] * int(n)) for n in story] for story in words], [(4000, 500)])

    def padding(grouped: bool) -> float:
        sampler = StreamBatchSampler(stories, 16, buffer_size=2000, group_by_length=grouped)
        lengths = [[_length(draw) for draw in batch] for batch in sampler]
        return 1 - sum(map(sum, lengths)) / sum(max(batch) * len(batch) for batch in lengths)

    assert padding(grouped=False) > 0.2
    assert padding(grouped=True) < 0.05
    longest = [max(map(_length, batch)) for batch in StreamBatchSampler(stories, 16, buffer_size=2000)]
    assert abs(np.corrcoef(longest[:-1], longest[1:])[0, 1]) < 0.15


def _length(draw: Any) -> int:
    return story_tokenizer().length(draw.story.sentence_ids)


@pytest.mark.parametrize("steps", [1, 5, 43, 44, 100])
def test_what_some_steps_draw_is_told_without_taking_them(stories: StreamedStories, steps: int) -> None:
    sampler = StreamBatchSampler(stories, 4, gradient_accumulation_steps=4, buffer_size=300)
    drawn = [story.storyid for story in sampler.stories_of_steps(steps)]
    expected = [stories.storyid(draw) for batch in batches(sampler)[: steps * 4] for draw in batch]
    assert sorted(drawn) == sorted(expected)
    assert sampler.stories_in(steps) == len(drawn) == len(set(drawn))


def test_the_shuffle_of_a_story_is_the_same_whoever_reads_it(stories: StreamedStories) -> None:
    recipe = Recipe(per_device_train_batch_size=4, gradient_accumulation_steps=2, shuffle_buffer_size=100)
    labels: dict[str, list[list[int]]] = {}
    for fresh in ("fresh", "fixed"):
        recipe.shuffle_sentences = fresh
        loader = training_loader(stories, recipe)
        for epoch in range(2):
            loader.set_epoch(epoch)
            drawn = list(loader.batch_sampler)
            loader.set_epoch(epoch)
            for draws, batch in zip(drawn, loader, strict=True):
                for draw, row in zip(draws, batch["labels"].tolist(), strict=True):
                    labels.setdefault(f"{fresh} {draw.index}", []).append([label for label in row if label >= 0])
                assert batch["num_stories"].item() == pytest.approx(draws[0].num_stories)
    assert all(one == other for name, (one, other) in labels.items() if name.startswith("fixed"))
    changed = [one != other for name, (one, other) in labels.items() if name.startswith("fresh")]
    assert sum(changed) > 0.8 * ROWS
    large = Recipe(per_device_train_batch_size=16, shuffle_buffer_size=700, shuffle_sentences="fixed")
    loader = training_loader(stories, large)
    drawn = list(loader.batch_sampler)
    loader.set_epoch(0)
    for draws, batch in zip(drawn, loader, strict=True):
        for draw, row in zip(draws, batch["labels"].tolist(), strict=True):
            assert [label for label in row if label >= 0] == labels[f"fixed {draw.index}"][0]


def test_fewer_stories_than_a_step_has_batches_are_refused(tmp_path: Path) -> None:
    stories = streamed(tmp_path, made_up_stories(3), [(3, 2)])
    with pytest.raises(ValueError, match="3 training stories are too few"):
        StreamBatchSampler(stories, 4, gradient_accumulation_steps=4)


def test_a_streamed_story_is_shuffled_as_in_the_data_set_and_anew_in_each_epoch(stories: StreamedStories) -> None:
    texts, training = made_up_stories(ROWS), TrainingStories(stories, seed=7)
    for epoch in (0, 2):
        draw = batches(StreamBatchSampler(stories, 16, seed=7), epoch)[0][0]
        assert isinstance(draw, StreamedDraw)
        expected = shuffled_labels(draw.story.storyid, texts[draw.index], 7, epoch)
        assert training[draw].labels == expected
        assert training[draw].sentence_ids == [draw.story.sentence_ids[label] for label in expected]


def test_a_fresh_iteration_is_a_new_epoch(stories: StreamedStories) -> None:
    def epochs(**fields: Any) -> list[list[list[int]]]:
        recipe = Recipe(per_device_train_batch_size=16, shuffle_buffer_size=100, **fields)
        loader = training_loader(stories, recipe)
        return [[row for batch in loader for row in batch["input_ids"].tolist()] for _ in range(3)]

    first, second, third = epochs()
    assert first != second != third != first
    assert epochs(dataloader_num_workers=2) == [first, second, third]
    loader = training_loader(stories, Recipe(per_device_train_batch_size=16, shuffle_buffer_size=100))
    for epoch, expected in ((2, third), (1, second)):
        loader.set_epoch(epoch)
        assert [row for batch in loader for row in batch["input_ids"].tolist()] == expected
    assert [row for batch in loader for row in batch["input_ids"].tolist()] == third


def test_a_record_of_one_sentence_has_no_label(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    some = made_up_stories(30)
    some[4:4], some[20:20] = [["Alone."]], [["Alone, too."]]
    stories = streamed(tmp_path / "stream", some, [(32, 8)])
    loader = training_loader(stories, Recipe(per_device_train_batch_size=4, shuffle_buffer_size=100))
    rows = [row for batch in loader for row in batch["labels"].tolist()]
    assert len(rows) == 32
    assert sum(all(label == -100 for label in row) for row in rows) == 2
    assert [record.getMessage().count("single sentence") + record.getMessage().count("1 sentence")
            for record in caplog.records] == [1]  # fmt: skip
