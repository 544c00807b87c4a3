"""Poutyne's own `Model` and `Experiment` on our model, with everything that the documentation names."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import poutyne
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from transformers import get_linear_schedule_with_warmup

from modeling_sentence_ordering import SentenceOrderingModel
from tests.training.small_runs import difference, small_run, train
from training.data.stories import evaluation_loader, training_loader
from training.evaluation.predictions import evaluate
from training.frameworks.optimization import build_optimizer
from training.frameworks.poutyne.adapters import TransformerCollator
from training.frameworks.poutyne.callbacks import GradientClipping, PassEpoch, StepSchedule
from training.frameworks.poutyne.experiment import build_experiment, ordering_metric
from training.frameworks.run import TrainingRun

STEPS_PER_EPOCH = 6


def loaders(run: TrainingRun) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """As the documentation of `build_experiment` makes them."""
    training = training_loader(run.training, run.recipe)
    training.collate_fn = TransformerCollator(training.collate_fn)
    validation = evaluation_loader(run.validation, 8)
    validation.collate_fn = TransformerCollator(validation.collate_fn)
    return training, validation


def train_experiment(
    run: TrainingRun, directory: Path, epochs: int, *callbacks: poutyne.Callback, monitor: str = "val_kendalls_tau"
) -> tuple[poutyne.ModelBundle, list[dict[str, Any]]]:
    """Trains up to an epoch as the documentation of `build_experiment` does, schedule and clipping included."""
    training, validation = loaders(run)
    options = {"monitor_metric": "val_loss", "monitor_mode": "min"} if monitor == "val_loss" else {}
    experiment = build_experiment(directory, run.model, build_optimizer(run.model, run.recipe), **options)
    schedule = StepSchedule(get_linear_schedule_with_warmup, num_warmup_steps=3, num_training_steps=4 * STEPS_PER_EPOCH)
    history = experiment.train(
        training,
        validation,
        epochs=epochs,
        batches_per_step=2,
        lr_schedulers=[schedule],
        callbacks=[PassEpoch(training), GradientClipping(run.recipe.max_grad_norm), *callbacks],
        verbose=False,
    )
    return experiment, history


def saved(path: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = torch.load(path, weights_only=True)
    return weights


def test_an_experiment_with_all_its_loggers(home: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path, home / "tiny-bert", "poutyne", learning_rate=0.02)
    directory = tmp_path / "experiment"
    writer = SummaryWriter(str(tmp_path / "gradients"))
    experiment, history = train_experiment(
        run,
        directory,
        2,
        poutyne.CSVLogger(str(tmp_path / "log.csv")),
        poutyne.TensorBoardLogger(SummaryWriter(str(tmp_path / "tensorboard")), split_train_val=True),
        poutyne.TensorBoardGradientTracker(writer, keep_bias=True),
        poutyne.EarlyStopping(monitor="val_kendalls_tau", mode="max", patience=5),
    )
    writer.close()
    with open(tmp_path / "log.csv", newline="", encoding="utf-8") as source:
        rows = list(csv.DictReader(source))
    taus = [row["val_kendalls_tau"] for row in history]
    assert [float(row["val_kendalls_tau"]) for row in rows] == taus
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("val_kendalls_tau")] == pytest.approx(taus)
    # Every parameter has its gradient tracked, under its own name.
    gradients = {path.name for path in (tmp_path / "gradients").iterdir()}
    for name, _ in run.model.named_parameters():
        assert any(name in folder for folder in gradients), name

    # The best epoch is in the model, and what Poutyne says of it is what the one metrics place says.
    best = 1 + int(np.argmax(taus))
    assert difference(run.model.state_dict(), saved(directory / f"checkpoint_epoch_{best}.ckpt"))[0] == 0
    metrics = evaluate(run.model.eval(), run.validation)
    for name in ("accuracy", "kendalls_tau", "pmr", "mean_logits", "std_logits"):
        assert history[best - 1][f"val_{name}"] == pytest.approx(metrics[name], rel=1e-5)
    assert history[best - 1]["val_loss"] == pytest.approx(metrics["loss"], rel=1e-5)
    _, validation = loaders(run)
    tested = experiment.test(validation, verbose=False)
    assert tested["test_kendalls_tau"] == pytest.approx(max(taus))

    experiment.model.network.save_pretrained(tmp_path / "shared")
    again = SentenceOrderingModel.from_pretrained(tmp_path / "shared")
    assert difference(run.model.state_dict(), again.state_dict())[0] == 0


def test_an_experiment_goes_on_where_it_stood(home: Path, tmp_path: Path) -> None:
    def new_run(name: str) -> TrainingRun:
        return small_run(tmp_path / name, home / "tiny-bert", "poutyne")

    _, history = train_experiment(new_run("one"), tmp_path / "undisturbed", 4)
    _, first = train_experiment(new_run("two"), tmp_path / "resumed", 2)
    _, second = train_experiment(new_run("three"), tmp_path / "resumed", 4)
    assert [row["epoch"] for row in second] == [3, 4]
    assert [row["loss"] for row in first + second] == [row["loss"] for row in history]
    last = saved(tmp_path / "undisturbed" / "checkpoint.ckpt")
    assert difference(saved(tmp_path / "resumed" / "checkpoint.ckpt"), last)[0] == 0


def test_an_experiment_stops_early(home: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path, home / "tiny-bert", "poutyne", learning_rate=1e-12)
    stopping = poutyne.EarlyStopping(monitor="val_loss", min_delta=1.0, patience=1)
    _, history = train_experiment(run, tmp_path / "experiment", 4, stopping, monitor="val_loss")
    assert len(history) == 2


@pytest.mark.parametrize("batches_per_step", [1, 2])
def test_without_dropout_an_experiment_makes_the_weights_of_the_recipe(
    home: Path, tmp_path: Path, batches_per_step: int
) -> None:
    """Poutyne weighs the batches of a step in its own way, and it comes to the same up to rounding."""
    fields: dict[str, Any] = {"gradient_accumulation_steps": batches_per_step, "eval_strategy": "no"}
    fields |= {"adam_epsilon": 1.0, "learning_rate": 0.05, "max_grad_norm": 0.0, "num_train_epochs": 2}
    fields |= {"lr_scheduler_type": "constant"}
    by_recipe, run = (small_run(tmp_path / name, home / "calm-bert", "poutyne", **fields) for name in ("one", "two"))
    for model in (by_recipe.model, run.model):
        model.dropout.p = 0.0
    steps = train(by_recipe)
    training, _ = loaders(run)
    experiment = build_experiment(
        tmp_path / "experiment", run.model, build_optimizer(run.model, run.recipe), monitoring=False, logging=False
    )
    experiment.train(
        training, epochs=2, batches_per_step=batches_per_step, callbacks=[PassEpoch(training)], verbose=False
    )
    assert difference(run.model.state_dict(), steps[-1])[0] <= 1e-5
    assert difference(run.model.state_dict(), steps[0])[0] > 1e-2


def test_the_metric_calls_the_one_metrics_place(home: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path, home / "tiny-bert", "poutyne")
    metric = ordering_metric(run.model.config, ("kendalls_tau", "stories"))
    # Two sentences in their order and one cut off; and three in reverse.
    metric.update(
        {"logits": torch.tensor([[0.1, 0.2, 0.0]]), "sentence_mask": torch.tensor([[True, True, False]])},
        torch.tensor([[0, 2, 1]]),
    )
    metric.update(
        {"logits": torch.tensor([[0.3, 0.2, 0.1, 0.0]]), "sentence_mask": torch.tensor([[True, True, True, False]])},
        torch.tensor([[0, 1, 2, -100]]),
    )
    values = metric.compute()
    assert isinstance(values, dict)
    assert values["kendalls_tau"] == 0 and values["stories"] == 2 and values["dropped_sentences"] == 1
