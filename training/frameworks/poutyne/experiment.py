"""Sentence ordering with Poutyne's own `Model` and `Experiment`, without a recipe."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import poutyne
import torch
from torch.optim import Optimizer

from modeling_sentence_ordering import SentenceOrderingConfig, SentenceOrderingModel
from training.evaluation.metrics import LOGGED_METRICS
from training.evaluation.predictions import Predictions, evaluation_metrics
from training.system.device import fastest_device

from .adapters import EpochMetric, ModelWrapper, TransformerModel

METRICS = tuple(name for name in LOGGED_METRICS if name != "loss")


def ordering_metric(config: SentenceOrderingConfig, names: tuple[str, ...] = METRICS) -> EpochMetric:
    """The metrics of sentence ordering as an epoch metric for Poutyne.

    Args:
        config: the model's.
        names: metrics to log, named as in the output of `sentence-ordering evaluate`.
    """

    def function(outputs: dict[str, np.ndarray], labels: np.ndarray) -> Mapping[str, float]:
        predictions = Predictions(outputs["logits"], labels, outputs["sentence_mask"], outputs.get("pair_logits"))
        return evaluation_metrics(predictions, config)

    pairs = ("pair_logits",) if config.head == "pairs" else ()
    return EpochMetric(function, names, output_keys=("logits", "sentence_mask", *pairs))


def build_experiment(
    directory: str | os.PathLike[str],
    model: SentenceOrderingModel,
    optimizer: Optimizer | str,
    *,
    batch_metrics: Sequence[Any] = (),
    epoch_metrics: Sequence[Any] = (),
    device: torch.device | str | None = None,
    **options: Any,
) -> poutyne.ModelBundle:
    """Poutyne's `Experiment` around a sentence ordering model; its attribute `model` is a `TransformerModel`.

    The best epoch has the highest Kendall's tau on the validation stories. `Experiment` reads its files with pickle:
    resume only from a directory that you trust.

        experiment = build_experiment("runs/first", model, "adamw")
        experiment.train(
            training_loader,
            validation_loader,
            epochs=3,
            batches_per_step=2,
            lr_schedulers=[StepSchedule(get_linear_schedule_with_warmup, num_warmup_steps=9, num_training_steps=90)],
            callbacks=[GradientClipping(1.0)],
        )
        push_experiment(experiment, tokenizer, "user/my-model")

    Args:
        directory: for checkpoints and logs; training resumes if it has some.
        model: trained in place.
        optimizer: of the model's parameters, or its name.
        batch_metrics, epoch_metrics: additional metrics.
        device: CUDA if available, by default.
        **options: further arguments of `poutyne.ModelBundle.from_model`.
    """
    network = TransformerModel(
        # `num_stories` is for loops in which all batches of a step have the same weight. Poutyne weights them by their
        # number of stories, which gives the same gradient.
        ModelWrapper(model, ignore=["num_stories"]),
        optimizer,
        batch_metrics=[*batch_metrics],
        epoch_metrics=[ordering_metric(model.config), *epoch_metrics],
        device=fastest_device() if device is None else device,
    )
    defaults = {"monitor_metric": "val_kendalls_tau", "monitor_mode": "max"}
    return poutyne.ModelBundle.from_model(os.fspath(directory), network, **{**defaults, **options})
