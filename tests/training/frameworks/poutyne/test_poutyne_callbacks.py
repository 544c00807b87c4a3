"""Callbacks for Poutyne that go by the optimizer's steps, on a network small enough to do the sums by hand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import poutyne
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from tests.training.small_runs import interrupt_after, seeded
from training.frameworks.optimization import seed_step
from training.frameworks.poutyne.callbacks import GradientClipping, PassEpoch, SeedSteps, StepSchedule
from training.recipe.recipe import Recipe

BATCHES_PER_STEP = 2
EXAMPLES, BATCH_SIZE = 14, 4  # batches of 4, 4, 4 and 2: the two steps of an epoch are of 8 and of 6 examples


class Watch(poutyne.Callback):
    """The learning rate of each step and how far it moved the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []
        self.moves: list[float] = []

    def on_train_begin(self, logs: dict[str, Any]) -> None:
        optimizer, weight = self.model.optimizer, self.model.network.weight
        before: list[torch.Tensor] = []

        def on_begin(*_: Any) -> None:
            self.rates.append(optimizer.param_groups[0]["lr"])
            before.append(weight.detach().clone())

        self.hooks = [
            optimizer.register_step_pre_hook(on_begin),
            optimizer.register_step_post_hook(
                lambda *_: self.moves.append(float((weight.detach() - before[-1]).norm()))
            ),
        ]

    def on_train_end(self, logs: dict[str, Any]) -> None:
        for hook in self.hooks:
            hook.remove()


def linear_model(learning_rate: float = 1.0) -> poutyne.Model:
    torch.manual_seed(0)
    network = nn.Linear(3, 1, bias=False)
    return poutyne.Model(network, torch.optim.SGD(network.parameters(), lr=learning_rate), "mse")


def fit(model: poutyne.Model, *callbacks: poutyne.Callback, epochs: int = 1, initial_epoch: int = 1) -> Watch:
    x = torch.randn(EXAMPLES, 3, generator=seeded())
    y = 10 * torch.randn(EXAMPLES, 1, generator=seeded(1))
    watch = Watch()
    model.fit_generator(
        DataLoader(TensorDataset(x, y), batch_size=BATCH_SIZE),
        epochs=epochs,
        initial_epoch=initial_epoch,
        batches_per_step=BATCHES_PER_STEP,
        callbacks=[watch, *callbacks],
        verbose=False,
    )
    return watch


def test_the_gradient_of_a_whole_step_is_clipped_after_it_is_averaged() -> None:
    unclipped = fit(linear_model())
    clipping = GradientClipping(0.5)
    clipped = fit(linear_model(), clipping)
    assert unclipped.moves[0] > 2
    # SGD with a rate of 1 moves the weights by the gradient.
    assert clipped.moves == pytest.approx([0.5, 0.5], rel=1e-4)
    measuring = GradientClipping()
    assert fit(linear_model(), measuring).moves == unclipped.moves
    assert float(measuring.grad_norm) == pytest.approx(unclipped.moves[-1], rel=1e-5)


def test_the_schedule_moves_once_a_step() -> None:
    schedule = StepSchedule(LambdaLR, lr_lambda=lambda step: 1 / (step + 1))
    watch = fit(linear_model(0.01), schedule, epochs=3)
    assert watch.rates == pytest.approx([0.01 / step for step in range(1, 7)])
    assert schedule.learning_rate == watch.rates[-1]


@pytest.mark.parametrize(
    "build",
    [
        lambda optimizer: ExponentialLR(optimizer, 0.5),
        lambda optimizer: LambdaLR(optimizer, lambda step: min(1, step / 3)),
    ],
)
def test_a_schedule_goes_on_from_its_saved_state_and_at_once(build: Any) -> None:
    undisturbed = fit(linear_model(0.01), StepSchedule(build), epochs=4)
    model, schedule = linear_model(0.01), StepSchedule(build)
    first = fit(model, schedule, epochs=2)

    resumed_model, resumed = linear_model(0.01), StepSchedule(build)
    resumed_model.set_weights(model.get_weights())
    resumed_model.optimizer.load_state_dict(model.optimizer.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    second = fit(resumed_model, resumed, epochs=4, initial_epoch=3)
    assert first.rates + second.rates == pytest.approx(undisturbed.rates)
    assert first.moves + second.moves == pytest.approx(undisturbed.moves)


def test_training_that_was_interrupted_leaves_nothing_behind_in_the_optimizer() -> None:
    model = linear_model(0.01)
    interruption = interrupt_after(1)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(model, StepSchedule(ExponentialLR, gamma=0.5), GradientClipping(0.5))
    finally:
        interruption.remove()
    watch = fit(model, StepSchedule(ExponentialLR, gamma=0.5), GradientClipping(), epochs=2)
    assert [later / earlier for earlier, later in pairwise(watch.rates)] == pytest.approx([0.5] * 3)
    assert watch.moves[0] > 0.5 * watch.rates[0] * 1.5, "still clipped to 0.5"
    # And training that ended leaves no hook at all.
    model.optimizer.param_groups[0]["lr"] = 0.01
    assert fit(model, epochs=2).rates == [0.01] * 4


def test_the_loader_is_told_the_epoch_counted_from_0() -> None:
    class Loader:
        epochs: list[int] = []

        def set_epoch(self, epoch: int) -> None:
            self.epochs.append(epoch)

    fit(linear_model(0.01), PassEpoch(Loader()), epochs=3)
    assert Loader.epochs == [0, 1, 2]


@pytest.mark.parametrize("batches_per_step", [1, 2, 3])
def test_each_step_has_its_seed_also_in_a_run_that_goes_on(batches_per_step: int) -> None:
    """Four batches in an epoch; the forward passes of a step draw one after the other from its seed."""

    def drawn(epochs: int, initial_epoch: int = 1) -> list[float]:
        model, draws = linear_model(), []
        model.network.register_forward_pre_hook(lambda *_: draws.append(float(torch.rand(()))))
        torch.rand(initial_epoch)
        model.fit_generator(
            DataLoader(TensorDataset(torch.ones(EXAMPLES, 3), torch.ones(EXAMPLES, 1)), batch_size=BATCH_SIZE),
            epochs=epochs,
            initial_epoch=initial_epoch,
            batches_per_step=batches_per_step,
            callbacks=[SeedSteps(seed=3, batches_per_step=batches_per_step)],
            verbose=False,
        )
        return draws

    whole = drawn(3)
    assert len(set(whole)) == 12
    assert drawn(3, initial_epoch=3) == whole[8:]
    seed_step(Recipe(seed=3), -(-4 // batches_per_step))  # the first step of the second epoch
    assert float(torch.rand(())) == whole[4]
