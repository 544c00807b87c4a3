"""The three short examples: they run, their models are whole, and what they train is the same model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
import torch

from examples import with_lightning, with_poutyne, with_trainer
from modeling_sentence_ordering import SentenceOrderingPipeline
from training.models.trained_model import load_trained_model

EXAMPLES = [with_trainer, with_lightning, with_poutyne]
Outcome = tuple[Mapping[str, float], Path]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[ModuleType, Outcome]:
    """Metrics and folder of each after two steps, started where nothing else is."""
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        flags = ["--encoder", "cnn", "--max_steps", "2", "--output_dir"]
        return {example: (example.main([*flags, example.__name__]), folder / example.__name__) for example in EXAMPLES}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.__name__)
def test_it_leaves_a_model_that_orders(example: ModuleType, outcomes: dict[ModuleType, Outcome]) -> None:
    metrics, folder = outcomes[example]
    assert metrics["test_kendalls_tau"] == outcomes[with_trainer][0]["test_kendalls_tau"]
    assert metrics["test_accuracy"] == pytest.approx(outcomes[with_trainer][0]["test_accuracy"])
    model, tokenizer = load_trained_model(str(folder))
    answer = SentenceOrderingPipeline(model=model, tokenizer=tokenizer)(["He ate it.", "Tom baked.", "It was good."])
    assert sorted(answer["order"]) == [0, 1, 2]
    expected = load_trained_model(str(outcomes[with_trainer][1]))[0].state_dict()
    for name, weights in model.state_dict().items():
        assert torch.equal(weights, expected[name]), name


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.__name__)
def test_it_is_short_and_says_how_to_run_it(example: ModuleType) -> None:
    assert example.__file__ is not None and example.__doc__ is not None
    assert f"\npython {example.__name__.replace('.', '/')}.py --" in example.__doc__
    code = [line for line in Path(example.__file__).read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(code) <= 60
