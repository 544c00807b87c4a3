"""The three short examples: they run, their models are whole, and what they train is the same model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from datasets import DatasetDict, load_dataset
from torch import Tensor

from dataset_builder import SAMPLE_FILE, load_stories
from examples import with_lightning, with_poutyne, with_trainer
from modeling_sentence_ordering import SentenceOrderingPipeline, StoryTokenizer
from tests.training.frameworks.test_same_weights import write_encoder
from training.data.stories import TokenizedStories
from training.frameworks.protocol import load_framework
from training.frameworks.run import TrainingRun
from training.models.encoders import build_model
from training.models.trained_model import load_trained_model
from training.recipe.recipe import Recipe

EXAMPLES = [with_trainer, with_lightning, with_poutyne]
STORIES, STEPS = 384, 72  # three epochs
TOLERANCE = 1e-6
# What all three examples do, with dropout in the encoder: accumulation, and a norm at which steps are clipped.
RECIPE = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-4,
    "train_sampling_strategy": "random",
    "shuffle_sentences": "fixed",
    "eval_strategy": "no",
    "bf16": False,
}
Outcome = tuple[Mapping[str, float], Path]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoders") / "dropout", 0.1)


def first_stories(*arguments: Any, **options: Any) -> DatasetDict:
    """The splits of `load_dataset`, with fewer training stories."""
    data = load_dataset(*arguments, **options)
    data["train"] = data["train"].select(range(STORIES))
    return data


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> dict[ModuleType, Outcome]:
    """Metrics and folder of each, started where nothing else is."""
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for example in EXAMPLES:
            patch.setattr(example, "load_dataset", first_stories)
        flags = ["--encoder", str(encoder), "--max_steps", str(STEPS), "--output_dir"]
        return {example: (example.main([*flags, example.__name__]), folder / example.__name__) for example in EXAMPLES}


@pytest.fixture(scope="module")
def by_recipe(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> dict[str, Tensor]:
    """The weights that `sentence-ordering train --framework trainer` gives by the recipe of the examples."""
    folder = tmp_path_factory.mktemp("by-recipe")
    recipe = Recipe(encoder=str(encoder), output_dir=str(folder), max_steps=STEPS, **RECIPE).resolved()  # type: ignore[arg-type]
    model, tokenizer = build_model(recipe, [])
    training = load_stories([SAMPLE_FILE])["train"].select(range(STORIES))
    stories = TokenizedStories(training, StoryTokenizer(tokenizer, model.config))
    run = TrainingRun(recipe, model, tokenizer, stories)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_framework("trainer").train(run)
    moved = max((start[name] - tensor).abs().max().item() for name, tensor in model.state_dict().items())
    assert moved > 1e-3, "nothing was trained"
    norms = [row["grad_norm"] for row in run.log.rows if "grad_norm" in row]
    assert max(norms) > recipe.max_grad_norm, "nothing was clipped"
    return model.state_dict()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.__name__)
def test_it_leaves_a_model_that_orders(example: ModuleType, outcomes: dict[ModuleType, Outcome]) -> None:
    metrics, folder = outcomes[example]
    assert {"test_loss", "test_kendalls_tau", "test_accuracy", "test_pmr"} <= metrics.keys()
    model, tokenizer = load_trained_model(str(folder))
    answer = SentenceOrderingPipeline(model=model, tokenizer=tokenizer)(["He ate it.", "Tom baked.", "It was good."])
    assert sorted(answer["order"]) == [0, 1, 2]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.__name__)
def test_its_weights_are_those_of_the_recipe(
    example: ModuleType, outcomes: dict[ModuleType, Outcome], by_recipe: dict[str, Tensor]
) -> None:
    """So those of the other examples as well."""
    weights = load_trained_model(str(outcomes[example][1]))[0].state_dict()
    assert weights.keys() == by_recipe.keys()
    for name, tensor in by_recipe.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.__name__)
def test_it_is_short_and_says_how_to_run_it(example: ModuleType) -> None:
    assert example.__file__ is not None and example.__doc__ is not None
    assert f"\npython {example.__name__.replace('.', '/')}.py --" in example.__doc__
    code = [line for line in Path(example.__file__).read_text(encoding="utf-8").splitlines() if line.strip()]
    docstring = [line for line in example.__doc__.splitlines() if line.strip()]
    assert len(code) - len(docstring) <= 40
