"""Evaluation, against a plain loop over stories, and the command `sentence-ordering evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.stats import kendalltau

from dataset_builder import load_all, load_stories
from modeling_sentence_ordering import (
    SentenceOrderingModel,
    SentenceOrderingPipeline,
    StoryTokenizer,
    load_tokenizer,
)
from modeling_sentence_ordering.tokenization_sentence_ordering import arrangement
from tests.training.conftest import Trained, run_command
from tests.training.made_up import made_up_stories, write_jsonl
from training.data.stories import TokenizedStories
from training.evaluation.metrics import METRIC_NAMES
from training.evaluation.predictions import Predictions, ScoresNotFinite, evaluate, evaluation_metrics, predict
from training.models.trained_model import load_trained_model

Loaded = tuple[SentenceOrderingModel, StoryTokenizer]


@pytest.fixture(scope="module")
def loaded(trained: Trained) -> Loaded:
    model, tokenizer = load_trained_model(str(trained.folder))
    return model, StoryTokenizer(tokenizer, model.config)


@pytest.fixture(scope="module")
def stories(home: Path) -> Dataset:
    return load_all([str(home / "stories.jsonl")])


def by_hand(model: SentenceOrderingModel, story_tokenizer: StoryTokenizer, stories: Dataset) -> dict[str, float]:
    """Each story by itself, without padding, its order judged by scipy."""
    taus, hits, perfect, losses, logits = [], [], [], [], []
    for story in stories:
        labels = arrangement(story["sentences"], 0)
        ids: list[int] = []
        for label in labels:
            ids += [story_tokenizer.marker_token_id, *story_tokenizer.tokenize([story["sentences"][label]])[0]]
        ids.append(story_tokenizer.separator_token_id)
        with torch.no_grad():
            output = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels]))
        scores = output.logits[0].numpy()
        ranks = scores.argsort().argsort()
        taus.append(kendalltau(ranks, labels).statistic)
        hits.append(np.mean(ranks == labels))
        perfect.append(np.all(ranks == labels))
        losses.append(float(output.loss))
        logits += scores.tolist()
    return {
        "accuracy": float(np.mean(hits)),
        "kendalls_tau": float(np.mean(taus)),
        "pmr": float(np.mean(perfect)),
        "loss": float(np.mean(losses)),
        "mean_logits": float(np.mean(logits)),
        "std_logits": float(np.std(logits)),
        "stories": len(stories),
        "sentences": len(logits),
    }


@pytest.mark.parametrize("limit", [None, 40])
def test_stories_are_judged_as_the_pipeline_orders_them(
    limit: int | None, loaded: Loaded, stories: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever order they come in, and those that are too long for the encoder, too."""
    model, story_tokenizer = loaded
    if limit is not None:
        monkeypatch.setattr(model.config, "max_input_tokens", limit)
        story_tokenizer = StoryTokenizer(story_tokenizer.tokenizer, model.config)
    tokenized = TokenizedStories(stories, story_tokenizer)
    assert tokenized.fits.all() == (limit is None)
    found = predict(model, tokenized, batch_size=7)
    pipeline = SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer)
    for story, scores, labels in zip(stories, found.scores, found.labels, strict=True):
        shuffled = np.random.default_rng(0).permutation(len(story["sentences"]))
        answer = pipeline([story["sentences"][place] for place in shuffled])
        expected = dict(zip(shuffled.tolist(), answer["scores"], strict=True))
        assert [expected[label] for label in labels if label >= 0] == pytest.approx(
            scores[labels >= 0].tolist(), abs=1e-4
        )


def test_evaluation_is_what_a_plain_loop_finds_story_by_story(loaded: Loaded, stories: Dataset) -> None:
    model, story_tokenizer = loaded
    metrics = evaluate(model, TokenizedStories(stories, story_tokenizer), batch_size=7)
    expected = by_hand(model, story_tokenizer, stories)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert list(metrics) == [*METRIC_NAMES, "dropped_sentences", "unscored_stories"]
    assert metrics["dropped_sentences"] == metrics["unscored_stories"] == 0


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_neither_the_batch_size_nor_the_order_of_stories_matters(
    batch_size: int, loaded: Loaded, stories: Dataset
) -> None:
    model, story_tokenizer = loaded
    expected = predict(model, TokenizedStories(stories, story_tokenizer))
    order = np.random.default_rng(0).permutation(len(stories))
    found = predict(model, TokenizedStories(stories.select(order), story_tokenizer), batch_size=batch_size)
    np.testing.assert_allclose(found.scores, expected.scores[order], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.labels, expected.labels[order])
    np.testing.assert_array_equal(found.sentence_mask, expected.sentence_mask[order])


def test_stories_are_scored_without_dropout_and_the_model_is_left_as_it_was(loaded: Loaded, stories: Dataset) -> None:
    model, story_tokenizer = loaded
    tokenized = TokenizedStories(stories, story_tokenizer)
    expected = predict(model, tokenized)
    try:
        found = predict(model.train(), tokenized)
        assert model.training
    finally:
        model.eval()
    np.testing.assert_array_equal(found.scores, expected.scores)
    predict(model, tokenized)
    assert not model.training
    with pytest.raises(RuntimeError):
        predict(model.train(), _Broken(stories, story_tokenizer))
    assert model.training
    model.eval()


class _Broken(TokenizedStories):
    def evaluation_labels(self, index: int) -> list[int]:
        raise RuntimeError


def test_a_model_in_double_precision_keeps_it(home: Path, stories: Dataset) -> None:
    encoder = str(home / "tiny-bert")
    model = SentenceOrderingModel.from_encoder(encoder)
    tokenized = TokenizedStories(stories, StoryTokenizer(load_tokenizer(encoder), model.config))
    single, double = predict(model, tokenized).scores, predict(model.double(), tokenized).scores
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(single, double, atol=1e-5)


def test_sentences_beyond_the_encoder_s_limit_are_counted(home: Path, stories: Dataset) -> None:
    """Ranks are compared with ranks among those that were scored, so tau stays in its range."""
    encoder = str(home / "tiny-bert")
    model = SentenceOrderingModel.from_encoder(encoder, max_input_tokens=24)
    tokenized = TokenizedStories(stories, StoryTokenizer(load_tokenizer(encoder), model.config))
    predictions = predict(model, tokenized, batch_size=16, long_texts=False)
    metrics = evaluation_metrics(predictions, model.config)
    dropped = int(tokenized.num_sentences.sum()) - int(predictions.sentence_mask.sum())
    assert metrics["dropped_sentences"] == dropped > 50
    assert metrics["sentences"] == tokenized.num_sentences.sum()
    assert -1 <= metrics["kendalls_tau"] <= 1
    assert metrics["unscored_stories"] == (predictions.sentence_mask.sum(axis=1) < 2).sum()


def test_scores_that_are_no_numbers_are_said_to_be(loaded: Loaded) -> None:
    scores = np.array([[0.5, np.nan, 0.0]])
    labels = np.array([[1, 0, -100]])
    mask = np.array([[True, True, False]])
    with pytest.raises(ScoresNotFinite, match="not finite"):
        evaluation_metrics(Predictions(scores, labels, mask), loaded[0].config)
    hidden = Predictions(np.array([[0.5, 0.1, np.nan]]), labels, mask)
    assert evaluation_metrics(hidden, loaded[0].config)["kendalls_tau"] == 1.0


# The command.


def lines_of(out: str) -> dict[str, str]:
    return dict(line.split() for line in out.partition("\n\n")[0].splitlines())


def test_the_command_finds_what_training_found(trained: Trained, tmp_path: Path) -> None:
    target = tmp_path / "metrics.json"
    result = run_command(
        "evaluate", "--model", trained.folder, "--data", trained.home / "stories.jsonl", "--output_json", target
    )
    assert (result.code, result.err) == (0, "")
    metrics = json.loads(target.read_text(encoding="utf-8"))
    assert list(metrics) == ["accuracy", "kendalls_tau", "pmr", "loss", "mean_logits", "std_logits", "stories",
                             "sentences", "partial_orders"]  # fmt: skip
    expected = trained.results["analysis"]["partial_orders"]
    for found, row in zip(metrics.pop("partial_orders"), expected, strict=True):
        assert found == pytest.approx(row)
    assert metrics == pytest.approx({name: trained.results["test"][name] for name in metrics}, rel=1e-5)
    printed = lines_of(result.out)
    assert printed["kendalls_tau"] == f"{metrics['kendalls_tau']:.4f}"
    assert printed["stories"] == "8"
    assert printed["training_stories"] == "0"
    wrote, next_ = result.out.splitlines()[-2:]
    assert wrote == f"wrote {target}"
    assert next_ == f"next: sentence-ordering order --model {trained.folder} YOUR_STORIES.txt"
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize(("split", "stories", "seen"), [("train", 48, 48), ("validation", 4, 0), ("all", 60, 48)])
def test_each_split_is_the_one_of_training_and_stories_met_again_are_counted(
    split: str, stories: int, seen: int, trained: Trained
) -> None:
    data = str(trained.home / "stories.jsonl")
    result = run_command("evaluate", "--model", trained.folder, "--data", data, "--split", split)
    assert result.code == 0, result.err
    printed = lines_of(result.out)
    assert (printed["stories"], printed["training_stories"]) == (str(stories), str(seen))
    assert result.err.count("\n") == (1 if seen else 0)
    assert (f"{seen} of these {stories} stories" in result.err) is (seen > 0)


def test_stories_of_another_seed_are_other_stories(trained: Trained) -> None:
    data = str(trained.home / "stories.jsonl")
    result = run_command("evaluate", "--model", trained.folder, "--data", data, "--data_seed", "7")
    known = {story["storyid"] for story in load_stories([data])["train"]}
    expected = sum(story["storyid"] in known for story in load_stories([data], seed=7)["test"])
    assert lines_of(result.out)["training_stories"] == str(expected) != "0"


def test_a_story_is_met_again_in_whatever_order_its_sentences_stand(trained: Trained, tmp_path: Path) -> None:
    data = load_stories([str(trained.home / "stories.jsonl")])["train"].select(range(3))
    turned = [story["sentences"][::-1] for story in data] + made_up_stories(2, seed=5)
    path = write_jsonl(tmp_path / "turned.jsonl", turned)
    result = run_command("evaluate", "--model", trained.folder, "--data", path, "--split", "all")
    assert lines_of(result.out)["training_stories"] == "3"


def test_a_model_that_does_not_say_what_it_was_trained_on_is_evaluated_all_the_same(
    trained: Trained, tmp_path: Path
) -> None:
    model, tokenizer = load_trained_model(str(trained.folder))
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    data = str(trained.home / "stories.jsonl")
    result = run_command("evaluate", "--model", tmp_path / "model", "--data", data)
    assert result.code == 0
    assert "training_stories" not in lines_of(result.out)


def test_sentences_of_long_stories_are_judged_as_well(trained: Trained, tmp_path: Path) -> None:
    long = [[f"Tom baked {'a cake and ' * 60}{n} {place}." for place in range(5)] for n in range(4)]
    path = write_jsonl(tmp_path / "long.jsonl", long)
    result = run_command("evaluate", "--model", trained.folder, "--data", path, "--split", "all")
    assert result.code == 0, result.err
    assert lines_of(result.out)["dropped_sentences"] == "0"
    assert lines_of(result.out)["sentences"] == "20"


@pytest.mark.parametrize(("weight", "code"), [(3e38, 1), (float("nan"), 2)], ids=["overflow", "refused"])
def test_weights_that_have_diverged_are_no_fault_of_the_data(
    weight: float, code: int, trained: Trained, tmp_path: Path
) -> None:
    model, tokenizer = load_trained_model(str(trained.folder))
    model.head.weight.data.uniform_(-1, 1).sign_().mul_(weight)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    data: Any = trained.home / "stories.jsonl"
    result = run_command("evaluate", "--model", tmp_path / "model", "--data", data)
    assert result.code == code
    assert result.err.count("\n") == 1
    assert "not finite" in result.err
