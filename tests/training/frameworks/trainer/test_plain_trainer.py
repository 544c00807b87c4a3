"""`Trainer` as its documentation teaches it, with our collator and callback and no subclass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments

from modeling_sentence_ordering import SentenceOrderingModel
from tests.training.frameworks.test_same_weights import write_encoder
from tests.training.made_up import made_up_stories
from training import StepSeedCallback
from training.evaluation.metrics import LOGGED_METRICS


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoders") / "dropout", 0.1)


@pytest.fixture(scope="module")
def calm_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoders") / "calm", 0.0)


class StopAfter(TrainerCallback):
    """Ends a run in the middle, as an interruption between two steps does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = state.global_step >= self.step


def trainer_of(encoder: Path, folder: Path, *, count: int = 30, rows: Any = None, **fields: Any) -> Trainer:
    """A plain Trainer on stories of 2 to 8 sentences."""
    torch.manual_seed(0)
    model = SentenceOrderingModel.from_encoder(str(encoder), head_dropout=fields.pop("head_dropout", 0.1))
    collator = model.data_collator(SentenceOrderingModel.load_tokenizer(str(encoder)), shuffle=True)
    data = Dataset.from_dict({"sentences": made_up_stories(count)}).map(collator.tokenize, batched=True)
    data = data if rows is None else rows(data)
    callbacks = fields.pop("callbacks", [])
    options = {"per_device_train_batch_size": 4, "learning_rate": 1e-3, "report_to": "none", "use_cpu": True}
    return Trainer(
        model,
        TrainingArguments(str(folder), **{"save_strategy": "no", "disable_tqdm": True, **options, **fields}),
        data_collator=collator,
        train_dataset=data,
        eval_dataset=data,
        compute_metrics=model.compute_metrics,
        callbacks=[StepSeedCallback(), *callbacks],
    )


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def assert_same(some: dict[str, Tensor], others: dict[str, Tensor], tolerance: float) -> None:
    for name, tensor in others.items():
        torch.testing.assert_close(some[name], tensor, rtol=0, atol=tolerance)


@pytest.mark.parametrize("workers", [0, 1])
def test_interrupted_and_resumed_is_uninterrupted_bit_for_bit(encoder: Path, tmp_path: Path, workers: int) -> None:
    """In the middle of the second epoch, with dropout, accumulation and shuffles of the collator."""
    fields: dict[str, Any] = {"max_steps": 9, "gradient_accumulation_steps": 2, "dataloader_num_workers": workers}
    whole = trainer_of(encoder, tmp_path / "whole", **fields)
    start = weights(whole)
    whole.train()
    saving = {**fields, "save_strategy": "steps", "save_steps": 6}
    trainer_of(encoder, tmp_path / "resumed", **saving, callbacks=[StopAfter(6)]).train()
    resumed = trainer_of(encoder, tmp_path / "resumed", **saving)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 9
    assert_same(weights(resumed), weights(whole), 0.0)
    assert max((start[name] - tensor).abs().max() for name, tensor in weights(whole).items()) > 1e-3


STEP: dict[str, Any] = {
    "max_steps": 1,
    "max_grad_norm": 0.0,  # clipping would hide a gradient of the wrong size
    "optim": "sgd",
    "warmup_steps": 0,
    "lr_scheduler_type": "constant",
    "head_dropout": 0.0,
}


def with_stories_of_the_step(batches: int) -> Any:
    """A column that says how many stories a batch of the step has on average."""
    return lambda data: data.add_column("num_stories", [len(data) / batches] * len(data))


@pytest.mark.parametrize(
    ("count", "size", "batches", "rows"),
    [
        pytest.param(12, 4, 3, None, id="equal"),
        pytest.param(10, 4, 3, with_stories_of_the_step(3), id="the last is smaller"),
        pytest.param(7, 2, 4, with_stories_of_the_step(4), id="the last is one story"),
    ],
)
def test_k_batches_are_one_batch_of_all_their_stories(
    calm_encoder: Path, tmp_path: Path, count: int, size: int, batches: int, rows: Any
) -> None:
    fixed = {"train_sampling_strategy": "sequential"}

    def unshuffled(data: Dataset) -> Dataset:
        return data if rows is None else rows(data)

    one = trainer_of(
        calm_encoder, tmp_path / "one", count=count, **STEP | {"per_device_train_batch_size": count}, **fixed
    )
    fields = STEP | {"per_device_train_batch_size": size, "gradient_accumulation_steps": batches}
    accumulated = trainer_of(calm_encoder, tmp_path / "k", count=count, rows=unshuffled, **fields, **fixed)
    start = weights(one)
    for trainer in (one, accumulated):
        trainer.data_collator.shuffle = False  # a shuffle depends on the batch; mapped rows have labels
        trainer.train()
    moved = max((start[name] - tensor).abs().max().item() for name, tensor in weights(one).items())
    assert moved > 1e-3
    assert_same(weights(accumulated), weights(one), 1e-5 * moved)


def test_counts_are_not_metrics(encoder: Path, tmp_path: Path) -> None:
    """By default `hyperparameter_search` adds up all that `compute_metrics` returns."""
    metrics = trainer_of(encoder, tmp_path, per_device_eval_batch_size=7).evaluate()
    of_trainer = ("runtime", "per_second", "preparation_time", "epoch")
    names = {name for name in metrics if not name.endswith(of_trainer)}
    assert names == {f"eval_{name}" for name in LOGGED_METRICS}
