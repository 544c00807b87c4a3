"""What a caller knows of the order is kept, and the rest follows the scores as well as it can."""

from __future__ import annotations

import json
import math
import time
from itertools import pairwise, permutations
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeling_sentence_ordering import FixedPoints, SentenceOrderingPipeline, in_order, order_by_scores
from tests.modeling_sentence_ordering.small_encoders import STORIES, MakeModel

checked = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def known_orders(draw: st.DrawFn, *, disjoint: bool = False, most: int = 7) -> tuple[list[float], FixedPoints]:
    """Scores, and constraints that some order of the sentences satisfies."""
    n = draw(st.integers(1, most))
    scores = [float(value) for value in draw(st.lists(st.integers(-9, 9), min_size=n, max_size=n))]
    possible = draw(st.permutations(range(n)))
    pairs = [(i, j) for place, j in enumerate(possible) for i in possible[:place]]
    if disjoint:
        scores = [score + 2.0 ** -(4 + i) for i, score in enumerate(scores)]  # no ties, not even of means of two
        pairs = list(zip(possible[1:-1:2], possible[2:-1:2], strict=False))
    before = draw(st.lists(st.sampled_from(pairs), max_size=n)) if pairs else []
    ends = {name: index for name, index in (("first", possible[0]), ("last", possible[-1])) if draw(st.booleans())}
    return scores, FixedPoints.read({**ends, "before": before}, n)


def keeps(order: list[int], fixed: FixedPoints) -> bool:
    place = {index: place for place, index in enumerate(order)}
    return (
        (fixed.first is None or order[0] == fixed.first)
        and (fixed.last is None or order[-1] == fixed.last)
        and all(place[i] < place[j] for i, j in fixed.before)
    )


def against_the_scores(order: list[int], scores: list[float]) -> float:
    return sum(max(scores[i] - scores[j], 0) for place, j in enumerate(order) for i in order[:place])


def from_the_places(order: list[int], scores: list[float]) -> float:
    return sum((place - scores[index]) ** 2 for place, index in enumerate(order))


@checked
@given(known_orders(most=30))
def test_the_answer_is_a_permutation_that_keeps_what_is_known(known: tuple[list[float], FixedPoints]) -> None:
    scores, fixed = known
    order = order_by_scores(scores, fixed)
    assert sorted(order) == list(range(len(scores)))
    assert keeps(order, fixed)


@checked
@given(known_orders(disjoint=True, most=6))
def test_no_order_is_better_where_each_sentence_is_in_one_pair_at_most(known: tuple[list[float], FixedPoints]) -> None:
    scores, fixed = known
    allowed = [list(order) for order in permutations(range(len(scores))) if keeps(list(order), fixed)]
    found = order_by_scores(scores, fixed)
    for sum_of in (against_the_scores, from_the_places):
        assert sum_of(found, scores) == min(sum_of(order, scores) for order in allowed)


@checked
@given(known_orders(most=6))
def test_any_order_is_nearly_the_best(known: tuple[list[float], FixedPoints]) -> None:
    """No guarantee; but no random order comes near it either."""
    scores, fixed = known
    allowed = [list(order) for order in permutations(range(len(scores))) if keeps(list(order), fixed)]
    costs = [against_the_scores(order, scores) for order in allowed]
    assert against_the_scores(order_by_scores(scores, fixed), scores) <= sum(costs) / len(costs) + 1e-9


@checked
@given(st.lists(st.integers(-3, 3).map(float), max_size=8), st.data())
def test_without_fixed_points_it_is_sorting(scores: list[float], data: st.DataObject) -> None:
    ties = data.draw(st.permutations(range(len(scores))))
    expected = sorted(range(len(scores)), key=lambda i: (scores[i], ties[i]))
    assert order_by_scores(scores, FixedPoints(), tie_break=ties.__getitem__) == expected
    # And what the scores say already changes nothing.
    before = tuple((i, j) for i, j in pairwise(expected))
    assert order_by_scores(scores, FixedPoints(before=before), tie_break=ties.__getitem__) == expected


def test_a_late_sentence_is_drawn_forward_by_an_early_one_that_follows_it() -> None:
    scores = [9.0, 0.0, 4.0, 4.4, 4.6, 5.0]
    assert order_by_scores(scores, FixedPoints(before=((0, 1),))) == [2, 3, 0, 1, 4, 5]


def test_a_sentence_between_two_others_is_not_left_out_of_their_block() -> None:
    """Sentence 2 is behind 0 and behind 1, and 1 is behind 0: it is to be joined to 1, not to 0."""
    fixed = FixedPoints(before=((0, 2), (1, 2), (0, 1)))
    assert order_by_scores([5.0, 1.0, -8.0, 0.0], fixed) == [0, 1, 2, 3]


def test_thousands_of_sentences_in_a_known_order() -> None:
    n = 3000
    fixed = FixedPoints.read({"before": [(i + 1, i) for i in range(n - 1)]}, n)
    assert order_by_scores([float(i) for i in range(n)], fixed) == list(range(n))[::-1]


def test_time_grows_with_the_number_of_constraints() -> None:
    """All pairs of 400 sentences took half a minute; now it is a fraction of a second, and as much for the answer."""
    n = 400
    fixed = FixedPoints.read({"before": [(j, i) for i in range(n) for j in range(i + 1, n)]}, n)
    layers = [(i, j) for i in range(150) for j in range(150, 300)] + [
        (i, j) for i in range(150, 300) for j in range(300, n)
    ]
    began = time.process_time()
    answer = in_order(["same"] * n, [float(i) for i in range(n)], temperature=1.0, fixed=fixed)
    order = order_by_scores([float(i * 7 % 31) for i in range(n)], FixedPoints(before=tuple(layers)))
    assert time.process_time() - began < 5
    assert answer["order"] == list(range(n))[::-1]
    assert keeps(order, FixedPoints(before=tuple(layers)))


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"first": 3, "last": 3}, "contradict each other: .*3"),
        ({"first": 4}, "first .*from 0 to 3, got 4"),
        ({"last": -1}, "last .*-1"),
        ({"before": [(0, 1), (0, 7)]}, "before .*from 0 to 3, got 7"),
        ({"first": "1"}, "first .*'1'"),
        ({"last": True}, "last .*True"),
        ({"first": [1, 2]}, r"first .*\[1, 2\]"),
        ({"before": [(0, 1.5)]}, "before .*1.5"),
        ({"before": [(2, 2)]}, "2 → 2"),
        ({"first": 1, "before": [(0, 1)]}, "0 → 1 → 0|1 → 0 → 1"),
        ({"last": 1, "before": [(1, 3)]}, "3 → 1 → 3|1 → 3 → 1"),
        ({"before": [(0, 1), (3, 2), (1, 0)]}, "(0 → 1 → 0|1 → 0 → 1) "),
        ({"before": [(0, 1), (1, 2), (2, 0)]}, "(0 → 1 → 2 → 0|1 → 2 → 0 → 1|2 → 0 → 1 → 2) "),
        ({"before": [0, 1]}, r"before .*\[\[i, j\], …\].* 0 is not a pair"),
        ({"before": [(0, 1, 2)]}, r"before .*\(0, 1, 2\)"),
        ({"before": 3}, r"before .*\[\[i, j\], …\].* 3"),
        ({"before": ["01"]}, "before .*'01'"),
    ],
)
def test_what_cannot_be_is_an_error_that_names_the_sentences(fields: dict[str, Any], facts: str) -> None:
    with pytest.raises(ValueError, match=facts):
        FixedPoints.read(fields, 4)


def test_one_sentence_may_be_first_and_last() -> None:
    fixed = FixedPoints.read({"first": 0, "last": 0, "before": None}, 1)
    assert order_by_scores([1.0], fixed) == [0]


def test_what_is_known_is_certain_and_the_rest_is_as_sure_as_its_scores() -> None:
    fixed = FixedPoints.read({"first": 3, "before": [(1, 0)]}, 5)
    answer = in_order(["a", "b", "c", "d", "e"], [1.0, 2.0, 3.0, 9.0, 2.5], temperature=0.5, fixed=fixed)
    assert answer["order"] == [3, 1, 0, 4, 2]
    assert answer["confidence"] == pytest.approx([1, 1, 1 / (1 + math.exp(-3)), 1 / (1 + math.exp(-1))])
    # Pushed apart by another sentence, two may stand against their scores.
    answer = in_order(["a", "b", "c"], [0.0, 1.0, 2.0], temperature=1.0, fixed=FixedPoints(last=0))
    assert answer["confidence"] == pytest.approx([1 / (1 + math.exp(-1)), 1.0])


@pytest.fixture(scope="module")
def order(make_model: MakeModel) -> SentenceOrderingPipeline:
    model, story_tokenizer = make_model("bert", confidence_temperature=2.0)
    return SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer, device="cpu")


def test_in_the_pipeline_for_one_story(order: SentenceOrderingPipeline) -> None:
    story = STORIES[3]
    plain = order(story)
    for first in range(5):
        last, others = (first + 1) % 5, [i for i in range(5) if i not in (first, (first + 1) % 5)]
        before = list(pairwise(others[::-1]))
        answer = order(story, first=first, last=last, before=before, num_permutations=1)
        assert answer["order"] == [first, *others[::-1], last]
        assert answer["sentences"] == [story[i] for i in answer["order"]]
        assert answer["scores"] == plain["scores"], "the scores are what they were"
        assert answer["confidence"] == [1.0] * 4
        assert order({"sentences": story, "first": first, "last": last, "before": before}) == answer
        assert order({"sentences": story, "first": 9}, first=first, last=last, before=before) == answer
    assert order(story, first=None, last=None, before=None) == plain
    assert json.loads(json.dumps(order(story, first=2))) == order(story, first=2)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_in_the_pipeline_for_many(batch_size: int, order: SentenceOrderingPipeline) -> None:
    stories: list[Any] = [
        {"sentences": STORIES[0], "first": 3},
        STORIES[1],
        {"sentences": STORIES[3], "before": [[4, 0], [4, 1]], "last": 2},
        {"sentences": STORIES[2], "first": None, "before": []},
    ]
    expected = [order(story, num_permutations=3) for story in stories]
    found = order(stories, batch_size=batch_size, num_permutations=3)
    assert [answer["order"] for answer in found] == [answer["order"] for answer in expected]
    assert found[0]["order"][0] == 3 and found[2]["order"][-1] == 2
    assert found[2]["order"].index(4) < min(found[2]["order"].index(i) for i in (0, 1))
    dataset = Dataset.from_dict({"sentences": STORIES, "first": [None, 2, None, 1], "before": [[[1, 0]], [], None, []]})
    answers = list(order(dataset, batch_size=batch_size))
    assert answers[1]["order"][0] == 2 and answers[3]["order"][0] == 1
    assert answers[0]["order"].index(1) < answers[0]["order"].index(0)
    with pytest.raises(TypeError, match="first, last.*dictionary"):
        order(STORIES, first=0, last=1)


def test_contradictions_reach_the_caller_of_the_pipeline(order: SentenceOrderingPipeline) -> None:
    with pytest.raises(ValueError, match="0 → 1 → 0|1 → 0 → 1"):
        order(STORIES[0], before=[(0, 1), (1, 0)])
    with pytest.raises(ValueError, match="first .*from 0 to 3, got 4"):
        order([STORIES[0], {"sentences": STORIES[0], "first": 4}])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(known=known_orders(most=5), data=st.data())
def test_the_order_of_the_input_does_not_matter_then_either(
    known: tuple[list[float], FixedPoints], data: st.DataObject, order: SentenceOrderingPipeline
) -> None:
    scores, fixed = known
    story = STORIES[3][: len(scores)]
    turned = data.draw(st.permutations(range(len(story))))
    to = {index: place for place, index in enumerate(turned)}
    fields = {name: to[i] for name, i in (("first", fixed.first), ("last", fixed.last)) if i is not None}
    one = order(story, first=fixed.first, last=fixed.last, before=fixed.before)
    other = order([story[i] for i in turned], **fields, before=[(to[i], to[j]) for i, j in fixed.before])
    assert keeps(one["order"], fixed)
    assert one["sentences"] == other["sentences"] and one["confidence"] == other["confidence"]
