"""Training with Lightning by one's own means: its Trainer, callbacks and loggers on our module and stories."""

from __future__ import annotations

import csv
import inspect
import logging
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.plugins import MixedPrecision
from pytorch_lightning.tuner import Tuner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.amp import GradScaler

from tests.modeling_sentence_ordering.small_encoders import write_encoder
from tests.training.framework_runs import assert_same_weights
from training.evaluation.metrics import LOGGED_METRICS
from training.evaluation.predictions import evaluate
from training.frameworks.lightning.checkpoints import HubFolderCallback, checkpoint_to_folder
from training.frameworks.lightning.data import StoryDataModule
from training.frameworks.lightning.module import SentenceOrderingModule, recipe_fields
from training.models.trained_model import load_trained_model
from training.recipe.recipe import Recipe

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Lightning tells of each Trainer which devices it found, and warns of what it uses itself."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
        yield
    logger.setLevel(level)


def make_stories(home: Path, **fields: Any) -> StoryDataModule:
    """48 stories to train on in 6 batches, 4 to validate and 8 to test on."""
    values: dict[str, Any] = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 3}
    return StoryDataModule([str(home / "stories.jsonl")], **{**values, **fields})


def build(home: Path, encoder: str = "tiny-bert", **fields: Any) -> SentenceOrderingModule:
    return SentenceOrderingModule.build(str(home / encoder), **{"learning_rate": 2e-3, **fields})


def make_trainer(folder: Path, **options: Any) -> Trainer:
    values: dict[str, Any] = {
        "accelerator": "cpu",
        "default_root_dir": folder,
        "max_epochs": 2,
        "gradient_clip_val": 50.0,
        "logger": False,
        "enable_checkpointing": any(isinstance(one, ModelCheckpoint) for one in options.get("callbacks", [])),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    }
    return Trainer(**{**values, **options})


def test_every_argument_is_a_field_of_the_recipe_and_has_its_default() -> None:
    names = set(recipe_fields())
    assert names < set(inspect.signature(Recipe).parameters)
    recipe = Recipe(encoder="some").resolved()
    assert SentenceOrderingModule().hparams == {name: getattr(recipe, name) for name in names}
    values = {name: f"value of {name}" for name in names}
    assert SentenceOrderingModule(**values).hparams == values  # type: ignore[arg-type]


def test_a_new_model_is_that_of_the_recipe(home: Path) -> None:
    """The same weights whatever was drawn before, in train mode, and a learning rate that suits the encoder."""
    module = build(home, seed=3, learning_rate=None)
    torch.rand(5)
    assert_same_weights(module.model, build(home, seed=3).model)
    assert not torch.equal(module.model.head.weight, build(home, seed=4).model.head.weight)
    assert all(part.training for part in module.modules())
    assert module.recipe == Recipe(seed=3, learning_rate=3e-5)
    scratch = SentenceOrderingModule.build("cnn", stories=[["It rained.", "She stayed."]] * 3, objective="mse")
    assert scratch.hparams["learning_rate"] == 1e-3
    with pytest.raises(ValueError, match="no such folder"):
        SentenceOrderingModule.build("there/is/none")


@dataclass(frozen=True)
class Fitted:
    """A run of Lightning, and what its `ModelCheckpoint` kept."""

    folder: Path
    module: SentenceOrderingModule
    kept: ModelCheckpoint


@pytest.fixture(scope="module")
def fitted(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Four epochs with everything that people use; of the encoder nothing is left afterwards."""
    folder = tmp_path_factory.mktemp("fitted")
    encoder = write_encoder(folder / "encoder", "bert", initializer_range=0.1)
    module = SentenceOrderingModule.build(str(encoder), learning_rate=5e-3)
    kept = ModelCheckpoint(folder / "kept", "{step}", monitor="val_loss", save_top_k=2)
    callbacks = [kept, EarlyStopping("val_loss", patience=2), LearningRateMonitor("step"), HubFolderCallback()]
    loggers = [CSVLogger(folder, "csv", ""), TensorBoardLogger(str(folder), "tensorboard", "")]
    options = {"max_epochs": 4, "accumulate_grad_batches": 3, "callbacks": callbacks, "logger": loggers}
    trainer = make_trainer(folder, **options)
    trainer.fit(module, datamodule=make_stories(home))
    shutil.rmtree(encoder)
    return Fitted(folder, module, kept)


def test_loggers_get_losses_rates_norms_and_metrics(fitted: Fitted) -> None:
    with open(fitted.folder / "csv" / "metrics.csv", newline="") as source:
        rows = list(csv.DictReader(source))
    rates = [float(row["lr-AdamW/pg1"]) for row in rows if row["lr-AdamW/pg1"]]
    # Three batches to a step, 2 steps to an epoch; one step of warm-up. A rate is logged with the first batch.
    assert rates[::3] == pytest.approx([0.0] + [5e-3 * left / 7 for left in range(7, 0, -1)])
    assert len([row for row in rows if row["train_loss"]]) == len([row for row in rows if row["grad_norm"]]) == 8
    taus = [float(row["val_kendalls_tau"]) for row in rows if row["val_kendalls_tau"]]
    assert len(taus) == 4 and all(-1 <= tau <= 1 for tau in taus)
    events = EventAccumulator(str(fitted.folder / "tensorboard")).Reload()
    assert [event.value for event in events.Scalars("val_kendalls_tau")] == pytest.approx(taus)


def test_a_hub_folder_stands_beside_each_checkpoint(fitted: Fitted, tmp_path: Path) -> None:
    """Also beside none that Lightning has removed again; and it is the model that the checkpoint makes."""
    names = sorted(path.name for path in (fitted.folder / "kept").iterdir())
    checkpoints = [name for name in names if name.endswith(".ckpt")]
    assert checkpoints == ["step=6.ckpt", "step=8.ckpt"]  # better in each epoch
    assert names == sorted(checkpoints + [name.removesuffix(".ckpt") for name in checkpoints])
    for name in checkpoints:
        checkpoint = fitted.folder / "kept" / name
        folder = checkpoint.with_suffix("")
        checkpoint_to_folder(checkpoint, tmp_path / name)
        assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / name).iterdir()}
        for path in folder.iterdir():
            assert path.read_bytes() == (tmp_path / name / path.name).read_bytes(), path.name
        saved = torch.load(checkpoint, weights_only=True)["state_dict"]
        weights = {key.removeprefix("model."): value for key, value in saved.items()}
        assert_same_weights(load_trained_model(str(folder))[0].cpu(), weights)


def test_a_checkpoint_is_all_that_is_needed(fitted: Fitted, home: Path, tmp_path: Path) -> None:
    """Its encoder is gone, and it is loaded without running anything that is in it."""
    loaded = SentenceOrderingModule.load_from_checkpoint(fitted.kept.best_model_path, weights_only=True)
    assert loaded.hparams == fitted.module.hparams
    assert loaded.recipe.learning_rate == 5e-3
    story = ["It rained.", "Tom baked a cake."]
    assert loaded.story_tokenizer.tokenize(story) == fitted.module.story_tokenizer.tokenize(story)
    metrics = make_trainer(tmp_path).validate(loaded, datamodule=make_stories(home), verbose=False)[0]
    assert metrics["val_loss"] == fitted.kept.best_model_score
    other = tmp_path / "other.ckpt"
    torch.save({"state_dict": {}, "global_step": 1, "pytorch-lightning_version": "2.6.6"}, other)
    with pytest.raises(ValueError, match="other.ckpt is not a complete checkpoint"):
        checkpoint_to_folder(other, tmp_path / "folder")
    with pytest.raises(ValueError, match="not a complete checkpoint"):
        SentenceOrderingModule.load_from_checkpoint(other)


def test_a_hub_folder_goes_on_training(fitted: Fitted, home: Path, tmp_path: Path) -> None:
    folder = fitted.kept.best_model_path.removesuffix(".ckpt")
    for module in (SentenceOrderingModule(folder, seed=1), SentenceOrderingModule.build(folder, seed=1)):
        assert_same_weights(module.model, load_trained_model(folder)[0])
        assert all(part.training for part in module.modules())
    before = {name: value.clone() for name, value in module.model.state_dict().items()}
    make_trainer(tmp_path, max_epochs=1).fit(module, datamodule=make_stories(home))
    with pytest.raises(AssertionError, match="differs"):
        assert_same_weights(module.model, before)
    with pytest.raises(ValueError, match="cannot use the encoder"):
        SentenceOrderingModule(str(tmp_path))


@pytest.mark.parametrize("when", [{"every_n_train_steps": 2}, {"save_on_train_epoch_end": True}])
def test_lightning_resumes_where_it_was(home: Path, tmp_path: Path, when: dict[str, Any]) -> None:
    """In the middle of an epoch, where the schedule has asked for the loader before, and at its end."""

    def fit(checkpoint: Path | None = None) -> tuple[Trainer, SentenceOrderingModule]:
        module = build(home)
        keep = ModelCheckpoint(tmp_path / ("again" if checkpoint else "whole"), "{step}", save_top_k=-1, **when)
        trainer = make_trainer(tmp_path, callbacks=[keep], accumulate_grad_batches=2)
        trainer.fit(module, datamodule=make_stories(home), ckpt_path=checkpoint, weights_only=True)
        return trainer, module

    trainer, module = fit()
    assert trainer.global_step == 6
    checkpoints = sorted((tmp_path / "whole").iterdir())
    assert [path.name for path in checkpoints] == (
        ["step=2.ckpt", "step=4.ckpt", "step=6.ckpt"] if "every_n_train_steps" in when else
        ["step=3.ckpt", "step=6.ckpt"]
    )  # fmt: skip
    for checkpoint in checkpoints:
        again, resumed = fit(checkpoint)
        assert again.global_step == 6
        assert_same_weights(resumed.model, module.model)


def test_evaluates_as_the_evaluation_outside_does(home: Path, tmp_path: Path) -> None:
    """And in double precision, so that no difference between two evaluations is lost."""
    module, stories, trainer = build(home), make_stories(home), make_trainer(tmp_path)
    for run, split, prefix in [(trainer.validate, "validation", "val"), (trainer.test, "test", "test")]:
        (metrics,) = run(module, datamodule=stories, verbose=False)
        expected = evaluate(module.model, stories.splits[split], batch_size=3)
        logged = {f"{prefix}_{name}": expected[name] for name in LOGGED_METRICS}
        assert metrics == pytest.approx(logged)
    assert trainer.callback_metrics["test_loss"].dtype == torch.float64


def test_predicts_an_order_and_scores_for_each_test_story(home: Path, tmp_path: Path) -> None:
    module, stories = build(home), make_stories(home)
    batches = make_trainer(tmp_path).predict(module, datamodule=stories)
    answers = [answer for batch in batches for answer in batch]
    assert [len(answer["order"]) for answer in answers] == stories.splits["test"].num_sentences.tolist()
    for answer in answers:
        ranked = [answer["scores"][place] for place in answer["order"]]
        assert ranked == sorted(answer["scores"])


def test_the_learning_rate_finder_finds_one_and_training_starts_with_it(home: Path, tmp_path: Path) -> None:
    module, stories = build(home), make_stories(home)
    untouched = build(home)
    trainer = make_trainer(tmp_path, max_epochs=9)
    finder = Tuner(trainer).lr_find(module, datamodule=stories, max_lr=0.1, num_training=25, early_stop_threshold=None)
    assert finder is not None
    assert module.hparams["learning_rate"] == finder.suggestion() != 2e-3
    assert module.recipe.learning_rate == finder.suggestion()
    assert_same_weights(module.model, untouched.model)  # it puts back what it tried
    optimizer = module.configure_optimizers()["optimizer"]
    assert optimizer.defaults["lr"] == finder.suggestion()


TWO_AND_ONE = """
import sys
from pathlib import Path
import torch
from tests.training.frameworks.lightning.test_lightning_module import build, make_stories, make_trainer

home, folder = map(Path, sys.argv[1:])
for name, options in (("two", {"devices": 2, "strategy": "ddp_fork"}), ("one", {"accumulate_grad_batches": 2})):
    module = build(home, "calm-bert")
    module.model.dropout.p = 0.0
    trainer = make_trainer(folder, max_epochs=1, gradient_clip_val=5.0, num_sanity_val_steps=0, **options)
    trainer.fit(module, datamodule=make_stories(home, per_device_train_batch_size=7))
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    torch.save({"weights": module.model.state_dict(), "metrics": metrics}, folder / name)
"""


@pytest.mark.slow
def test_two_processes_do_what_one_does(home: Path, tmp_path: Path) -> None:
    """Half of each step each, and half of the evaluation: the same weights up to rounding, the same metrics.

    In a process of its own: one that has trained cannot be forked any more, and others would import everything anew.
    48 stories are 3 steps of 14 and one of 6.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])}
    command = [sys.executable, "-c", TWO_AND_ONE, str(home), str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    two, one = (torch.load(tmp_path / name) for name in ("two", "one"))
    assert_same_weights(two["weights"], one["weights"], atol=2e-5)
    assert not torch.equal(one["weights"]["head.weight"], build(home, "calm-bert").model.head.weight)
    names = {name for name in one["metrics"] if name.startswith("val_")}
    assert names == {f"val_{name}" for name in LOGGED_METRICS}, "counts are not metrics"
    assert {name: two["metrics"][name] for name in names} == pytest.approx(
        {name: one["metrics"][name] for name in names}, rel=1e-4
    )


def test_precision_is_lightnings_business(home: Path, tmp_path: Path) -> None:
    module = build(home)
    seen = set()
    layer = module.model.encoder.encoder.layer[0].attention.self.query
    layer.register_forward_hook(lambda _, __, output: seen.add(output.dtype))
    make_trainer(tmp_path, precision="bf16-mixed", max_steps=2).fit(module, datamodule=make_stories(home))
    assert seen == {torch.bfloat16}


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch"])
def test_gradients_of_float16_are_clipped_at_their_true_size(home: Path, tmp_path: Path, optim: str) -> None:
    """They come multiplied; clipped as they are, a step would be so much smaller."""
    norms, steps = {}, {}
    for name, plugins in {
        "scaled": [MixedPrecision("16-mixed", "cpu", GradScaler("cpu", init_scale=64.0))],
        "plain": [],
    }.items():
        module = build(home, "calm-bert", optim=optim, adam_epsilon=100.0)
        module.model.dropout.p = 0.0
        before = module.model.head.weight.detach().clone()
        make_trainer(tmp_path, plugins=plugins, max_steps=1, gradient_clip_val=5.0).fit(
            module, datamodule=make_stories(home)
        )
        norms[name] = float(module.gradient_norm)
        steps[name] = module.model.head.weight.detach() - before
    assert norms["scaled"] == pytest.approx(norms["plain"], rel=0.05)
    assert norms["plain"] > 5.0
    torch.testing.assert_close(steps["scaled"], steps["plain"], rtol=0.1, atol=1e-9)


def test_clipping_by_value_is_left_to_lightning(home: Path, tmp_path: Path) -> None:
    module = build(home)
    largest: list[float] = []
    module.on_before_zero_grad = lambda _: largest.extend(  # type: ignore[method-assign, assignment]
        float(parameter.grad.abs().max()) for parameter in module.parameters() if parameter.grad is not None
    )
    options = {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": "value", "max_epochs": 1}
    make_trainer(tmp_path, **options).fit(module, datamodule=make_stories(home))
    assert max(largest) == pytest.approx(1e-3)


def test_a_schedule_needs_an_end(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_steps or max_epochs"):
        make_trainer(tmp_path, max_epochs=-1).fit(build(home), datamodule=make_stories(home))


def test_pairs_are_trained_restored_judged_and_decoded(home: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"head": "pairs", "objective": "pairwise", "pair_size": 4, "context_layers": 1}
    module = build(home, **fields)
    trainer, stories = make_trainer(tmp_path), make_stories(home)
    trainer.fit(module, datamodule=stories)
    trainer.save_checkpoint(tmp_path / "pairs.ckpt")
    again = SentenceOrderingModule.load_from_checkpoint(tmp_path / "pairs.ckpt")
    assert_same_weights(again.model, module.model)
    (found,) = trainer.validate(again, datamodule=stories, verbose=False)
    expected = evaluate(again.model, stories.splits["validation"], batch_size=3)
    assert found["val_kendalls_tau"] == pytest.approx(expected["kendalls_tau"])
    assert found["val_loss"] == pytest.approx(expected["loss"], rel=1e-5)
    again.eval()
    batch = next(iter(stories.val_dataloader()))
    with torch.no_grad():
        answers, output = again.predict_step(batch, 0), again(**batch)
    for answer, ranks, mask in zip(answers, output.ranks, output.sentence_mask, strict=True):
        assert answer["order"] == ranks[mask].argsort().tolist()
