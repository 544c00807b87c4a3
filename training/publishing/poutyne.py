"""Pushes the model of a Poutyne experiment to the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import poutyne

from training.frameworks.poutyne.experiment import METRICS

from .push import Publication, Pushed, push_model


def push_experiment(experiment: poutyne.ModelBundle, tokenizer: Any, repo_id: str, **options: Any) -> Pushed:
    """Pushes the complete model of an experiment: that of its best epoch if it was validated, otherwise the last one.

    Args:
        experiment: a trained experiment from `build_experiment`.
        tokenizer: the model's.
        repo_id: see `Publication`.
        **options: other attributes of `Publication`.

    Raises:
        UserError, PushFailed: as `push_model`.
    """
    publication = Publication(repo_id, **options)
    stats: Mapping[str, Any] = {}
    if experiment.monitoring and experiment.monitor_metric in experiment.get_stats():
        stats = experiment.load_checkpoint("best").iloc[0]
    metrics = {name: float(stats[f"val_{name}"]) for name in METRICS if f"val_{name}" in stats}
    return push_model(experiment.model.network.model, tokenizer, publication, framework="Poutyne", metrics=metrics)
