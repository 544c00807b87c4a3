"""`order` and `evaluate` show stories in arrangements of their own: what comes of it, whatever order they come in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from dataset_builder import Story, load_all
from modeling_sentence_ordering import SentenceOrderingPipeline, StoryTokenizer
from tests.training.conftest import Trained, done_ordering, run_command
from tests.training.made_up import made_up_stories, write_jsonl
from training.data.stories import TokenizedStories
from training.evaluation.predictions import ScoresNotFinite, evaluate, predict
from training.inference.ordering import OrderedStory, order_stories
from training.models.trained_model import load_trained_model

Loaded = tuple[Any, Any]
STORIES = [
    *made_up_stories(40, shortest=2, longest=6, seed=3),
    ["It rained."],
    ["Tom baked.", "It rained.", "Tom baked."],
]
CLOSE = 1e-4
checked = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def loaded(trained: Trained) -> Loaded:
    return load_trained_model(str(trained.folder))


@pytest.fixture(scope="module")
def stories(home: Path) -> Dataset:
    return load_all([str(home / "stories.jsonl")])


def ordered(loaded: Loaded, stories: list[list[str]], **options: Any) -> list[OrderedStory]:
    records = [Story(tuple(story), f"id-{i}") for i, story in enumerate(stories)]
    return list(order_stories(*loaded, records, **options))


def in_answer_order(answer: OrderedStory) -> list[tuple[str, float]]:
    return [(sentence, answer.scores[i]) for sentence, i in zip(answer.sentences, answer.order, strict=True)]


@checked
@given(
    chosen=st.lists(st.sampled_from(STORIES), min_size=1, max_size=6),
    options=st.fixed_dictionaries({"batch_size": st.integers(1, 7), "num_permutations": st.integers(1, 4)}),
    data=st.data(),
)
def test_the_same_sentences_give_the_same_story_exactly(
    chosen: list[list[str]], options: dict[str, int], data: st.DataObject, loaded: Loaded
) -> None:
    turned = [data.draw(st.permutations(story)) for story in chosen]
    ours, theirs = ordered(loaded, chosen, **options), ordered(loaded, turned, **options)
    assert list(map(in_answer_order, ours)) == list(map(in_answer_order, theirs))
    for story, answer in zip(turned, theirs, strict=True):
        assert answer.sentences == [story[i] for i in answer.order]


@checked
@given(chosen=st.lists(st.sampled_from(STORIES), min_size=2, max_size=8), data=st.data())
def test_among_other_stories_only_sentences_of_nearly_equal_scores_change_places(
    chosen: list[list[str]], data: st.DataObject, loaded: Loaded
) -> None:
    turned = [data.draw(st.permutations(story)) for story in chosen]
    swaps = 0
    for alone, together in zip(
        ordered(loaded, chosen, batch_size=1),
        ordered(loaded, turned, batch_size=data.draw(st.integers(2, 8))),
        strict=True,
    ):
        scores = dict(in_answer_order(alone))
        for a, b in zip(alone.sentences, together.sentences, strict=True):
            swaps += a != b
            assert abs(scores[a] - scores[b]) < CLOSE
    event(f"sentences at another place: {swaps}")


@pytest.mark.parametrize("count", [1, 4])
def test_order_and_pipeline_and_command_are_of_one_mind(
    count: int, trained: Trained, loaded: Loaded, tmp_path: Path
) -> None:
    pipeline = SentenceOrderingPipeline(model=loaded[0], tokenizer=loaded[1])
    expected = pipeline(STORIES, num_permutations=count)
    path = write_jsonl(tmp_path / "stories.jsonl", STORIES)
    result = run_command("order", "--model", trained.folder, path, "--num_permutations", str(count))
    assert (result.code, result.err) == (0, done_ordering(len(STORIES)))
    lines = [json.loads(line) for line in result.out.splitlines()]
    for answers in (lines, [vars(answer) for answer in ordered(loaded, STORIES, num_permutations=count)]):
        assert [answer["sentences"] for answer in answers] == [answer["sentences"] for answer in expected]
        for answer, other in zip(answers, expected, strict=True):
            assert answer["scores"] == pytest.approx(other["scores"], abs=1e-5)


def test_more_arrangements_are_another_answer(loaded: Loaded) -> None:
    one, many = ordered(loaded, STORIES), ordered(loaded, STORIES, num_permutations=8)
    changed = [abs(a - b) for x, y in zip(one, many, strict=True) for a, b in zip(x.scores, y.scores, strict=True)]
    assert max(changed) > 0.01


@pytest.mark.parametrize("count", [1, 3])
def test_evaluation_judges_what_order_says(count: int, loaded: Loaded, stories: Dataset) -> None:
    model, tokenizer = loaded
    tokenized = TokenizedStories(stories, StoryTokenizer(tokenizer, model.config))
    found = predict(model, tokenized, batch_size=7, num_permutations=count)
    shuffled = [
        [story["sentences"][i] for i in tokenized.evaluation_labels(place)] for place, story in enumerate(stories)
    ]
    for place, answer in enumerate(ordered(loaded, shuffled, num_permutations=count)):
        n = len(answer.scores)
        assert found.scores[place, :n].tolist() == pytest.approx(answer.scores, abs=1e-5)
        assert found.labels[place].tolist() == tokenized.evaluation_labels(place) + [-100] * (found.labels.shape[1] - n)
        assert found.sentence_mask[place].tolist() == [True] * n + [False] * (found.labels.shape[1] - n)


def test_the_shuffle_of_the_data_set_has_no_part_in_it(loaded: Loaded, stories: Dataset) -> None:
    model, tokenizer = loaded
    splits = [TokenizedStories(stories, StoryTokenizer(tokenizer, model.config), seed) for seed in (42, 7)]
    arranged = [evaluate(model, split, num_permutations=2) for split in splits]
    assert arranged[0] == pytest.approx(arranged[1], rel=1e-6)
    assert evaluate(model, splits[0]) == pytest.approx(evaluate(model, splits[1]), rel=1e-6)


def test_progress_does_not_depend_on_portions(
    loaded: Loaded, stories: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = loaded
    tokenized = TokenizedStories(stories, StoryTokenizer(tokenizer, model.config))
    expected = predict(model, tokenized, num_permutations=2)
    monkeypatch.setattr("training.evaluation.predictions.PORTION", 7)
    found = predict(model, tokenized, num_permutations=2)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_what_does_not_fit_is_judged_as_order_orders_it(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = loaded
    monkeypatch.setattr(model.config, "max_input_tokens", 45)
    long = STORIES[:9]
    rows = [{"storyid": f"id-{i}", "storytitle": "", "sentences": story} for i, story in enumerate(long)]
    tokenized = TokenizedStories(Dataset.from_list(rows), StoryTokenizer(tokenizer, model.config))
    assert evaluate(model, tokenized, long_texts=False)["dropped_sentences"] > 0, "one pass leaves something out"
    assert evaluate(model, tokenized)["dropped_sentences"] == 0
    assert evaluate(model, tokenized, num_permutations=1)["dropped_sentences"] == 0
    found = predict(model, tokenized, num_permutations=2)
    for place, answer in enumerate(ordered(loaded, long, num_permutations=2)):
        labels = tokenized.evaluation_labels(place)
        scores = [answer.scores[i] for i in labels]
        assert found.scores[place, : len(labels)].tolist() == pytest.approx(scores, abs=1e-4)


def test_a_model_that_has_diverged_is_found_out(trained: Trained, stories: Dataset) -> None:
    model, tokenizer = load_trained_model(str(trained.folder))
    model.head.weight.data.fill_(float("nan"))
    with pytest.raises(ScoresNotFinite):
        evaluate(model, TokenizedStories(stories, StoryTokenizer(tokenizer, model.config)), num_permutations=2)


def test_the_command_evaluates_arrangements(trained: Trained, loaded: Loaded, stories: Dataset) -> None:
    data = trained.home / "stories.jsonl"
    tokenized = TokenizedStories(stories, StoryTokenizer(loaded[1], loaded[0].config))
    arguments = ["evaluate", "--model", str(trained.folder), "--data", str(data), "--split", "all"]
    for flags, count in (([], None), (["--num_permutations", "3"], 3)):
        expected = evaluate(loaded[0], tokenized, num_permutations=count)
        result = run_command(*arguments, *flags)
        assert result.code == 0
        assert f"kendalls_tau       {expected['kendalls_tau']:.4f}\n" in result.out
        assert f"loss               {expected['loss']:.4f}\n" in result.out


@pytest.mark.parametrize("command", ["order", "evaluate"])
def test_less_than_one_arrangement_is_refused(command: str, trained: Trained) -> None:
    data = ["--data", "sample"] if command == "evaluate" else []
    result = run_command(command, "--model", trained.folder, *data, "--num_permutations", "0")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("sentence-ordering: --num_permutations must be at least 1, got 0")


@pytest.mark.parametrize("read_ahead", [False, True])
def test_what_was_read_is_answered_before_the_input_breaks(
    read_ahead: bool, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.inference.ordering.PORTION", 2)

    def records() -> Iterator[Story]:
        for number in range(5):
            yield Story(tuple(STORIES[number]), f"id-{number}")
        raise OSError("the disk is gone")

    answers = []
    with pytest.raises(OSError, match="the disk is gone"):
        for answer in order_stories(*loaded, records(), read_ahead=read_ahead):
            answers.append(answer.story.storyid)
    assert answers == ["id-0", "id-1", "id-2", "id-3"]


def test_reading_ahead_changes_no_answer(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ordered(loaded, STORIES, batch_size=1)
    monkeypatch.setattr("training.inference.ordering.PORTION", 4)
    assert ordered(loaded, STORIES, batch_size=1, read_ahead=True) == expected


def test_one_story_that_is_no_text_harms_no_other(loaded: Loaded) -> None:
    answers = ordered(loaded, [STORIES[0], ["It \ud83d rained.", "Tom baked."], STORIES[1]])
    assert [answer.error is None for answer in answers] == [True, False, True]
    assert "half of a surrogate pair" in str(answers[1].error)
    assert answers[2].sentences == ordered(loaded, [STORIES[1]])[0].sentences


def test_in_bfloat16_scores_are_nearly_the_same(trained: Trained, loaded: Loaded, stories: Dataset) -> None:
    faster = load_trained_model(str(trained.folder), bf16=True)
    exact, rough = ordered(loaded, STORIES), ordered(faster, STORIES)
    one, other = ([score for answer in answers for score in answer.scores] for answers in (exact, rough))
    assert 0 < max(abs(a - b) for a, b in zip(one, other, strict=True)) < 0.1
    model, tokenizer = loaded
    tokenized = TokenizedStories(stories, StoryTokenizer(tokenizer, model.config))
    for count in (None, 2):
        found = predict(faster[0], tokenized, num_permutations=count).scores
        exactly = predict(model, tokenized, num_permutations=count).scores
        assert 0 < np.abs(found - exactly).max() < 0.1
