"""How runs are judged, and the file that their figures go to."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.measuring import ResultsFile, calibration_figures, figures
from benchmarks.objectives import guide_recipe, not_better_than_the_guide
from training.evaluation.predictions import Predictions
from training.recipe.recipe import Recipe

HEAD: dict[str, Any] = {"recipe": {"encoder": "cnn", "learning_rate": 1e-3}, "num_permutations": (1, 8)}


def predictions(stories: int, temperature: float, seed: int = 0) -> Predictions:
    """Scores of pairs of sentences, of which the first comes first with the probability σ(difference / temperature)."""
    generator = np.random.default_rng(seed)
    differences = generator.exponential(2.0, stories)
    right = generator.random(stories) < 1 / (1 + np.exp(-differences / temperature))
    scores = np.stack([np.zeros(stories), differences], axis=1)
    labels = np.where(right[:, None], [0, 1], [1, 0])
    return Predictions(scores, labels, np.ones((stories, 2), bool))


def test_runs_add_up_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "results" / "file.json"
    first, second = ResultsFile(path, HEAD), ResultsFile(path, HEAD)
    first.add("mse", 1, {"recipe": {}, "tau": 0.5})
    second.add("mse", 2, {"recipe": {}, "tau": 0.6})
    first.add("pairwise", 1, {"recipe": {"objective": "pairwise"}, "tau": 0.7})
    again = ResultsFile(path, HEAD)
    assert [again.has("mse", 1), again.has("mse", 2), again.has("mse", 3), again.has("listmle", 1)] == [
        True,
        True,
        0,
        0,
    ]
    assert again.runs()["pairwise"] == {"1": {"recipe": {"objective": "pairwise"}, "tau": 0.7}}
    assert json.loads(path.read_text())["recipe"] == HEAD["recipe"]
    assert [file.name for file in path.parent.iterdir()] == ["file.json"]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({**HEAD, "recipe": {"encoder": "cnn", "learning_rate": 2e-3}}, "learning_rate is 0.001 there and 0.002 here"),
        ({**HEAD, "recipe": {"encoder": "cnn"}}, "learning_rate is 0.001 there and None here"),
        ({**HEAD, "recipe": {**HEAD["recipe"], "bf16": True}}, "bf16 is None there and True here"),
        ({**HEAD, "num_permutations": [1]}, r"num_permutations is \[1, 8\] there and \[1\] here"),
    ],
)
def test_another_recipe_is_refused_in_words(tmp_path: Path, head: dict[str, Any], message: str) -> None:
    ResultsFile(tmp_path / "file.json", HEAD).add("mse", 1, {"recipe": {}})
    with pytest.raises(ValueError, match=f"file.json holds runs by another recipe: {message}; give that recipe"):
        ResultsFile(tmp_path / "file.json", head)


def test_a_field_that_recipes_have_since_then_is_at_its_default_in_older_runs(tmp_path: Path) -> None:
    ResultsFile(tmp_path / "file.json", HEAD).add("mse", 1, {"recipe": {}})
    later = {**HEAD, "recipe": {**HEAD["recipe"], "gradient_checkpointing": False}}
    assert ResultsFile(tmp_path / "file.json", later).has("mse", 1)
    with pytest.raises(ValueError, match="gradient_checkpointing is False there and True here"):
        ResultsFile(tmp_path / "file.json", {**HEAD, "recipe": {**HEAD["recipe"], "gradient_checkpointing": True}})


def test_a_place_is_claimed_before_anything_is_measured(tmp_path: Path) -> None:
    ResultsFile(tmp_path / "file.json", HEAD).claim()
    with pytest.raises(ValueError, match="another recipe"):
        ResultsFile(tmp_path / "file.json", {**HEAD, "recipe": {}})


def test_a_row_by_another_recipe_is_refused(tmp_path: Path) -> None:
    results = ResultsFile(tmp_path / "file.json", HEAD)
    results.add("nips", 1, {"recipe": {"num_train_epochs": 3.0}})
    assert results.has("nips", 1, {"num_train_epochs": 3})
    with pytest.raises(ValueError, match="holds nips, seed 1, by another recipe"):
        results.has("nips", 1, {"num_train_epochs": 4})


def test_figures_are_numbers_with_intervals() -> None:
    found = figures(predictions(200, 1.0))
    low, high = found["intervals"]["kendalls_tau"]
    assert low < found["kendalls_tau"] < high
    assert found["stories"] == 200
    assert "examples" not in found
    json.dumps(found)


def test_calibration_on_stories_that_the_temperature_was_not_fitted_on() -> None:
    many = predictions(40_000, temperature=1.5)
    right, wrong = calibration_figures(many, 1.5), calibration_figures(many, 0.3)
    assert right["calibration_error"] < 0.01 < 0.1 < wrong["calibration_error"]
    assert right["calibration_error_cross_fitted"] == wrong["calibration_error_cross_fitted"] < 0.01
    assert "calibration_error" not in calibration_figures(many, None)
    # The halves differ: each is judged with the temperature of the other one, and both are off.
    halves = [predictions(20_000, 0.2), predictions(20_000, 5.0)]
    joined: dict[str, Any] = {
        name: np.stack([getattr(half, name) for half in halves], axis=1).reshape(-1, 2)
        for name in ("scores", "labels", "sentence_mask")
    }
    mixed = Predictions(**joined)
    assert calibration_figures(mixed, None)["calibration_error_cross_fitted"] > 0.1


def test_the_guides_recipe_is_its_own_but_for_encoder_data_and_length() -> None:
    best = Recipe(
        encoder="minilm", data=["a.csv"], validation_data=["b.csv"], output_dir="out", objective="pairwise",
        target_scale="unit", learning_rate=2e-4, num_train_epochs=7, per_device_train_batch_size=32, weight_decay=0.1,
        adam_beta2=0.98, lr_scheduler_type="cosine", warmup_steps=0.2, max_grad_norm=2.0, bf16=True,
    )  # fmt: skip
    guide = guide_recipe(best, 3e-5)
    guide.check()
    kept = {
        "encoder",
        "data",
        "validation_data",
        "output_dir",
        "num_train_epochs",
        "per_device_train_batch_size",
        "bf16",
    }
    assert all(getattr(guide, name) == getattr(best, name) for name in kept)
    differs = {
        spec.name for spec in dataclasses.fields(Recipe)
        if getattr(guide, spec.name) != getattr(Recipe(), spec.name) and spec.name not in kept
    }  # fmt: skip
    assert {name: getattr(guide, name) for name in differs} == {
        "learning_rate": 3e-5, "shuffle_sentences": "fixed", "lr_scheduler_type": "constant", "warmup_steps": 0.0,
        "max_grad_norm": 0.0,
    }  # fmt: skip


def test_what_is_not_better_than_the_guide_is_named() -> None:
    def run(one: float, eight: float) -> dict[str, Any]:
        return {"judged": {"validation": {"1": {"kendalls_tau": one}, "8": {"kendalls_tau": eight}}}}

    runs = {
        "mse": {"1": run(0.5, 0.9), "2": run(0.7, 0.9)},
        "pairwise": {"1": run(0.8, 0.7)},
        "guide, 3e-05": {"1": run(0.2, 0.75)},
        "guide, 0.0002": {"1": run(0.6, 0.1)},
    }
    assert not_better_than_the_guide(runs) == {"1": ["mse"], "8": ["pairwise"]}
    assert not_better_than_the_guide({"mse": runs["mse"]}) == {}
