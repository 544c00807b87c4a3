"""The same recipe gives the same weights in every framework, after every step; a framework joins by its name in
`FRAMEWORKS`. Trainer's run is the one that all others are held against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from dataset_builder import load_stories
from tests.training.small_runs import Weights, assert_same_steps, difference, small_run, train, weights
from training.data.stories import TokenizedStories, training_sampler
from training.frameworks.run import TrainingRun
from training.models.encoders import train_tokenizer
from training.recipe.recipe import FRAMEWORKS

REFERENCE = "trainer"
# 1e-6 would do; but whoever computes the same things in the same order gets the same bits.
TOLERANCE = 0.0
RECIPE: dict[str, Any] = {
    "max_steps": 60,
    "gradient_accumulation_steps": 2,
    "per_device_train_batch_size": 4,
    "adam_epsilon": 0.01,  # AdamW divides a gradient by its own size: else a wrong scale would hardly show
    "weight_decay": 0.1,
    "eval_strategy": "steps",
    "eval_steps": 25,
    "logging_steps": 1,
    "load_best_model_at_end": False,
}

# Each with a norm at which some steps are clipped and some are not.
RECIPES: dict[str, dict[str, Any]] = {
    "mse": {"objective": "mse", "max_grad_norm": 60.0},
    "pairwise": {"objective": "pairwise", "max_grad_norm": 0.9},
    "consistency": {"objective": "pairwise", "max_grad_norm": 0.8, "consistency": 1.0, "head_learning_rate": 2e-3},
    "pairs": {"objective": "pairwise", "max_grad_norm": 0.9, "head": "pairs", "pair_size": 4, "context_layers": 1},
}

Trained = tuple[TrainingRun, list[Weights]]


def write_encoder(folder: Path, dropout: float) -> Path:
    """A small BERT with a vocabulary of the sample's own."""
    stories = load_stories(["sample"])["train"]["sentences"]
    tokenizer = train_tokenizer((sentence for story in stories for sentence in story), 400)
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        initializer_range=0.1,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    return folder


def sample_run(folder: Path, encoder: Path, framework: str, **fields: Any) -> TrainingRun:
    """A run on 203 stories of the sample: 25 steps of 8 stories, and one of 3 in batches of 2 and 1."""
    run = small_run(folder, encoder, framework, **{**RECIPE, **fields})
    splits, story_tokenizer = load_stories(["sample"]), run.training.story_tokenizer
    run.training = TokenizedStories(splits["train"].select(range(203)), story_tokenizer)
    run.splits = {"validation": TokenizedStories(splits["validation"], story_tokenizer)}
    return run


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoders") / "dropout", 0.1)


@pytest.fixture(scope="module", params=RECIPES)
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Trained:
    run = sample_run(tmp_path_factory.mktemp(REFERENCE), encoder, REFERENCE, **RECIPES[request.param])
    return run, train(run)


@pytest.mark.parametrize("framework", [name for name in FRAMEWORKS if name != REFERENCE])
def test_every_step_gives_the_weights_of_trainer(
    framework: str, reference: Trained, encoder: Path, tmp_path: Path
) -> None:
    recipe = reference[0].recipe
    fields = ("objective", "max_grad_norm", "consistency", "head_learning_rate", "head", "pair_size", "context_layers")
    run = sample_run(tmp_path, encoder, framework, **{name: getattr(recipe, name) for name in fields})
    steps = train(run)
    assert_same_steps(steps, reference[1], TOLERANCE)
    assert difference(weights(run), weights(reference[0]))[0] <= TOLERANCE
    assert run.log.rows == reference[0].log.rows


def test_there_is_something_to_get_wrong(reference: Trained) -> None:
    """What the test above is about does happen in its run."""
    run, steps = reference
    assert len(steps) == 60
    assert difference(steps[0], steps[-1])[0] > 1e-2
    sizes = [[len(batch) for batch in run_step] for run_step in batches_by_step(run)]
    assert sizes == [[4, 4]] * 25 + [[2, 1]]
    entries = [row for row in run.log.rows if "loss" in row]
    assert entries[-1]["epoch"] > 2
    norms = [row["grad_norm"] for row in entries]
    assert min(norms) < run.recipe.max_grad_norm < max(norms)
    assert len({row["learning_rate"] for row in entries}) > 50
    assert run.model.dropout.p > 0 < run.model.config.backbone_config.hidden_dropout_prob
    assert len([row for row in run.log.rows if "eval_loss" in row]) == 3


def batches_by_step(run: TrainingRun) -> list[list[Any]]:
    batches = list(training_sampler(run.training, run.recipe))
    size = run.recipe.gradient_accumulation_steps
    return [batches[i : i + size] for i in range(0, len(batches), size)]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_four_batches_of_four_are_one_batch_of_sixteen(framework: str, tmp_path: Path) -> None:
    """With dropout off, stories in the same order, and unclipped: clipping would hide a gradient of the wrong scale,
    and so would AdamW, which divides it by its own size; hence the large epsilon."""
    encoder = write_encoder(tmp_path / "encoder", 0.0)
    fields: dict[str, Any] = {"max_grad_norm": 0.0, "adam_epsilon": 100.0, "learning_rate": 0.1, "max_steps": 15}
    fields |= {"train_sampling_strategy": "random", "eval_strategy": "no"}
    trained = []
    for size, batches in [(4, 4), (16, 1)]:
        shape = {"per_device_train_batch_size": size, "gradient_accumulation_steps": batches}
        run = sample_run(tmp_path / f"{framework}-{size}", encoder, framework, **shape, **fields)
        run.model.dropout.p = 0.0
        trained.append(train(run))
    accumulated, whole = trained
    assert len(whole) == 15  # 13 in an epoch, the last of them of 11 stories
    assert_same_steps(accumulated, whole, tolerance=1e-5)
    assert difference(whole[0], whole[-1])[0] > 1e-2


def test_batches_by_tokens_are_the_same_in_every_framework(encoder: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"per_device_train_batch_tokens": 1000, "max_steps": 20, "eval_strategy": "no"}
    runs = [sample_run(tmp_path / name, encoder, name, **fields) for name in FRAMEWORKS]
    first, *others = [train(run) for run in runs]
    steps_per_epoch = len(batches_by_step(runs[0]))
    assert steps_per_epoch < len(first) == 20
    assert len({len(batch) for step in batches_by_step(runs[0]) for batch in step}) > 2
    for steps in others:
        assert_same_steps(steps, first, TOLERANCE)


def test_a_difference_is_reported_with_step_and_tensor() -> None:
    same = {"head": torch.tensor([1.0, 2.0]), "encoder": torch.tensor([3.0])}
    other = {"head": torch.tensor([1.0, 2.5]), "encoder": torch.tensor([3.0])}
    with pytest.raises(AssertionError, match="step 2: head differs by 0.5"):
        assert_same_steps([same, same, same], [same, other, same], 1e-6)
    with pytest.raises(ValueError, match="shorter|longer"):
        assert_same_steps([same], [same, same])
