"""What is the transformers Trainer's alone; what it has in common with the others is in `test_frameworks.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments

from modeling_sentence_ordering import SentenceOrderingModel, load_tokenizer
from tests.training.framework_runs import make_run, train
from training.frameworks.checkpoints import last_checkpoint
from training.frameworks.trainer import framework as with_trainer
from training.frameworks.trainer.framework import StoryTrainer, checkpoint_step, training_arguments
from training.recipe.recipe import Recipe

MakeRecipe = Callable[..., Recipe]


def test_nothing_of_the_loss_is_overridden() -> None:
    """Only what the recipe decides, and who looks on: `compute_loss` and the like are Trainer's own."""
    own = {name for name in vars(StoryTrainer) if not name.startswith("__")}
    decided = {"get_train_dataloader", "get_eval_dataloader", "create_optimizer", "create_scheduler", "evaluation_loop"}
    assert own == decided | {"training_step"}
    assert all(hasattr(Trainer, name) for name in own)
    assert not any(name.startswith("_") for name in own), "a private name may go in the next version"


def test_several_gpus_do_not_share_a_batch(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """DataParallel would cut it up, and with it the loss, which is weighted for the whole."""

    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda arguments: 2))
    recipe = make_recipe()
    assert TrainingArguments(output_dir=recipe.output_dir).n_gpu == 2
    assert training_arguments(recipe, make_run(recipe), 12).n_gpu == 1


def test_a_checkpoint_is_a_model_that_can_be_used(make_recipe: MakeRecipe) -> None:
    run = train(make_recipe(num_train_epochs=1))
    checkpoint = last_checkpoint(with_trainer, run.checkpoints)
    assert checkpoint is not None
    assert checkpoint_step(checkpoint) == 6
    model = SentenceOrderingModel.from_pretrained(checkpoint)
    assert torch.equal(model.head.weight, run.model.head.weight)
    assert load_tokenizer(str(checkpoint)).get_vocab() == run.tokenizer.get_vocab()


@pytest.mark.parametrize("state", [None, "", "{", '{"global_step": 9', "[]", '{"surprise": 1}'])
def test_a_checkpoint_whose_state_is_not_whole_is_none(state: str | None, tmp_path: Path) -> None:
    for step in (3, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        for name in ("optimizer", "scheduler", "rng_state"):
            (tmp_path / f"checkpoint-{step}" / name).touch()
    torn = tmp_path / "checkpoint-100"
    torn.mkdir()
    if state is not None:
        (torn / "trainer_state.json").write_text(state)
    with pytest.raises(ValueError, match="checkpoint-100.*Trainer"):
        checkpoint_step(torn)
    assert last_checkpoint(with_trainer, tmp_path) == tmp_path / "checkpoint-12"
    assert not torn.exists() and (tmp_path / "damaged-checkpoint-100").exists()
