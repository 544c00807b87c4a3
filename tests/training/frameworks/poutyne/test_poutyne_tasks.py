"""The adapters for Poutyne with models of other tasks, and with everything that Poutyne offers for training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import poutyne
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    get_linear_schedule_with_warmup,
)

from tests.modeling_sentence_ordering.small_encoders import write_encoder
from tests.training.small_runs import small_run
from training.data.stories import evaluation_loader
from training.frameworks.poutyne.adapters import MetricWrapper, ModelWrapper, TransformerCollator, TransformerModel
from training.frameworks.poutyne.callbacks import GradientClipping, StepSchedule

CALM = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.1}
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    heads = ("BertForSequenceClassification", "BertForTokenClassification", "BertForQuestionAnswering")
    return {head: write_encoder(tmp_path_factory.mktemp(head), "bert", head, **CALM) for head in heads}


@pytest.fixture
def tokenizer(folders: dict[str, Path]) -> Any:
    return AutoTokenizer.from_pretrained(folders["BertForTokenClassification"])


@pytest.fixture
def rows() -> Rows:
    """32 sequences of unequal length; a label for each of them, one for each token, and the place of a token."""
    generator = np.random.default_rng(0)
    rows = []
    for label in generator.integers(0, 2, 32).tolist():
        ids = [2, *generator.integers(10, 40, int(generator.integers(1, 7))).tolist(), 3]
        place = int(generator.integers(1, len(ids)))
        ids.insert(place, 50 + label)
        rows.append({"input_ids": ids, "label": label, "tokens": [int(i >= 50) for i in ids], "start": place})
    return rows


def take(rows: Rows, **names: str) -> Rows:
    """The rows with `input_ids` and some other columns under new names."""
    return [{"input_ids": row["input_ids"], **{new: row[old] for new, old in names.items()}} for row in rows]


def test_the_models_own_loss_with_poutynes_metrics(folders: dict[str, Path], tokenizer: Any, rows: Rows) -> None:
    classifier = AutoModelForSequenceClassification.from_pretrained(folders["BertForSequenceClassification"])
    model = TransformerModel(
        classifier,
        torch.optim.AdamW(classifier.parameters(), lr=1e-2),
        batch_metrics=[MetricWrapper("accuracy")],
        epoch_metrics=[MetricWrapper("f1")],
    )
    data, collate = take(rows, label="label"), TransformerCollator(DataCollatorWithPadding(tokenizer))
    history = model.fit_dataset(data, data, batch_size=8, epochs=15, collate_fn=collate, verbose=False)
    assert history[0]["val_acc"] < 90 < history[-1]["val_acc"]
    assert history[-1]["val_fscore_macro"] > 0.9
    logs = model.evaluate_dataset(data, batch_size=8, collate_fn=collate, return_dict_format=True, verbose=False)
    assert logs["test_acc"] == history[-1]["val_acc"]
    unlabelled = TransformerCollator(DataCollatorWithPadding(tokenizer), label_names=None)
    predictions = model.predict_dataset(take(rows), batch_size=8, collate_fn=unlabelled, verbose=False)
    right = predictions["logits"].argmax(-1) == [row["label"] for row in rows]
    assert 100 * right.mean() == pytest.approx(logs["test_acc"])


@pytest.mark.parametrize("is_wrapped", [True, False])
def test_poutynes_loss_and_metrics_by_name(
    is_wrapped: bool, folders: dict[str, Path], tokenizer: Any, rows: Rows
) -> None:
    classifier = AutoModelForSequenceClassification.from_pretrained(folders["BertForSequenceClassification"])
    network = ModelWrapper(classifier, output="logits", ignore=["labels"]) if is_wrapped else classifier
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-2)
    model = TransformerModel(network, optimizer, "cross_entropy", batch_metrics=["accuracy"], epoch_metrics=["f1"])
    loader: DataLoader[Any] = DataLoader(
        take(rows, label="label"),  # type: ignore[arg-type]
        batch_size=8,
        collate_fn=TransformerCollator(DataCollatorWithPadding(tokenizer)),
    )
    own = TransformerModel(classifier).evaluate_generator(loader, verbose=False)
    assert model.evaluate_generator(loader, verbose=False)[0] == pytest.approx(own)
    history = model.fit_generator(loader, loader, epochs=15, verbose=False)
    assert history[0]["val_acc"] < 90 < history[-1]["val_acc"]


def test_an_experiment_with_a_token_classifier_resumes(
    folders: dict[str, Path], tokenizer: Any, rows: Rows, tmp_path: Path
) -> None:
    data, collate = take(rows, labels="tokens"), TransformerCollator(DataCollatorForTokenClassification(tokenizer))

    def train(directory: str, epochs: int) -> tuple[TransformerModel, list[dict[str, float]]]:
        classifier = AutoModelForTokenClassification.from_pretrained(folders["BertForTokenClassification"])
        network = ModelWrapper(classifier, output=lambda output: output.logits.transpose(1, 2))
        model = TransformerModel(
            network,
            torch.optim.AdamW(classifier.parameters(), lr=2e-2),
            "cross_entropy",
            batch_metrics=["accuracy"],
        )
        experiment = poutyne.ModelBundle.from_model(
            str(tmp_path / directory), model, monitor_metric="val_acc", monitor_mode="max"
        )
        history = experiment.train_dataset(
            data,
            data,
            batch_size=8,
            epochs=epochs,
            collate_fn=collate,
            batches_per_step=2,
            lr_schedulers=[StepSchedule(get_linear_schedule_with_warmup, num_warmup_steps=2, num_training_steps=12)],
            callbacks=[GradientClipping(1.0)],
            verbose=False,
        )
        return model, history

    _, expected = train("whole", 6)
    _, first = train("resumed", 3)
    model, second = train("resumed", 6)
    assert [row["epoch"] for row in second] == [4, 5, 6]
    assert [row["val_loss"] for row in first + second] == [row["val_loss"] for row in expected]
    assert expected[0]["val_acc"] < 95 < expected[-1]["val_acc"]
    whole, resumed = (
        torch.load(tmp_path / name / "checkpoint.ckpt", weights_only=True) for name in ("whole", "resumed")
    )
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    # Sentences of unequal length: what is padding of a batch is nan.
    loader: DataLoader[Any] = DataLoader(data, batch_size=1, collate_fn=collate)  # type: ignore[arg-type]
    predicted, labels = model.predict_generator(loader, return_ground_truth=True, verbose=False)
    for row, scores, tokens in zip(rows, predicted, labels, strict=True):
        length = len(row["input_ids"])
        assert np.isfinite(scores[:, :length]).all() and np.isnan(scores[:, length:]).all()
        assert tokens.tolist() == row["tokens"] + [-100] * (len(tokens) - length)


def test_several_labels(folders: dict[str, Path], tokenizer: Any, rows: Rows) -> None:
    reader = AutoModelForQuestionAnswering.from_pretrained(folders["BertForQuestionAnswering"])
    names = ["start_positions", "end_positions"]
    model = TransformerModel(
        reader,
        torch.optim.AdamW(reader.parameters(), lr=2e-2),
        batch_metrics=[
            MetricWrapper("accuracy", pred_key=f"{name}_logits", label_key=f"{name}_positions")
            for name in ("start", "end")
        ],
    )
    data = take(rows, **dict.fromkeys(names, "start"))
    collate = TransformerCollator(DataCollatorWithPadding(tokenizer), names)
    before = model.evaluate_dataset(data, batch_size=8, collate_fn=collate, return_dict_format=True, verbose=False)
    history = model.fit_dataset(data, data, batch_size=8, epochs=6, collate_fn=collate, verbose=False)
    for name in ("acc1", "acc2"):
        assert before[f"test_{name}"] < 60 and history[-1][f"val_{name}"] > 90
    with pytest.raises(ValueError, match=r"'end_positions'.*label_names=None"):
        TransformerCollator(lambda rows: {"start_positions": torch.zeros(1)}, names)([])


def test_stories_of_unequal_length(home: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path, home / "tiny-bert", "poutyne")
    assert run.validation is not None
    batches = list(evaluation_loader(run.validation, 4))
    assert len({batch["labels"].shape[1] for batch in batches}) > 1
    model = TransformerModel(run.model, epoch_metrics=[MetricWrapper(_mean_square)])
    labelled = [(batch, batch["labels"]) for batch in batches]
    _, _, predicted, labels = model.evaluate_generator(
        labelled, return_pred=True, return_ground_truth=True, verbose=False
    )
    del predicted["loss"]
    unlabelled = [{name: value for name, value in batch.items() if name != "labels"} for batch in batches]
    alone = model.predict_generator(unlabelled, verbose=False)
    assert np.array_equal(alone["logits"], predicted["logits"], equal_nan=True)
    assert len(labels) == len(run.validation)
    sizes = (labels != -100).sum(axis=1)
    for scores, there, size in zip(alone["logits"], alone["sentence_mask"], sizes, strict=True):
        assert there.sum() == size and sorted(scores[there].argsort()) == list(range(size))
    separate = model.predict_generator(unlabelled, concatenate_returns=False, verbose=False)
    assert [len(batch["logits"]) for batch in separate] == [len(batch["labels"]) for batch in batches]


def _mean_square(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return ((scores - labels)[labels != -100] ** 2).mean()
