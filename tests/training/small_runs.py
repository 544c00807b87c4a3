"""Small training runs, and what they look like from outside: the weights after each step of the optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from modeling_sentence_ordering import StoryTokenizer
from tests.training.made_up import made_up_stories
from training.data.stories import TokenizedStories
from training.frameworks.protocol import load_framework
from training.frameworks.run import TrainingRun
from training.frameworks.training_log import TrainingLog
from training.models.encoders import build_model
from training.recipe.recipe import Recipe

Weights = dict[str, Tensor]


def as_dataset(stories: list[list[str]]) -> Dataset:
    """Stories with the columns that `load_stories` gives them."""
    return Dataset.from_list([{"storyid": f"id-{i}", "storytitle": "", "sentences": s} for i, s in enumerate(stories)])


def small_run(folder: Path, encoder: Path, framework: str, **fields: Any) -> TrainingRun:
    """A run on 45 stories; by default the last of the 6 steps of an epoch has batches of 3 and 2, the others of 4."""
    values: dict[str, Any] = {
        "encoder": str(encoder),
        "data": ["made up"],
        "output_dir": str(folder),
        "framework": framework,
        "bf16": False,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_grad_norm": 50.0,  # some steps are clipped, and some are not
        "learning_rate": 2e-3,
        "logging_steps": 4,
    }
    recipe = Recipe(**{**values, **fields}).resolved()
    model, tokenizer = build_model(recipe, [])
    story_tokenizer = StoryTokenizer(tokenizer, model.config)
    training, validation = (
        TokenizedStories(as_dataset(made_up_stories(count, seed=seed)), story_tokenizer)
        for count, seed in ((45, 0), (20, 1))
    )
    folder.mkdir(parents=True, exist_ok=True)
    log = TrainingLog(folder / "training_log.csv")
    return TrainingRun(recipe, model, tokenizer, training, {"validation": validation}, log)


@contextmanager
def watched(run: TrainingRun) -> Iterator[list[Weights]]:
    """The run's weights after each step of the optimizer."""
    steps: list[Weights] = []
    hook = register_optimizer_step_post_hook(lambda *_: steps.append(weights(run)))
    try:
        yield steps
    finally:
        hook.remove()


def weights(run: TrainingRun) -> Weights:
    """A copy of the weights, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in run.model.state_dict().items()}


def train(run: TrainingRun, resume_from: Path | None = None) -> list[Weights]:
    """Trains; the weights after each step."""
    with watched(run) as steps:
        load_framework(run.recipe.framework).train(run, resume_from)
    return steps


def difference(one: Weights, other: Weights) -> tuple[float, str]:
    """The largest difference between two sets of weights, and the tensor where it is."""
    return max((float((one[name] - other[name]).abs().max()), name) for name in one)


def assert_same_steps(ours: list[Weights], theirs: list[Weights], tolerance: float = 0.0) -> None:
    """Fails at the first step at which the weights differ, naming step and tensor."""
    for step, (one, other) in enumerate(zip(ours, theirs, strict=True), 1):
        largest, name = difference(one, other)
        assert largest <= tolerance, f"step {step}: {name} differs by {largest}"


def interrupt_after(step: int) -> Any:
    """Interrupts the training of this process, as Ctrl-C would, at the end of a step of the optimizer."""
    done = 0

    def count(*_: Any) -> None:
        nonlocal done
        done += 1
        if done == step:
            raise KeyboardInterrupt

    return register_optimizer_step_post_hook(count)


def script_evaluations(monkeypatch: pytest.MonkeyPatch, metrics: Iterable[float]) -> None:
    """Evaluations that come out as told: `kendalls_tau`, and its negative as `loss`; in every framework."""
    values = iter(metrics)

    def scripted_metrics(*_: Any) -> dict[str, float]:
        value = next(values)
        return {name: value for name in ("accuracy", "kendalls_tau", "pmr", "mean_logits", "std_logits", "stories")} | {
            "loss": -value
        }

    monkeypatch.setattr("training.frameworks.run.evaluation_metrics", scripted_metrics)


def seeded(seed: int = 0) -> torch.Generator:
    """A generator of random numbers."""
    return torch.Generator().manual_seed(seed)
