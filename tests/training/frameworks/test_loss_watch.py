"""A loss that is no number: training stops before anything of it is kept, and says at which step, of which stories."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from modeling_sentence_ordering import SentenceOrderingModel
from tests.training.framework_runs import make_run
from training.data.stories import TokenizedStories
from training.evaluation.predictions import ScoresNotFinite
from training.frameworks.checkpoints import last_checkpoint
from training.frameworks.protocol import load_framework
from training.frameworks.training_log import TrainingFailed
from training.recipe.recipe import Recipe

MakeRecipe = Callable[..., Recipe]


def test_a_loss_that_is_no_number_ends_the_run_and_the_last_checkpoint_is_kept(recipe_for: MakeRecipe) -> None:
    """The first step has a learning rate of 0, since it is one of warm-up."""
    for logging_steps in (1, 100):
        recipe = recipe_for(learning_rate=1e30, eval_strategy="steps", eval_steps=1, logging_steps=logging_steps)
        run = make_run(recipe)
        framework = load_framework(recipe.framework)
        with pytest.raises((TrainingFailed, ScoresNotFinite)) as failure:
            framework.train(run)
        assert "\n" not in str(failure.value)
        checkpoint = last_checkpoint(framework, run.checkpoints)
        assert framework.checkpoint_step(checkpoint) >= 1


def test_a_loss_that_is_no_number_is_seen_without_any_evaluation(recipe_for: MakeRecipe) -> None:
    run = make_run(recipe_for(learning_rate=1e30, eval_strategy="no"))
    with pytest.raises(TrainingFailed, match="the training loss is (nan|inf) at step"):
        load_framework(run.recipe.framework).train(run)


def test_a_loss_that_is_no_number_is_told_with_its_step_and_its_stories(recipe_for: MakeRecipe) -> None:
    """Seen before anything is saved or judged, also where nothing is logged for long."""
    batches: list[list[list[int]]] = []

    def spoil_the_sixth_batch(module: nn.Module, _: Any, inputs: dict[str, Any], output: Any) -> None:
        if module.training:
            batches.append(inputs["input_ids"].tolist())
            if len(batches) == 6:
                output.loss = output.loss * math.nan

    def prepare(model: SentenceOrderingModel) -> None:
        model.register_forward_hook(spoil_the_sixth_batch, with_kwargs=True)

    small = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "logging_steps": 100}
    run = make_run(recipe_for(eval_strategy="steps", eval_steps=2, **small), prepare=prepare)
    framework = load_framework(run.recipe.framework)
    with pytest.raises(TrainingFailed) as failure:
        framework.train(run)
    assert isinstance(run.training, TokenizedStories)
    said = re.fullmatch(
        r"the training loss is nan at step 3, of the stories (.*): lower --learning_rate.*", str(failure.value)
    )
    tokens = {
        id_: sorted(i for s in run.training.sentence_ids(n) for i in s)
        for n, id_ in enumerate(run.training.stories["storyid"])
    }
    special = set(run.tokenizer.all_special_ids) - {run.tokenizer.unk_token_id}
    spoilt = [sorted(i for i in row if i not in special) for row in batches[5]]
    assert [tokens[id_] for id_ in said[1].split(", ")] == spoilt
    assert framework.checkpoint_step(last_checkpoint(framework, run.checkpoints)) == 2


def test_weights_that_are_no_numbers_are_not_saved(recipe_for: MakeRecipe) -> None:
    """A gradient that is no number: the loss of its step still is one."""

    def prepare(model: SentenceOrderingModel) -> None:
        calls: list[int] = []

        def spoil(gradient: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            return gradient * math.nan if len(calls) == 4 else gradient

        model.head.weight.register_hook(spoil)

    run = make_run(recipe_for(eval_strategy="steps", eval_steps=2), prepare=prepare)
    run.splits = {}
    framework = load_framework(run.recipe.framework)
    with pytest.raises(TrainingFailed, match="weights .* step 4"):
        framework.train(run)
    assert framework.checkpoint_step(last_checkpoint(framework, run.checkpoints)) == 2
