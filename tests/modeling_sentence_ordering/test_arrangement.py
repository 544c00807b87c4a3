"""The order in which sentences are shown is a matter of their texts, and so are the answers."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from modeling_sentence_ordering import SentenceOrderingPipeline, arrangements, average_scores
from tests.modeling_sentence_ordering.small_encoders import STORIES, MakeModel

# Sentences of known words, of none, empty, with markers in them, and ones that meet again and again.
WORDS = sorted({word for story in STORIES for sentence in story for word in sentence.split()})
SENTENCES = st.one_of(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join),
    st.sampled_from(["It rained.", "[CLS]", "", "It rained. "]),
    st.text(max_size=6),
)
STORY = st.lists(SENTENCES, max_size=6)
CLOSE = 1e-4  # scores that differ by less may change places where the padding is another
checked = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def order(make_model: MakeModel) -> SentenceOrderingPipeline:
    model, story_tokenizer = make_model("bert")
    return SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer, device="cpu")


def texts(sentences: list[str], ways: list[list[int]]) -> list[list[str]]:
    return [[sentences[i] for i in way] for way in ways]


def in_answer_order(answer: dict[str, Any]) -> list[tuple[str, float]]:
    return [(sentence, answer["scores"][i]) for sentence, i in zip(answer["sentences"], answer["order"], strict=True)]


def swaps(one: dict[str, Any], other: dict[str, Any]) -> list[tuple[str, str]]:
    """Pairs of sentences that stand in one order here and in the other one there."""
    places = {sentence: place for place, sentence in enumerate(other["sentences"])}
    story = one["sentences"]
    return [(a, b) for i, a in enumerate(story) for b in story[i + 1 :] if a != b and places[a] > places[b]]


@checked
@given(story=STORY, count=st.integers(1, 8), data=st.data())
def test_arrangements_depend_on_the_texts_alone(story: list[str], count: int, data: st.DataObject) -> None:
    turned = data.draw(st.permutations(story))
    ways = arrangements(story, count)
    assert texts(story, ways) == texts(turned, arrangements(turned, count))
    assert all(sorted(way) == list(range(len(story))) for way in ways)
    copies = Counter(story).values()
    assert len(ways) == min(count, math.factorial(len(story)) // math.prod(map(math.factorial, copies)))
    assert len(set(map(tuple, texts(story, ways)))) == len(ways), "no two are the same"
    assert ways[0] == arrangements(story)[0]
    assert ways == arrangements(story, count + 1)[: len(ways)]


def test_arrangements_are_the_same_in_every_process_and_version() -> None:
    """Models are judged in them: another hash would change the figures."""
    story = ["Tom baked a cake.", "It rained.", "Ça va ?", "It rained."]
    assert arrangements(story, 3) == [[1, 2, 0, 3], [0, 3, 2, 1], [2, 0, 1, 3]]
    assert arrangements([], 5) == [[]]
    assert arrangements(["half \udc00 a pair", "whole"]) in ([[0, 1]], [[1, 0]])


def test_every_sentence_comes_to_every_place_alike_often() -> None:
    places = Counter(
        (i, place)
        for number in range(1000)
        for place, i in enumerate(arrangements([f"sentence {i} of {number}" for i in range(4)])[0])
    )
    assert len(places) == 16 and all(200 < count < 300 for count in places.values())  # 250 ± 14
    later = Counter(
        tuple(way) for number in range(300) for way in arrangements([f"{i}{number}" for i in "abcd"], 5)[1:]
    )
    assert len(later) == 24 and all(20 < count < 90 for count in later.values())  # 50 ± 7


@pytest.mark.parametrize("count", [0, -1, 1.5, "3", True, None])
def test_what_is_no_count_is_refused(count: Any, order: SentenceOrderingPipeline) -> None:
    with pytest.raises(ValueError, match="num_permutations must be a whole number of at least 1"):
        arrangements(["a", "b"], count)
    if count is not None:  # None is the pipeline's own default
        with pytest.raises(ValueError, match="num_permutations must be"):
            order(STORIES[0], num_permutations=count)


def test_the_number_of_arrangements_has_a_limit(order: SentenceOrderingPipeline) -> None:
    with pytest.raises(ValueError, match="num_permutations must be at most 1,000"):
        order(STORIES[0], num_permutations=10**5000)


@checked
@given(stories=st.lists(STORY, min_size=1, max_size=3), count=st.integers(1, 3), data=st.data())
def test_the_same_sentences_give_the_same_story_exactly(
    stories: list[list[str]], count: int, data: st.DataObject, order: SentenceOrderingPipeline
) -> None:
    turned = [data.draw(st.permutations(story)) for story in stories]
    batch_size = data.draw(st.integers(1, 4))
    ours = order(stories, batch_size=batch_size, num_permutations=count)
    theirs = order(turned, batch_size=batch_size, num_permutations=count)
    for story, one, other in zip(turned, ours, theirs, strict=True):
        assert in_answer_order(one) == in_answer_order(other)
        assert other["sentences"] == [story[i] for i in other["order"]]
        for text, number in Counter(story).items():  # copies keep the order of the input
            copies = [i for i in other["order"] if story[i] == text]
            assert len(copies) == number and copies == sorted(copies)


@checked
@given(stories=st.lists(STORY, min_size=2, max_size=4), count=st.integers(1, 3), data=st.data())
def test_among_other_stories_only_sentences_of_nearly_equal_scores_change_places(
    stories: list[list[str]], count: int, data: st.DataObject, order: SentenceOrderingPipeline
) -> None:
    turned = [data.draw(st.permutations(story)) for story in stories]
    together = order(turned, batch_size=data.draw(st.integers(2, 6)), num_permutations=count)
    total = 0
    for story, one in zip(stories, together, strict=True):
        alone = order(story, num_permutations=count)
        scores = dict(in_answer_order(alone))
        assert [score for _, score in sorted(in_answer_order(one))] == pytest.approx(
            [score for _, score in sorted(in_answer_order(alone))], abs=CLOSE
        )
        changed = swaps(one, alone) if len(set(story)) == len(story) else []
        assert all(abs(scores[a] - scores[b]) < CLOSE for a, b in changed)
        total += len(changed)
    event(f"swaps: {total}")


def test_scores_are_the_mean_over_the_arrangements(order: SentenceOrderingPipeline, make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert")
    story = STORIES[3]
    sums = dict.fromkeys(story, 0.0)
    for way in arrangements(story, 5):
        ids = story_tokenizer.tokenize([story[i] for i in way])
        logits = model(**story_tokenizer.collate([story_tokenizer.assemble(ids)])).logits[0].tolist()
        for i, logit in zip(way, logits, strict=True):
            sums[story[i]] += logit
    expected = [sums[sentence] / 5 for sentence in story]
    for batch_size in (1, 2, 16):
        answer = order([story, STORIES[1]], num_permutations=5, batch_size=batch_size)[0]
        assert answer["scores"] == pytest.approx(expected, abs=1e-5)
    assert order(story)["scores"] != pytest.approx(expected, abs=0.01)


def test_as_many_arrangements_as_told_go_through_the_model_at_once(make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert")
    sizes: list[int] = []
    model.register_forward_pre_hook(
        lambda module, inputs, named: sizes.append(len(named["input_ids"])), with_kwargs=True
    )
    order = SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer, num_permutations=5)
    order([STORIES[0], STORIES[3], STORIES[2]], batch_size=4)
    assert sizes == [4, 4, 4], "5 and 5, and of two sentences there are but two arrangements"


def test_what_an_arrangement_adds_to_all_scores_changes_no_order() -> None:
    story, ways = ["a", "b", "c"], [[0, 1, 2], [2, 0, 1]]
    rows = [[0.5, -0.25, 1.0], [0.75, 0.0, 0.25]]
    plain = average_scores(story, ways, rows)
    assert plain == [0.25, 0.0, 0.875]
    shifted = average_scores(
        story, ways, [[value + shift for value in row] for row, shift in zip(rows, [8, -2], strict=True)]
    )
    assert shifted == [value + 3 for value in plain]


def test_copies_share_their_scores_out_by_their_place_in_the_input() -> None:
    story, ways = ["x", "y", "x"], [[0, 2, 1], [1, 2, 0]]
    assert average_scores(story, ways, [[5.0, 1.0, 3.0], [4.0, 2.0, 6.0]]) == [1.5, 3.5, 5.5]


def test_a_sentence_that_was_cut_off_has_the_mean_of_where_it_was_not() -> None:
    ways = [[0, 1, 2], [2, 1, 0]]
    assert average_scores(["a", "b", "c"], ways, [[1.0, 2.0], [5.0]]) == [1.0, 2.0, 5.0]
    assert average_scores(["a", "b", "c"], ways, [[1.0], [5.0]]) == [1.0, None, 5.0]


@pytest.mark.parametrize("name", ["cnn", "rnn", "roberta"])
def test_it_holds_for_other_encoders(name: str, make_model: MakeModel) -> None:
    model, story_tokenizer = make_model(name)
    order = SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer)
    expected = order(STORIES, batch_size=4)
    found = order([story[::-1] for story in STORIES], batch_size=4)
    assert [in_answer_order(answer) for answer in found] == [in_answer_order(answer) for answer in expected]


def test_infinite_scores_have_no_mean() -> None:
    """`math.fsum` of infinities of both signs is an exception, which ended the ordering of all other stories."""
    found = average_scores(["A.", "B."], [[0, 1], [1, 0]], [[math.inf, 0.5], [1.5, -math.inf]])
    assert math.isnan(found[0]) and found[1] == 1.0
