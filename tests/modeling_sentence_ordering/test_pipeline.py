"""`pipeline("sentence-ordering")` in every form that its input takes; always a permutation, never a surprise."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, IterableDataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import Pipeline, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from modeling_sentence_ordering import SentenceOrderingPipeline, arrangements
from modeling_sentence_ordering.pipeline_sentence_ordering import BATCH_TOKENS
from tests.modeling_sentence_ordering.small_encoders import STORIES, TRANSFORMER_ENCODERS, GetFolder, MakeModel

Answer = dict[str, Any]
NOTHING: Answer = {"sentences": [], "order": [], "scores": []}


@pytest.fixture(scope="module")
def order(make_model: MakeModel) -> SentenceOrderingPipeline:
    model, story_tokenizer = make_model("bert")
    return SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer, device="cpu")


@pytest.fixture(scope="module")
def order_by_text(make_model: MakeModel) -> SentenceOrderingPipeline:
    """A model whose scores are all equal."""
    model, story_tokenizer = make_model("bert")
    torch.nn.init.zeros_(model.head.weight)
    return SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer)


def assert_same(found: list[Answer], expected: list[Answer]) -> None:
    assert [answer["order"] for answer in found] == [answer["order"] for answer in expected]
    assert [answer["sentences"] for answer in found] == [answer["sentences"] for answer in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)


def test_one_story(order: SentenceOrderingPipeline, make_model: MakeModel) -> None:
    story = STORIES[3]
    answer = order(story)
    assert list(answer) == ["sentences", "order", "scores"]
    assert answer["sentences"] == [story[place] for place in answer["order"]]
    assert sorted(answer["order"]) == list(range(len(story)))
    assert answer["order"] == sorted(answer["order"], key=lambda place: answer["scores"][place])
    assert answer["order"] != list(range(len(story))), "this model does change the order"
    assert json.loads(json.dumps(answer)) == answer, "plain values"
    assert {type(score) for score in answer["scores"]} == {float}

    model, story_tokenizer = make_model("bert")
    (shown,) = arrangements(story)
    ids = story_tokenizer.tokenize([story[i] for i in shown])
    logits = model(**story_tokenizer.collate([story_tokenizer.assemble(ids)])).logits[0].tolist()
    assert [answer["scores"][i] for i in shown] == pytest.approx(logits, abs=1e-6)


def test_the_input_is_left_as_it_is(order: SentenceOrderingPipeline) -> None:
    story = list(STORIES[0])
    order(story)
    assert story == STORIES[0]


def test_every_form_of_one_story(order: SentenceOrderingPipeline) -> None:
    story = STORIES[0]
    for form in (tuple(story), {"sentences": story}, {"storyid": 3, "sentences": tuple(story)}):
        assert order(form) == order(story)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_form_of_many_stories(order: SentenceOrderingPipeline, batch_size: int) -> None:
    expected = [order(story) for story in STORIES]
    dataset = Dataset.from_dict({"storyid": list(range(len(STORIES))), "sentences": STORIES})

    def lazily() -> Iterator[dict[str, Any]]:
        yield from ({"sentences": story} for story in STORIES)

    listed: dict[str, Any] = {
        "list": STORIES,
        "tuple": tuple(map(tuple, STORIES)),
        "list of dictionaries": [{"sentences": story} for story in STORIES],
        "column": dataset["sentences"],
    }
    streamed: dict[str, Any] = {
        "generator": (story for story in STORIES),
        "iterator": iter(STORIES),
        "dataset": dataset,
        "streamed dataset": IterableDataset.from_generator(lazily),
        "key dataset": KeyDataset(dataset, "sentences"),
    }
    for form, stories in listed.items():
        found = order(stories, batch_size=batch_size)
        assert isinstance(found, list), form
        assert_same(found, expected)
    for form, stories in streamed.items():
        found = order(stories, batch_size=batch_size)
        assert not isinstance(found, list), form
        assert_same(list(found), expected)


def test_a_generator_is_read_as_answers_are_taken(order: SentenceOrderingPipeline) -> None:
    read = []

    def stories() -> Iterator[list[str]]:
        for number in range(100):
            read.append(number)
            yield STORIES[number % len(STORIES)]

    answers = iter(order(stories(), batch_size=2))
    assert_same([next(answers) for _ in range(3)], [order(story) for story in STORIES[:3]])
    assert len(read) < 10


def test_a_list_is_read_by_the_model_in_batches_of_similar_length(make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert")
    order = SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer)
    stories = [["the cat slept " * (1 + number % 15)] * 3 for number in range(600)]
    shapes: list[tuple[int, int]] = []
    padding = 0

    def look(_: Any, inputs: Any, named: dict[str, Any]) -> None:
        nonlocal padding
        shapes.append(tuple(named["input_ids"].shape))
        padding += int((named["attention_mask"] == 0).sum())

    hook = model.register_forward_pre_hook(look, with_kwargs=True)
    assert [answer["sentences"] for answer in order(stories)] == stories
    hook.remove()
    tokens = [rows * width for rows, width in shapes]
    assert max(tokens) <= BATCH_TOKENS and len(shapes) < 2 * sum(tokens) / BATCH_TOKENS
    assert padding < 0.1 * sum(tokens), "in the order of the input it would be half of it"
    assert shapes == sorted(shapes, key=lambda shape: -shape[1]), "the longest first"


@pytest.mark.parametrize("size", [0, -1, True, "4"])
def test_what_is_no_batch_size_is_refused(size: Any, order: SentenceOrderingPipeline) -> None:
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1"):
        order(STORIES, batch_size=size)


@pytest.mark.parametrize("name", [*TRANSFORMER_ENCODERS, "no-cls", "cnn", "rnn"])
def test_batches_give_the_same_answers_with_every_encoder(name: str, make_model: MakeModel) -> None:
    model, story_tokenizer = make_model(name)
    story_tokenizer.tokenizer.padding_side = "left"  # as some tokenizers say; the model's positions start on the left
    order = SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer)
    assert_same(order([*STORIES, []], batch_size=4), [*(order(story) for story in STORIES), NOTHING])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stories=st.lists(
        st.lists(st.one_of(st.text(max_size=8), st.sampled_from(["[CLS]", "[SEP]", "[PAD] [CLS]", ""])), max_size=5),
        min_size=1,
        max_size=3,
    )
)
def test_always_a_permutation(stories: list[list[str]], order: SentenceOrderingPipeline) -> None:
    answers = order(stories, batch_size=2)
    assert len(answers) == len(stories)
    for story, answer in zip(stories, answers, strict=True):
        assert sorted(answer["order"]) == list(range(len(story)))
        assert answer["sentences"] == [story[place] for place in answer["order"]]
        assert len(answer["scores"]) == len(story) and all(map(math.isfinite, answer["scores"]))
        assert json.dumps(answer)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=st.lists(st.sampled_from(["b", "a", "B", "", "a cat"]), max_size=6), shuffle=st.randoms())
def test_ties_are_broken_by_the_text_then_by_the_place(
    story: list[str], shuffle: Any, order_by_text: SentenceOrderingPipeline
) -> None:
    answer = order_by_text(story)
    assert answer["scores"] == [0.0] * len(story)
    assert answer["order"] == sorted(range(len(story)), key=lambda place: (story[place], place))
    shuffle.shuffle(story)
    assert order_by_text(story)["sentences"] == answer["sentences"], "the order of the input does not leak"


def test_one_sentence_or_none(order: SentenceOrderingPipeline) -> None:
    one = order(["It rained."])
    assert (one["sentences"], one["order"], len(one["scores"])) == (["It rained."], [0], 1)
    assert order([]) == order(()) == order({"sentences": []}) == NOTHING
    assert order([[]]) == [NOTHING]
    assert list(order(iter([]))) == []
    assert list(order(Dataset.from_dict({"sentences": []}))) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("It rained.", "a story is a list of sentences, not one string"),
        (b"It rained.", "a story is a list of sentences, not one string"),
        (5, "a story is a list of sentences, not int"),
        (None, "a story is a list of sentences, not NoneType"),
        (["a", 1], "sentence 1 of a story is int, not a string"),
        ([None, "a"], "sentence 0 of a story is NoneType, not a string"),
        ([["a"], ["b", 2.5]], "sentence 1 of a story is float, not a string"),
        (["a", ["b"]], "sentence 1 of a story is list, not a string"),
        ([1, 2], "a story is a list of sentences, not int"),
        ({"text": "a"}, r"needs the key 'sentences'; this has \['text'\]"),
        ({"sentences": "It rained."}, "a story is a list of sentences, not str"),
        ({"sentences": [["a"], ["b"]]}, "sentence 0 of a story is list, not a string"),
    ],
)
def test_what_is_no_story_is_named(wrong: Any, message: str, order: SentenceOrderingPipeline) -> None:
    with pytest.raises(TypeError, match=message):
        order(wrong)


def test_half_a_surrogate_pair_is_refused(order: SentenceOrderingPipeline) -> None:
    with pytest.raises(ValueError, match="sentence 1 is not text"):
        order(["Fine.", "Not \udc00 fine."])


def test_unknown_keywords_are_refused(order: SentenceOrderingPipeline, make_model: MakeModel) -> None:
    with pytest.raises(TypeError, match="top_k"):
        order(STORIES[0], top_k=1)
    model, story_tokenizer = make_model("bert")
    with pytest.raises(TypeError, match="max_length"):
        SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer, max_length=3)
    with pytest.raises(ValueError, match="no tokenizer"):
        SentenceOrderingPipeline(model=model)


def test_scores_that_are_not_numbers_are_an_error(make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert")
    torch.nn.init.constant_(model.head.bias, math.nan)
    with pytest.raises(ValueError, match="scores are not finite"):
        SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer)(STORIES[0])


def load(folder: Path, **options: Any) -> Pipeline:
    return pipeline("sentence-ordering", model=str(folder), trust_remote_code=True, **options)


def test_in_bfloat16_scores_are_still_float32(model_folder: GetFolder) -> None:
    folder = model_folder("bert")
    half = load(folder, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.bfloat16}
    scores = [score for answer in half(STORIES) for score in answer["scores"]]
    assert any(torch.tensor(score).bfloat16().item() != score for score in scores), "not rounded to 8 bits"
    exact = [score for answer in load(folder)(STORIES) for score in answer["scores"]]
    assert scores == pytest.approx(exact, abs=0.1)


def test_what_the_pipeline_saves_is_complete(model_folder: GetFolder, tmp_path: Path) -> None:
    """As `push_to_hub` of the pipeline writes it, the code that the config names included."""
    first = load(model_folder("rnn"))
    first.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {path.name for path in model_folder("rnn").iterdir()}
    for name in ("config.json", "tokenizer_config.json"):
        saved, original = (json.loads((folder / name).read_text()) for folder in (tmp_path, model_folder("rnn")))
        for entries in (saved, original):  # transformers notes it when it loads a model
            entries.get("backbone_config", {}).pop("dtype", None)
        assert saved == original
    assert load(tmp_path)(STORIES) == first(STORIES)
