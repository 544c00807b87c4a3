"""Made-up facts for cards."""

from __future__ import annotations

import dataclasses
from typing import Any

from model_card.facts import Example, ModelFacts

METRICS = {
    "accuracy": 0.61249, "kendalls_tau": 0.7125, "pmr": 0.25, "loss": 2.5, "mean_logits": 2.0, "std_logits": 1.2,
    "stories": 7373, "sentences": 36865, "dropped_sentences": 0, "unscored_stories": 0,
}  # fmt: skip
ANALYSIS: dict[str, Any] = {
    "intervals": {
        "level": 0.95, "resamples": 2000, "seed": 42,
        "accuracy": [0.6011, 0.6222], "kendalls_tau": [0.7033, 0.7244], "pmr": [0.2355, 0.2666],
    },
    "baselines": {
        "random_order": {"accuracy": 0.2, "kendalls_tau": 0.0, "pmr": 1 / 120},
        "input_order": {"accuracy": 0.1987, "kendalls_tau": -0.0004, "pmr": 0.0081},
    },
    "by_position": [{"position": place, "accuracy": 0.5 + place / 100, "sentences": 7373} for place in range(1, 6)],
    "by_sentences": [{"sentences": 5, "stories": 7373, "accuracy": 0.61249, "kendalls_tau": 0.7125, "pmr": 0.25}],
    "positions": [[4000 if row == column else 843.25 for column in range(5)] for row in range(5)],
    "partial_orders": [
        {"ties": 0.5, "asserted": 1.0, "precision": 0.856, "recall": 0.856, "kendalls_tau_b": 0.712},
        {"ties": 0.8, "asserted": 0.75, "precision": 0.912, "recall": 0.684, "kendalls_tau_b": 0.65},
        {"ties": 0.99, "asserted": 0.0, "precision": None, "recall": 0.0, "kendalls_tau_b": 0.0},
    ],
    "examples": {"candidates": 7373, "drawn": 100, "seed": 42, "longest": 10, "stories": []},
}  # fmt: skip
RESULTS: dict[str, Any] = {
    "before_training": {"split": "test", **METRICS, "kendalls_tau": -0.0125},
    "training": {"seconds": 12.5, "stories": 42132},
    "validation": {**METRICS, "kendalls_tau": 0.7375, "stories": 3160},
    "test": METRICS,
    "environment": {"python": "3.11.7", "sentence-ordering": "0.1.0", "torch": "2.13.0", "device": "cpu"},
    "analysis": ANALYSIS,
}
RECIPE: dict[str, Any] = {
    "encoder": "my-bert",
    "data": ["stories.csv", "größer & $better.csv"],
    "framework": "lightning",
    "objective": "mse",
    "learning_rate": 3e-05,
    "eval_strategy": "no",
    "seed": 7,
}
EXAMPLE = Example("worst", ["Tom <b>mixed</b> flour | eggs.", "He *baked*.", "`It` was [good](x)."], [2, 0, 1], -1 / 3)


def facts(**changes: Any) -> ModelFacts:
    """A model trained on files, with some of its facts changed."""
    known = ModelFacts(
        name="my-model",
        recipe=RECIPE,
        results=RESULTS,
        parameters=66362880,
        training_sentences=(5, 5),
        max_input_tokens=512,
        base_model="org/encoder",
        curves="loss_curves.png",
        heatmap="position_heatmap.png",
    )
    return dataclasses.replace(known, **changes)
