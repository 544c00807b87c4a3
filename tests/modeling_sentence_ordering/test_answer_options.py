"""What an answer may contain in addition to the order: `pairwise`, `ties`, `moves` and `score`."""

from __future__ import annotations

import json
import random
from itertools import combinations, permutations
from typing import Any

import pytest
import torch

from modeling_sentence_ordering import (
    FixedPoints,
    SentenceOrderingPipeline,
    StoryScores,
    answer_of,
    moved,
    weakest_across,
)
from modeling_sentence_ordering.pipeline_sentence_ordering import AnswerOptions
from tests.modeling_sentence_ordering.small_encoders import STORIES, MakeModel

STORY = STORIES[3]
HEADS: dict[str, dict[str, Any]] = {
    "score": {"confidence_temperature": 0.5},
    "pairs": {"head": "pairs", "objective": "pairwise", "pair_size": 6, "confidence_temperature": 0.5},
}


@pytest.fixture(scope="module", params=HEADS)
def order(request: pytest.FixtureRequest, make_model: MakeModel) -> SentenceOrderingPipeline:
    model, story_tokenizer = make_model("bert", **HEADS[request.param])
    return SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer, device="cpu")


def by_text(sentences: list[str], layers: list[list[int]]) -> list[set[str]]:
    return [{sentences[index] for index in layer} for layer in layers]


def test_an_answer_has_only_what_is_asked_for(order: SentenceOrderingPipeline) -> None:
    plain = order(STORY)
    answer = order(STORY, pairwise=True, ties=0.8, moves=True, score=True)
    added = ["pairwise", "layers", "moved", "coherence"]
    assert list(answer) == [*plain, *added] and {name: answer[name] for name in plain} == plain
    assert json.loads(json.dumps(answer)) == answer, "plain values"
    options = {"pairwise": True, "ties": 0.8, "moves": True, "score": True}
    model: Any = order.model
    assert SentenceOrderingPipeline(model=model, tokenizer=order.tokenizer, device="cpu", **options)(STORY) == answer


def test_pairs_have_the_probabilities_of_the_confidence(order: SentenceOrderingPipeline) -> None:
    answer = order(STORY, pairwise=True)
    matrix = torch.tensor(answer["pairwise"], dtype=torch.float64)
    assert torch.allclose(matrix + matrix.T, torch.ones_like(matrix)) and torch.all(matrix.diagonal() == 0.5)
    first, later = answer["order"][:-1], answer["order"][1:]
    assert matrix[first, later].tolist() == pytest.approx(answer["confidence"])


def test_pairs_of_a_long_text(order: SentenceOrderingPipeline) -> None:
    text = [f"tom ate a cake {number} ." for number in range(40)]
    answer = order(text, pairwise=True, ties=0.7, score=True)
    assert len(answer["pairwise"]) == 40 and len(answer["coherence"]["joints"]) == 39
    assert [index for layer in answer["layers"] for index in layer] == answer["order"]


def test_constraints_are_certain_pairs(order: SentenceOrderingPipeline) -> None:
    last = order(STORY)["order"][-1]
    middle, other = [index for index in range(len(STORY)) if index != last][:2]
    answer = order(STORY, before=[(last, middle), (middle, other)], pairwise=True)
    for i, j in ((last, middle), (middle, other), (last, other)):
        assert (answer["pairwise"][i][j], answer["pairwise"][j][i]) == (1, 0)


@pytest.mark.parametrize("ties", [0.51, 0.6, 0.75, 0.9, 1])
def test_layers_assert_only_what_is_sure_and_all_that_they_can(order: SentenceOrderingPipeline, ties: float) -> None:
    for story in STORIES:
        answer = order(story, ties=ties, pairwise=True)
        layers, matrix = answer["layers"], answer["pairwise"]
        assert [index for layer in layers for index in layer] == answer["order"]
        assert all(matrix[i][j] >= ties for one, other in combinations(layers, 2) for i in one for j in other), (
            "every asserted precedence is sure"
        )
        for layer in layers:  # no layer can be cut
            for size in range(1, len(layer)):
                assert any(matrix[i][j] < ties for i in layer[:size] for j in layer[size:])


def test_layers_do_not_depend_on_the_input_order(order: SentenceOrderingPipeline) -> None:
    expected = by_text(STORY, order(STORY, ties=0.7)["layers"])
    assert 1 < len(expected) < len(STORY), "the story has ties, and layers"
    for seed in range(4):
        shuffled = random.Random(seed).sample(STORY, len(STORY))
        assert by_text(shuffled, order(shuffled, ties=0.7)["layers"]) == expected


def test_copies_of_a_sentence_do_not_join_layers() -> None:
    found = StoryScores([0.0, 5.0, 0.1])
    options = AnswerOptions(ties=0.9)
    assert answer_of(["a", "b", "a"], found, temperature=1.0, options=options)["layers"] == [[0], [2], [1]]
    assert answer_of(["a", "b", "c"], found, temperature=1.0, options=options)["layers"] == [[0, 2], [1]]


def test_a_pair_far_apart_joins_what_is_between() -> None:
    log_odds = torch.full((4, 4), 3.0).triu(1)
    log_odds[0, 2] = -1.0
    assert weakest_across(log_odds).tolist() == [-1.0, -1.0, 3.0]
    found = StoryScores([0.0, 1.0, 2.0, 3.0], (log_odds - log_odds.T).double())
    layers = answer_of(list("abcd"), found, temperature=1.0, options=AnswerOptions(ties=0.9))["layers"]
    assert layers == [[0, 1, 2], [3]]


@pytest.mark.parametrize("size", range(6))
def test_as_few_sentences_as_possible_moved(size: int) -> None:
    for order in permutations(range(size)):
        found = moved(order)
        stays = [index for index in order if index not in found]
        assert stays == sorted(stays) and len(stays) + len(found) == size
        some = (some for count in range(size + 1) for some in combinations(order, count))
        longest = max((len(kept) for kept in some if list(kept) == sorted(kept)), default=0)
        assert len(stays) == longest


def test_moves_of_a_text(order: SentenceOrderingPipeline) -> None:
    in_order = order(STORY)["sentences"]
    assert order(in_order, moves=True)["moved"] == []
    assert order([*in_order[1:], in_order[0]], moves=True)["moved"] == [len(STORY) - 1]


def test_the_order_that_the_model_prefers_scores_best(order: SentenceOrderingPipeline) -> None:
    best = order(order(STORY)["sentences"], score=True)["coherence"]
    assert best["kendalls_tau"] == 1
    matrix = torch.tensor(order(STORY, pairwise=True)["pairwise"], dtype=torch.float64)
    for way in permutations(range(len(STORY))):
        if way[0] > 1:
            continue
        found = order([STORY[index] for index in way], score=True)["coherence"]
        expected = [float(matrix[i, j].log()) for i, j in combinations(way, 2)]
        assert found["log_probability"] == pytest.approx(sum(expected) / len(expected), abs=1e-4)
        assert found["log_probability"] <= best["log_probability"] + 1e-6
    backwards = order(order(STORY)["sentences"][::-1], score=True)["coherence"]
    assert backwards["kendalls_tau"] == -1
    assert backwards["joints"] == pytest.approx([1 - p for p in best["joints"][::-1]], abs=1e-5)


def test_the_weakest_joints_come_first(order: SentenceOrderingPipeline) -> None:
    found = order(STORY[::-1], score=True)["coherence"]
    weakest = [joint["probability"] for joint in found["weakest_joints"]]
    assert weakest == sorted(found["joints"])[:3]
    assert all(found["joints"][joint["index"]] == joint["probability"] for joint in found["weakest_joints"])


def test_constraints_do_not_change_the_score(order: SentenceOrderingPipeline) -> None:
    assert order(STORY, score=True, first=2)["coherence"] == order(STORY, score=True)["coherence"]


@pytest.mark.parametrize("story", [[], ["tom ate ."]])
def test_a_story_without_a_pair(order: SentenceOrderingPipeline, story: list[str]) -> None:
    answer = order(story, pairwise=True, ties=0.8, moves=True, score=True)
    assert answer["layers"] == [[index] for index in range(len(story))] and answer["moved"] == []
    assert answer["coherence"] == {"log_probability": None, "kendalls_tau": None, "joints": [], "weakest_joints": []}


def test_identical_sentences_have_no_coherence_to_judge(order: SentenceOrderingPipeline) -> None:
    found = order(["tom ate ."] * 3, score=True)["coherence"]
    assert found["log_probability"] is None and found["kendalls_tau"] == 1


@pytest.mark.parametrize("ties", [0.5, 1.01, -1, True, "0.8", float("nan")])
def test_ties_need_a_probability(order: SentenceOrderingPipeline, ties: Any) -> None:
    with pytest.raises(ValueError, match="ties"):
        order(STORY, ties=ties)


@pytest.mark.parametrize("options", [{"pairwise": True}, {"ties": 0.8}, {"score": True}])
def test_probabilities_need_a_calibrated_model(make_model: MakeModel, options: dict[str, Any]) -> None:
    model, story_tokenizer = make_model("bert")
    uncalibrated = SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer, device="cpu")
    assert "moved" in uncalibrated(STORY, moves=True)
    with pytest.raises(ValueError, match="confidence_temperature"):
        uncalibrated(STORY, **options)


def test_a_matrix_is_not_made_for_thousands_of_sentences() -> None:
    many = [str(number) for number in range(2001)]
    found = StoryScores([float(number) for number in range(2001)])
    for options in (AnswerOptions(pairwise=True), AnswerOptions(ties=0.8)):
        with pytest.raises(ValueError, match="2,000"):
            answer_of(many, found, temperature=1.0, options=options)
    scored = answer_of(many, found, temperature=1.0, options=AnswerOptions(score=True), fixed=FixedPoints())
    assert scored["coherence"]["kendalls_tau"] == 1
