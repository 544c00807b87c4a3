"""Sentence ordering with Poutyne's own `Model` and `Experiment`, for those who would rather not train by a recipe."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import poutyne
from torch.optim import Optimizer

from modeling_sentence_ordering import SentenceOrderingConfig, SentenceOrderingModel
from training.evaluation.predictions import Predictions, judge
from training.system.device import fastest_device

from .adapters import MetricWrapper, ModelWrapper, model_loss

METRICS = ("accuracy", "kendalls_tau", "pmr", "mean_logits", "std_logits")


def ordering_metric(config: SentenceOrderingConfig, names: tuple[str, ...] = METRICS) -> MetricWrapper:
    """The metrics of sentence ordering as an epoch metric for Poutyne; `training.evaluation.metrics` defines each.

    Args:
        config: the model's.
        names: which metrics, by the names that they have in the results of an evaluation.
    """

    def function(outputs: dict[str, np.ndarray], labels: np.ndarray) -> Mapping[str, float]:
        return judge(Predictions(outputs["logits"], labels, outputs["sentence_mask"]), config)

    return MetricWrapper(function, names, output_keys=("logits", "sentence_mask"))


def build_experiment(
    directory: str | os.PathLike[str], model: SentenceOrderingModel, optimizer: Optimizer | str, **options: Any
) -> poutyne.ModelBundle:
    """Poutyne's `Experiment` around a model of ours; its attribute `model` is the `poutyne.Model`.

    The best epoch is the one of the highest Kendall's tau on the validation stories. What `Experiment` writes it
    reads again with pickle: go on only from a directory of your own.

        training = training_loader(stories, recipe)
        training.collate_fn = TransformerCollator(training.collate_fn)
        validation = evaluation_loader(other_stories, batch_size=64)
        validation.collate_fn = TransformerCollator(validation.collate_fn)
        experiment = build_experiment("runs/first", model, build_optimizer(model, recipe))
        experiment.train(
            training,
            validation,
            epochs=3,
            batches_per_step=2,
            lr_schedulers=[StepSchedule(get_linear_schedule_with_warmup, num_warmup_steps=9, num_training_steps=90)],
            callbacks=[PassEpoch(training), GradientClipping(1.0)],
        )
        push_experiment(experiment, tokenizer, "user/my-model")

    Args:
        directory: for checkpoints and logs; if there are any, training goes on from them.
        model: trained in place.
        optimizer: of the model's parameters.
        **options: anything else that `poutyne.Experiment` takes; `device` is the fastest if not given.
    """
    defaults = {"device": fastest_device(), "monitor_metric": "val_kendalls_tau", "monitor_mode": "max"}
    return poutyne.Experiment(
        os.fspath(directory),
        # That is for a loop that weighs all batches of a step the same. Poutyne weighs each by its stories, which
        # comes to the same without it.
        ModelWrapper(model, ignore=["num_stories"]),
        optimizer=optimizer,
        loss_function=model_loss,
        epoch_metrics=[ordering_metric(model.config)],
        **{**defaults, **options},
    )
