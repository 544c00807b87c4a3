"""The objectives that know only an order: each against its definition, written out story by story."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from modeling_sentence_ordering import OBJECTIVES, SentenceOrderingModel, objective_loss
from tests.modeling_sentence_ordering.small_encoders import MakeModel
from tests.modeling_sentence_ordering.test_objectives import batches_of_scores, gradients, mixed_batch

RANKING = ["pairwise", "listmle", "position_listmle"]
# -100 for padding, as in a batch; the last story has one sentence that is left of three.
LABELS = torch.tensor([[2, 0, 1, 3], [1, 0, -100, -100], [1, 2, 0, -100]])
MASK = torch.tensor([[True, True, True, True], [True, True, False, False], [True, False, False, False]])


def pairwise_by_hand(in_true_order: list[float]) -> float:
    """RankNet's cost of all pairs, and each sentence's share of it summed up: a pair belongs half to each of two."""
    total, n = 0.0, len(in_true_order)
    for place, score in enumerate(in_true_order):
        costs = [
            math.log1p(math.exp(-(later - earlier)))
            for other, partner in enumerate(in_true_order)
            if other != place
            for earlier, later in [(score, partner) if place < other else (partner, score)]
        ]
        total += sum(costs) / (n - 1) / 2 if costs else 0.0
    return total


def draws_by_hand(in_true_order: list[float]) -> list[float]:
    """Minus the logarithms of the chances of a Plackett-Luce model, from the first sentence drawn to the last."""
    strengths = [math.exp(-score) for score in in_true_order]
    return [-math.log(strength / sum(strengths[place:])) for place, strength in enumerate(strengths)]


def position_listmle_by_hand(in_true_order: list[float]) -> float:
    n = len(in_true_order)
    weights = [2 ** (n - draw) - 1 for draw in range(1, n + 1)]
    costs = [weight * cost for weight, cost in zip(weights, draws_by_hand(in_true_order), strict=True)]
    return (n - 1) * sum(costs) / sum(weights) if n > 1 else 0.0


BY_HAND: dict[str, Callable[[list[float]], float]] = {
    "pairwise": pairwise_by_hand,
    "listmle": lambda scores: sum(draws_by_hand(scores)),
    "position_listmle": position_listmle_by_hand,
}


def batch_by_hand(objective: str, scores: Tensor, labels: Tensor, mask: Tensor) -> float:
    stories = []
    for row in zip(scores.tolist(), labels.tolist(), mask.tolist(), strict=True):
        left = sorted((label, score) for score, label, there in zip(*row, strict=True) if there and label != -100)
        stories += [BY_HAND[objective]([score for _, score in left])] if left else []
    return sum(stories) / len(stories) if stories else 0.0


def test_every_objective_is_tested() -> None:
    assert set(OBJECTIVES) == {"mse", *RANKING} == {"mse", *BY_HAND}


@settings(deadline=None)
@given(batch=batches_of_scores(), objective=st.sampled_from(RANKING))
def test_it_is_its_definition_on_any_batch(batch: tuple[Tensor, Tensor, Tensor], objective: str) -> None:
    loss = objective_loss(*batch, objective=objective)
    assert math.isclose(float(loss), batch_by_hand(objective, *batch), rel_tol=1e-9, abs_tol=1e-12)


@settings(deadline=None)
@given(batch=batches_of_scores(), objective=st.sampled_from(RANKING), data=st.data())
def test_neither_the_order_of_the_input_nor_padding_nor_what_is_cut_off_matters(
    batch: tuple[Tensor, Tensor, Tensor], objective: str, data: st.DataObject
) -> None:
    scores, labels, mask = batch
    expected = objective_loss(scores, labels, mask, objective=objective)
    wider = data.draw(st.integers(0, 2))
    turned = data.draw(st.permutations(range(scores.shape[1] + wider)))
    scores = torch.where(mask & (labels != -100), scores, torch.nan)
    scores = torch.nn.functional.pad(scores, (0, wider), value=torch.nan)[:, turned].requires_grad_()
    labels = torch.nn.functional.pad(labels, (0, wider), value=-100)[:, turned]
    mask = torch.nn.functional.pad(mask, (0, wider), value=False)[:, turned]
    loss = objective_loss(scores, labels, mask, objective=objective)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert torch.isfinite(gradient).all() and not gradient[~mask].any()


@settings(deadline=None)
@given(batch=batches_of_scores(), objective=st.sampled_from(RANKING), shift=st.floats(-50, 50))
def test_only_differences_of_scores_matter(batch: tuple[Tensor, Tensor, Tensor], objective: str, shift: float) -> None:
    scores, labels, mask = batch
    shifted = objective_loss(scores + shift, labels, mask, objective=objective)
    torch.testing.assert_close(shifted, objective_loss(*batch, objective=objective), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_scores_that_fall_to_it_ascend_in_true_order(objective: str) -> None:
    scores = torch.zeros(LABELS.shape, dtype=torch.float64, requires_grad=True)
    for _ in range(100):
        (gradient,) = torch.autograd.grad(objective_loss(scores, LABELS, MASK, objective=objective), scores)
        scores = (scores - 0.5 * gradient).detach().requires_grad_()
    for row in range(2):
        there = LABELS[row][MASK[row]]
        assert scores[row][MASK[row]].argsort().tolist() == there.argsort().tolist()
    assert scores[2].count_nonzero() == (objective == "mse"), "one sentence that is left has no order"


def test_the_chances_of_all_orders_add_up_to_one() -> None:
    scores = torch.tensor([[0.3, -1.2, 2.0, 0.0]], dtype=torch.float64)
    mask = torch.ones(1, 4, dtype=torch.bool)
    losses = [objective_loss(scores, torch.tensor([order]), mask, objective="listmle")
              for order in permutations(range(4))]  # fmt: skip
    assert sum(math.exp(-loss) for loss in losses) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(("objective", "per_story"), [
    ("pairwise", lambda n: n / 2 * math.log(2)),
    ("listmle", lambda n: math.log(math.factorial(n))),
])  # fmt: skip
def test_what_a_story_weighs_grows_with_its_sentences_not_with_its_pairs(
    objective: str, per_story: Callable[[int], float]
) -> None:
    for n in (2, 5, 10):
        labels, mask = torch.arange(n).unsqueeze(0), torch.ones(1, n, dtype=torch.bool)
        loss = objective_loss(torch.zeros(1, n, dtype=torch.float64), labels, mask, objective=objective)
        assert float(loss) == pytest.approx(per_story(n), rel=1e-12)


def test_with_two_sentences_all_three_are_the_same() -> None:
    scores, labels = torch.tensor([[0.7, -0.4]], dtype=torch.float64), torch.tensor([[0, 1]])
    losses = [float(objective_loss(scores, labels, torch.ones(1, 2, dtype=torch.bool), objective=name))
              for name in RANKING]  # fmt: skip
    assert losses == pytest.approx([math.log1p(math.exp(1.1))] * 3, rel=1e-12)


@pytest.mark.parametrize("objective", RANKING)
def test_many_sentences_and_scores_far_apart_stay_finite(objective: str) -> None:
    labels, mask = torch.arange(300).flip(0).unsqueeze(0), torch.ones(1, 300, dtype=torch.bool)
    scores = torch.linspace(-500, 500, 300).unsqueeze(0).requires_grad_()
    loss = objective_loss(scores, labels, mask, objective=objective)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert torch.isfinite(loss) and torch.isfinite(gradient).all() and gradient.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("objective", RANKING)
def test_it_is_float32_under_autocast(objective: str, dtype: torch.dtype) -> None:
    scores = torch.tensor([[1000.125, 1000.25, 1000.0, 999.5]] * 3, requires_grad=True)
    exact = batch_by_hand(objective, scores.double() - 1000, LABELS, MASK)
    with torch.autocast("cpu", dtype=dtype):
        loss = objective_loss(scores, LABELS, MASK, objective=objective)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(exact, rel=1e-4)  # what float32 leaves of an eighth beside a thousand
    assert objective_loss(scores.detach().to(dtype), LABELS, MASK, objective=objective).dtype == torch.float32


@pytest.mark.parametrize("objective", RANKING)
def test_in_the_model_without_waiting_for_the_device(objective: str, make_model: MakeModel) -> None:
    """A fake tensor has no values: whatever asks for one (`.item()`, `if tensor`, `nonzero`) raises."""
    model, story_tokenizer = make_model("bert", objective=objective)
    batch = mixed_batch(story_tokenizer)
    output = model(**batch)
    assert float(output.loss) == pytest.approx(
        batch_by_hand(objective, output.logits.double(), batch["labels"], output.sentence_mask), rel=1e-5
    )
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model(**{key: mode.from_tensor(value) for key, value in batch.items()}).loss.backward()
    model.zero_grad()
    batch["labels"][:] = -100
    loss = model(**batch).loss
    assert loss.item() == 0.0
    found = gradients(model, loss)
    assert found.keys() == {name for name, _ in model.named_parameters()}, "every parameter has one, as DDP needs it"
    assert all(not gradient.any() for gradient in found.values()), "and it is zero, not NaN"


@pytest.mark.parametrize("objective", RANKING)
def test_it_travels_with_the_model(objective: str, make_model: MakeModel, tmp_path: Path) -> None:
    model, story_tokenizer = make_model("bert", objective=objective)
    model.save_pretrained(tmp_path)
    batch = mixed_batch(story_tokenizer)
    again = SentenceOrderingModel.from_pretrained(tmp_path)
    assert again.config.objective == objective
    assert torch.equal(again(**batch).loss, model(**batch).loss)
