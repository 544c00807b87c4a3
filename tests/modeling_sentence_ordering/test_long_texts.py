"""Texts that the encoder does not hold: ordered all the same, by the pipeline, whatever their length and batch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from modeling_sentence_ordering import (
    SentenceOrderingModel,
    SentenceOrderingPipeline,
    combine_groups,
    number_of_rounds,
)
from tests.modeling_sentence_ordering.small_encoders import STORIES, MakeModel

LIMIT = 48
LONG = [f"{sentence} {number}" for number in range(2) for story in STORIES for sentence in story if len(sentence) < 25]
SENTENCES = st.lists(
    st.one_of(
        st.sampled_from(LONG),
        st.sampled_from(["[CLS]", "", "the cat slept " * 20]),
        st.integers(0, 30).map(lambda count: "cat " * count),
    ),
    max_size=25,
)
checked = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def short(make_model: MakeModel) -> SentenceOrderingPipeline:
    """A model that holds few sentences at once."""
    model, story_tokenizer = make_model("bert", max_input_tokens=LIMIT, confidence_temperature=0.5)
    return SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer, device="cpu")


def in_answer_order(answer: dict[str, Any]) -> list[tuple[str, float]]:
    return [(sentence, answer["scores"][i]) for sentence, i in zip(answer["sentences"], answer["order"], strict=True)]


class Watched:
    """Counts what goes through a model: sequences, and tokens at once."""

    def __init__(self, model: SentenceOrderingModel) -> None:
        self.batches: list[tuple[int, int]] = []
        self._hook = model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: Any, inputs: Any, named: dict[str, Any]) -> None:
        self.batches.append(tuple(named["input_ids"].shape))

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: Any) -> None:
        self._hook.remove()


def test_a_long_text_is_answered_like_a_short_one(short: SentenceOrderingPipeline) -> None:
    answer = short(LONG)
    assert list(answer) == ["sentences", "order", "scores", "confidence"]
    assert sorted(answer["order"]) == list(range(len(LONG)))
    assert answer["sentences"] == [LONG[i] for i in answer["order"]]
    assert answer["order"] == sorted(answer["order"], key=lambda i: answer["scores"][i])
    assert len(answer["confidence"]) == len(LONG) - 1 and all(0.5 <= value < 1 for value in answer["confidence"])
    assert json.loads(json.dumps(answer)) == answer, "plain values"


@checked
@given(text=SENTENCES, count=st.integers(1, 2), data=st.data())
def test_neither_the_order_of_the_input_nor_the_batch_matters(
    text: list[str], count: int, data: st.DataObject, short: SentenceOrderingPipeline
) -> None:
    turned = data.draw(st.permutations(text))
    batch_size = data.draw(st.integers(1, 3))
    one = short(text, num_permutations=count)
    _, other, _ = short([LONG, turned, STORIES[0]], num_permutations=count, batch_size=batch_size)
    tokenizer = short.story_tokenizer
    ids, cut = tokenizer.shortened(tokenizer.tokenize(text))
    assert [text[i] for i in one.get("truncated", [])] == [text[i] for i in cut]
    assert sorted(turned[i] for i in other.get("truncated", [])) == sorted(text[i] for i in cut)
    event(f"fits: {tokenizer.fits(ids)}, cut: {bool(cut)}")
    for sentences, answer in ((text, one), (turned, other)):
        assert sorted(answer["order"]) == list(range(len(text)))
        assert answer["sentences"] == [sentences[i] for i in answer["order"]]
    if not tokenizer.fits(ids):
        assert in_answer_order(one) == in_answer_order(other), "exactly, in any batch"
    copies = [i for i in other["order"] if turned[i] == "[CLS]"]
    assert copies == sorted(copies)


def test_short_stories_beside_a_long_text_are_what_they_are_alone(short: SentenceOrderingPipeline) -> None:
    story = STORIES[0][:3]
    alone, long = short(story), short(LONG)
    for batch_size in (1, 2, 4):
        answers = short([story, LONG, [], story, LONG], batch_size=batch_size)
        assert [answer["order"] for answer in answers] == [
            alone["order"],
            long["order"],
            [],
            alone["order"],
            long["order"],
        ]
        assert answers[1] == answers[4] == long
        assert answers[3]["scores"] == pytest.approx(alone["scores"], abs=1e-5)


def test_a_stream_is_answered_one_by_one(short: SentenceOrderingPipeline) -> None:
    read = []

    def texts() -> Iterator[dict[str, Any]]:
        for number in range(50):
            read.append(number)
            yield {"sentences": LONG if number % 2 else STORIES[0][:2], "last": 1}

    answers = iter(short(texts(), batch_size=2))
    first = [next(answers) for _ in range(2)]
    assert [len(answer["order"]) for answer in first] == [2, len(LONG)]
    assert [answer["order"][-1] for answer in first] == [1, 1]
    assert len(read) < 10


def test_fixed_points_are_kept(short: SentenceOrderingPipeline) -> None:
    free = short(LONG)["order"]
    first, last = free[-1], free[0]
    before = [(free[-2], free[1]), (free[-3], free[-2])]
    answer = short(LONG, first=first, last=last, before=before)
    place = {index: number for number, index in enumerate(answer["order"])}
    assert (answer["order"][0], answer["order"][-1]) == (first, last)
    assert all(place[i] < place[j] for i, j in before)
    assert answer["scores"] == short(LONG)["scores"]
    assert answer["confidence"][0] == answer["confidence"][-1] == 1.0


def test_what_fits_once_it_is_cut_goes_through_in_one_piece(
    short: SentenceOrderingPipeline, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the same sentences, already cut, are ordered by a model that takes more."""
    model, story_tokenizer = make_model("bert", max_input_tokens=100, confidence_temperature=0.5)
    large = SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer)
    text = ["the cat slept", "cat " * 40, "it rained"]
    most = short.story_tokenizer.room // 2 - 1
    with Watched(short.model) as watched:
        answer = short(text, num_permutations=3)
    assert sum(rows for rows, _ in watched.batches) == 3
    assert answer.pop("truncated") == [1]
    tokenize = large.story_tokenizer.tokenize_stories
    monkeypatch.setattr(
        large.story_tokenizer,
        "tokenize_stories",
        lambda stories, **_: [[ids[:most] for ids in story] for story in tokenize(stories)],
    )
    expected = large(text, num_permutations=3)
    assert expected == answer


@pytest.mark.parametrize(
    "text", [["cat " * 50_000], ["cat " * 50_000, "It rained."], ["cat " * 99] * 5, ["x" * 100_000]]
)
def test_sentences_of_any_length_are_cut_and_named(text: list[str], short: SentenceOrderingPipeline) -> None:
    with Watched(short.model) as watched:
        answer = short(text)
    assert max(tokens for _, tokens in watched.batches) <= LIMIT
    assert sorted(answer["order"]) == list(range(len(text)))
    assert answer["sentences"] == [text[i] for i in answer["order"]], "whole in the answer"
    ids = short.story_tokenizer.tokenize(text)
    assert answer.get("truncated", []) == [i for i, sentence in enumerate(ids) if len(sentence) > LIMIT]


def test_only_what_is_too_long_for_half_the_room_is_cut(short: SentenceOrderingPipeline) -> None:
    tokenizer = short.story_tokenizer
    assert tokenizer.room == LIMIT - 1
    ids = [[5] * count for count in (3, 22, 23, 40, 0)]
    assert tokenizer.shortened(ids) == ([[5] * 3, [5] * 22, [5] * 22, [5] * 22, []], [2, 3])
    assert tokenizer.shortened([[5] * 30, [5] * 15]) == ([[5] * 30, [5] * 15], []), "which fits as it is"
    assert tokenizer.fits([[5] * 30, [5] * 15]) and not tokenizer.fits([[5] * 30, [5] * 16])


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_an_encoder_that_holds_next_to_nothing_refuses_nothing(limit: int, make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert", max_input_tokens=limit)
    order = SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer)
    for text in (["It rained."], STORIES[0], [""] * 9, LONG[:20]):
        assert sorted(order(text)["order"]) == list(range(len(text)))


def test_more_permutations_are_more_groups(short: SentenceOrderingPipeline) -> None:
    calls = []
    for count in (1, 3):
        with Watched(short.model) as watched:
            short(LONG, num_permutations=count)
        calls.append(sum(rows for rows, _ in watched.batches))
    assert calls[1] == pytest.approx(3 * calls[0], rel=0.15)
    assert short(LONG)["scores"] != short(LONG, num_permutations=3)["scores"]


@pytest.mark.parametrize("size", [2, 5])
def test_groups_are_as_large_as_the_config_says(size: int, make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert", max_input_tokens=200, group_size=size)
    sizes = []
    model.register_forward_pre_hook(
        lambda module, inputs, named: (
            sizes.extend((named["marker_positions"] >= 0).sum(dim=1).tolist()) if "marker_positions" in named else None
        ),
        with_kwargs=True,
    )
    SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer)(LONG)
    assert max(sizes) == size


def test_thousands_of_sentences_take_no_more_memory_at_once(make_model: MakeModel) -> None:
    """And as many groups as stated: 200 a round, and 18 rounds."""
    model, story_tokenizer = make_model("bert", max_input_tokens=500)
    order = SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer)
    text = [f"{number} the cat {number}" for number in range(2000)]
    with Watched(model) as watched:
        answer = order(text)
    assert sorted(answer["order"]) == list(range(2000))
    assert max(rows * tokens for rows, tokens in watched.batches) <= 8192
    assert sum(rows for rows, _ in watched.batches) == 200 * number_of_rounds(200) == 3600


def test_an_encoder_without_a_limit_is_shown_groups_as_well(make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("rnn", max_input_tokens=None)
    order = SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer)
    with Watched(model) as watched:
        order(["the cat slept"] * 1000)
    assert watched.batches == [(1, 4001)], "4,096 tokens still go through at once"
    with Watched(model) as watched:
        order([f"the cat slept {number}" for number in range(1000)])
    assert max(tokens for _, tokens in watched.batches) < 200


def test_progress_is_for_terminals(short: SentenceOrderingPipeline, capfd: pytest.CaptureFixture[str]) -> None:
    short(LONG)
    assert capfd.readouterr() == ("", "")


def test_scores_that_are_not_numbers_are_an_error(make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert", max_input_tokens=LIMIT)
    model.head.bias.data.fill_(math.nan)
    with pytest.raises(ValueError, match="scores are not finite"):
        SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer)(LONG)


def test_groups_are_scored_as_one_by_one_in_the_unit_of_the_model(short: SentenceOrderingPipeline) -> None:
    tokenizer = short.story_tokenizer
    ids = tokenizer.tokenize(LONG)

    def one_by_one(groups: list[list[int]]) -> list[list[float]]:
        stories = [tokenizer.assemble([ids[i] for i in group]) for group in groups]
        return [short.model(**tokenizer.collate([story])).logits[0].tolist() for story in stories]

    expected = combine_groups(
        LONG, one_by_one, lengths=[len(one) + 1 for one in ids], room=LIMIT - 1, group_size=10, temperature=0.5
    )
    assert short(LONG)["scores"] == pytest.approx(expected, abs=1e-3)
