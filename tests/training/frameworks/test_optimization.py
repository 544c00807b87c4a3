"""Optimizer, schedule and seeds, as the recipe has them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from modeling_sentence_ordering import SentenceOrderingModel
from training.frameworks.optimization import build_optimizer, build_schedule, parameter_groups, seed_step
from training.recipe.recipe import Recipe

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def model(home: Path) -> SentenceOrderingModel:
    return SentenceOrderingModel.from_encoder(str(home / "tiny-bert"))


def test_weights_decay_and_biases_and_norms_do_not(model: SentenceOrderingModel) -> None:
    model.encoder.embeddings.requires_grad_(False)
    decayed, kept = parameter_groups(model, 0.25)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.25, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    names_kept = {names[id(parameter)] for parameter in kept["params"]}
    names_decayed = {names[id(parameter)] for parameter in decayed["params"]}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert names_kept == {name for name in trained if name.endswith("bias") or "LayerNorm" in name}
    assert names_decayed == trained - names_kept
    assert "head.weight" in names_decayed


def test_the_head_has_a_learning_rate_of_its_own(model: SentenceOrderingModel, make_recipe: MakeRecipe) -> None:
    optimizer = build_optimizer(model, make_recipe(learning_rate=1e-4, head_learning_rate=5e-4))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: 5e-4 if name.startswith("head.") else 1e-4 for name, _ in model.named_parameters()} == rates
    decays = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays["head.bias"] == 0.0 < decays["head.weight"]


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch"])
def test_the_optimizer_is_adamw_with_the_numbers_of_the_recipe(
    optim: str, model: SentenceOrderingModel, make_recipe: MakeRecipe
) -> None:
    """One step on a gradient of ones, against the paper's formula."""
    recipe = make_recipe(
        optim=optim, learning_rate=0.1, weight_decay=0.5, adam_beta1=0.8, adam_beta2=0.7, adam_epsilon=1e-3
    )
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = build_optimizer(model, recipe)
    optimizer.zero_grad()
    for scale in (1.0, 3.0):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, scale)
        optimizer.step()
    first, second = 0.0, 0.0
    for step, gradient in enumerate((1.0, 3.0), 1):
        first = 0.8 * first + 0.2 * gradient
        second = 0.7 * second + 0.3 * gradient**2
        update = first / (1 - 0.8**step) / (math.sqrt(second / (1 - 0.7**step)) + 1e-3)
        for name in before:
            decay = 0.0 if before[name].dim() < 2 else 0.5
            before[name] = before[name] * (1 - 0.1 * decay) - 0.1 * update
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("kind", "after_warm_up"),
    [
        ("linear", lambda done: 1 - done),
        ("cosine", lambda done: (1 + math.cos(math.pi * done)) / 2),
        ("constant_with_warmup", lambda done: 1.0),
    ],
)
def test_the_learning_rate_climbs_for_a_tenth_of_the_steps_and_then_takes_its_course(
    kind: str, after_warm_up: Callable[[float], float], model: SentenceOrderingModel, make_recipe: MakeRecipe
) -> None:
    recipe = make_recipe(lr_scheduler_type=kind, learning_rate=0.5)
    optimizer = build_optimizer(model, recipe)
    schedule = build_schedule(optimizer, recipe, 50)
    rates = []
    for _ in range(50):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    expected = [0.5 * (step / 5 if step < 5 else after_warm_up((step - 5) / 45)) for step in range(50)]
    assert rates == pytest.approx(expected)


def drawn(recipe: Recipe, step: int) -> torch.Tensor:
    seed_step(recipe, step)
    return torch.rand(4)


def test_each_step_of_each_seed_has_random_numbers_of_its_own_and_always_the_same(make_recipe: MakeRecipe) -> None:
    recipes = [make_recipe(seed=seed) for seed in (0, 1, 2**32 - 1)]
    first = [drawn(recipe, step) for recipe in recipes for step in range(20)]
    torch.rand(7)
    assert all(
        torch.equal(a, b) for a, b in zip(first, [drawn(r, step) for r in recipes for step in range(20)], strict=True)
    )
    assert len({tuple(numbers.tolist()) for numbers in first}) == len(first)
