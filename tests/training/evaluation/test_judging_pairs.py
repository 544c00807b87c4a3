"""Evaluation of a model with the pair head: the decoded order, the loss of the pairs, and their calibration."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.stats import kendalltau

from dataset_builder import load_all, shuffled_labels
from modeling_sentence_ordering import (
    SentenceOrderingModel,
    SentenceOrderingPipeline,
    StoryTokenizer,
    arrangements,
    best_order,
)
from tests.modeling_sentence_ordering.small_encoders import word_tokenizer
from tests.training.made_up import made_up_stories, write_jsonl
from training.data.stories import TokenizedStories
from training.evaluation.analysis import analyse
from training.evaluation.calibration import calibrated, judged_pairs
from training.evaluation.predictions import Predictions, evaluate, evaluation_metrics, predict
from training.system.processes import Processes


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Stories of different lengths, three of which have more sentences than are decoded exactly."""
    made_up = made_up_stories(30, seed=5)
    others = made_up_stories(9, shortest=5, seed=6)
    long = [[sentence for story in others[start : start + 3] for sentence in story] for start in (0, 3, 6)]
    return load_all([str(write_jsonl(tmp_path_factory.mktemp("stories") / "stories.jsonl", [*made_up, *long]))])


def build(**fields: Any) -> tuple[SentenceOrderingModel, StoryTokenizer]:
    torch.manual_seed(0)
    tokenizer = word_tokenizer()
    fields = {"head": "pairs", "objective": "pairwise", "pair_size": 4, "initializer_range": 0.3, **fields}
    model = SentenceOrderingModel.from_encoder("cnn", tokenizer=tokenizer, **fields)
    return model, StoryTokenizer(tokenizer, model.config)


def sentences_of(stories: Dataset, index: int) -> tuple[list[int], list[str]]:
    """The labels of the order in which a story is shown to be judged (the pipeline's), and its sentences in it."""
    story = stories[index]
    shuffle = shuffled_labels(story["storyid"], story["sentences"], 42)
    shown = arrangements([story["sentences"][label] for label in shuffle])[0]
    labels = [shuffle[place] for place in shown]
    return labels, [story["sentences"][label] for label in labels]


def test_evaluation_is_what_a_plain_loop_finds_story_by_story(stories: Dataset) -> None:
    model, story_tokenizer = build()
    taus, perfect, losses, differs = [], [], [], 0
    for index in range(len(stories)):
        labels, shuffled = sentences_of(stories, index)
        batch = story_tokenizer.collate([story_tokenizer.assemble(story_tokenizer.tokenize(shuffled))], [labels])
        with torch.no_grad():
            output = model(**batch)
        start = output.logits[0].argsort().tolist()
        order = [start[i] for i in best_order(output.pair_logits[0][start][:, start])]
        ranks = np.argsort(order)
        taus.append(kendalltau(ranks, labels).statistic)
        perfect.append(np.all(ranks == labels))
        losses.append(float(output.loss))
        differs += order != start
    assert differs > 3, "or the scores would do as well"
    for batch_size in (1, 7, 100):
        metrics = evaluate(model, TokenizedStories(stories, story_tokenizer), batch_size=batch_size)
        assert metrics["kendalls_tau"] == pytest.approx(np.mean(taus), rel=1e-5)
        assert metrics["pmr"] == pytest.approx(np.mean(perfect))
        assert metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert abs(metrics["mean_logits"]) < 1e-4 < metrics["std_logits"]


def test_with_arrangements_it_judges_the_orders_of_the_pipeline(stories: Dataset) -> None:
    model, story_tokenizer = build()
    found = predict(model, TokenizedStories(stories, story_tokenizer), num_permutations=3)
    order = SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer, device="cpu")
    for index in range(len(stories)):
        labels, shuffled = sentences_of(stories, index)
        answer = order(shuffled, num_permutations=3)
        assert found.labels[index, : len(labels)].tolist() == labels
        assert np.argsort(found.ranks[index, : len(labels)]).tolist() == answer["order"]


def test_stories_that_do_not_fit_are_judged_whole(stories: Dataset) -> None:
    model, story_tokenizer = build(max_input_tokens=40)
    found = predict(model, TokenizedStories(stories, story_tokenizer))
    assert any(not story_tokenizer.fits(story_tokenizer.tokenize(story["sentences"])) for story in stories)
    metrics = evaluation_metrics(found, model.config)
    assert metrics["dropped_sentences"] == 0 and np.isfinite(metrics["loss"])
    for ranks, mask in zip(found.ranks, found.sentence_mask, strict=True):
        assert sorted(ranks[mask]) == list(range(mask.sum()))
    analyse(found)


def test_all_pairs_are_calibrated(stories: Dataset) -> None:
    model, story_tokenizer = build()
    found = predict(model, TokenizedStories(stories, story_tokenizer))
    assert found.pair_logits is not None
    expected = []
    for index, logits in enumerate(found.pair_logits):
        labels, _ = sentences_of(stories, index)
        for i, j in combinations(range(len(labels)), 2):
            logit = float(logits[i, j])
            expected.append((abs(logit), (logit > 0) == (labels[i] < labels[j])))
    pairs = judged_pairs(found)
    assert sorted(zip(pairs.differences.tolist(), pairs.right.tolist(), strict=True)) == sorted(expected)
    results = calibrated({"validation": found})
    assert results is not None and results["pairs"] == len(expected)


def test_batches_joined_are_the_whole(stories: Dataset) -> None:
    model, story_tokenizer = build()
    tokenized = TokenizedStories(stories, story_tokenizer)
    whole = predict(model, tokenized)
    batches = []
    for index in range(len(stories)):
        labels, shuffled = sentences_of(stories, index)
        batch = story_tokenizer.collate([story_tokenizer.assemble(story_tokenizer.tokenize(shuffled))], [labels])
        with torch.no_grad():
            batches.append(Predictions.from_batch(model(**batch), batch["labels"]))
    one, other = (evaluation_metrics(found, model.config) for found in (Predictions.joined(batches), whole))
    assert one == pytest.approx(other, rel=1e-5, abs=1e-6)
    chosen = np.array([4, 1, 31])
    assert (whole.select(chosen).ranks == whole.ranks[chosen]).all()


def test_a_model_that_says_nothing_gets_what_chance_gets(stories: Dataset) -> None:
    model, story_tokenizer = build()
    with torch.no_grad():
        for weight in model.head.parameters():
            weight.zero_()
    metrics = evaluate(model, TokenizedStories(stories, story_tokenizer))
    assert metrics["kendalls_tau"] == 0
    chance = np.mean([1 / len(story["sentences"]) for story in stories])
    assert metrics["accuracy"] == pytest.approx(chance)


def test_several_processes_find_together_what_one_finds(stories: Dataset) -> None:
    model, story_tokenizer = build()
    tokenized = TokenizedStories(stories, story_tokenizer)
    shares: list[Any] = []

    class Process(Processes):
        def all_gather(self, value: Any) -> list[Any]:
            shares.append(value)
            return list(shares)  # the last process has the shares of all

    for rank in range(2):
        found = predict(model, tokenized, batch_size=4, processes=Process(rank, 2))
    alone = predict(model, tokenized, batch_size=4)
    assert found.pair_logits is not None and alone.pair_logits is not None
    for one, other in zip(found.pair_logits, alone.pair_logits, strict=True):
        assert np.array_equal(one, other)
    assert evaluation_metrics(found, model.config) == evaluation_metrics(alone, model.config)
