"""The adapters between Poutyne and transformers models: of any task, and so with a classifier here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import poutyne
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BatchEncoding,
    DataCollatorWithPadding,
    get_linear_schedule_with_warmup,
)

from tests.modeling_sentence_ordering.small_encoders import write_encoder
from training.frameworks.poutyne.adapters import EpochMetric, ModelWrapper, TransformerCollator, model_loss
from training.frameworks.poutyne.callbacks import GradientClipping, StepSchedule


@pytest.fixture(scope="module")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    calm = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.1}
    return write_encoder(tmp_path_factory.mktemp("classifier"), "bert", "BertForSequenceClassification", **calm)


@pytest.fixture
def classifier(classifier_folder: Path) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(classifier_folder)


@pytest.fixture
def rows(classifier_folder: Path) -> list[dict[str, Any]]:
    """48 sentences of unequal length, about cats or about cakes."""
    tokenizer = AutoTokenizer.from_pretrained(classifier_folder)
    generator = np.random.default_rng(0)
    rows = []
    for label in generator.integers(0, 2, 48).tolist():
        words = ["the", "warm", "roof", "we", "laughed", ["cat", "cake"][label]]
        sentence = " ".join(generator.permutation(words + words[: int(generator.integers(0, 4))]))
        rows.append({**tokenizer(sentence), "label": label})
    return rows


@pytest.fixture
def loader(classifier_folder: Path, rows: list[dict[str, Any]]) -> DataLoader[Any]:
    collator = DataCollatorWithPadding(AutoTokenizer.from_pretrained(classifier_folder))
    return DataLoader(rows, batch_size=8, collate_fn=TransformerCollator(collator))  # type: ignore[arg-type]


def accuracy(outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> float:
    return float(np.mean(outputs["logits"].argmax(-1) == labels))


def test_an_ordinary_classifier_trains_and_is_shared(
    classifier: Any, loader: DataLoader[Any], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    network = ModelWrapper(classifier)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=3e-2)
    metric = EpochMetric(accuracy, "accuracy")
    model = poutyne.Model(network, optimizer, model_loss, epoch_metrics=[metric])
    schedule = StepSchedule(get_linear_schedule_with_warmup, num_warmup_steps=3, num_training_steps=36)
    history = model.fit_generator(
        loader,
        loader,
        epochs=12,
        batches_per_step=2,
        callbacks=[schedule, GradientClipping(1.0)],
        verbose=False,
    )
    assert history[0]["val_accuracy"] < 0.9 < history[-1]["val_accuracy"]
    assert history[-1]["val_loss"] < 0.5 * history[0]["val_loss"]
    logs = model.evaluate_generator(loader, return_dict_format=True, verbose=False)
    assert logs["test_accuracy"] == history[-1]["val_accuracy"]
    predictions = model.predict_generator(loader, has_ground_truth=True, verbose=False)
    assert np.mean(predictions["logits"].argmax(-1) == [row["label"] for row in rows]) == logs["test_accuracy"]

    network.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    inputs, _ = next(iter(loader))
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, classifier.eval()(**inputs).logits)


def test_the_collator_gives_a_plain_dict_with_labels_and_the_labels(loader: DataLoader[Any]) -> None:
    batch = BatchEncoding({"input_ids": torch.zeros(2, 3), "start": torch.arange(2)})
    x, y = TransformerCollator(lambda rows: batch, "start")([None, None])
    assert type(x) is dict and set(x) == {"input_ids", "start"}  # a BatchEncoding would stay on the CPU
    assert y is batch["start"]
    x, y = next(iter(loader))
    assert type(x) is dict and x["labels"] is y and y.shape == (8,)
    with pytest.raises(ValueError, match="no 'labels', only 'input_ids', 'start'"):
        TransformerCollator(lambda rows: batch)([])


def test_the_wrapped_parameters_have_the_names_of_the_model(classifier: Any, tmp_path: Path) -> None:
    network = ModelWrapper(classifier)
    assert list(network.state_dict()) == list(classifier.state_dict())
    assert [name for name, _ in network.named_parameters()] == [name for name, _ in classifier.named_parameters()]
    assert list(network.parameters()) == list(classifier.parameters())
    # Poutyne's own checkpoint fits the bare model, and the other way round.
    model = poutyne.Model(network, None, model_loss)
    model.save_weights(str(tmp_path / "poutyne.ckpt"))
    saved = torch.load(tmp_path / "poutyne.ckpt", weights_only=True)
    assert classifier.load_state_dict(saved).missing_keys == []
    saved["classifier.bias"] += 1
    model.set_weights(saved)
    assert torch.equal(classifier.classifier.bias, saved["classifier.bias"])


def test_autocast_computes_in_bfloat16_and_returns_float32(classifier: Any, loader: DataLoader[Any]) -> None:
    classifier.eval()
    inputs, _ = next(iter(loader))
    dtypes = []
    classifier.bert.encoder.layer[0].intermediate.dense.register_forward_hook(
        lambda module, arguments, output: dtypes.append(output.dtype)
    )
    plain = ModelWrapper(classifier)(inputs)
    output = ModelWrapper(classifier, autocast=torch.bfloat16)(inputs)
    assert dtypes == [torch.float32, torch.bfloat16]
    assert output["logits"].dtype == output["loss"].dtype == torch.float32
    assert not torch.equal(output["logits"], plain["logits"])
    torch.testing.assert_close(output["logits"], plain["logits"], atol=0.05, rtol=0.05)
    output["loss"].backward()
    assert classifier.classifier.weight.grad.dtype == torch.float32


def test_what_is_ignored_does_not_reach_the_model(classifier: Any, loader: DataLoader[Any]) -> None:
    inputs, _ = next(iter(loader))
    extra = {**inputs, "num_stories": torch.tensor(2.0)}
    classifier.eval()
    assert torch.equal(ModelWrapper(classifier, ignore=["num_stories"])(extra).logits, classifier(**inputs).logits)


def test_a_model_without_a_loss_says_why(classifier: Any, loader: DataLoader[Any]) -> None:
    inputs, labels = next(iter(loader))
    del inputs["labels"]
    with pytest.raises(ValueError, match="no loss: it computes one if its inputs have labels"):
        model_loss(ModelWrapper(classifier)(inputs), labels)


def test_the_metric_sees_the_whole_epoch_at_once_and_forgets_it() -> None:
    seen = []

    def function(outputs: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, float]:
        seen.append((outputs, labels))
        return {"tau": 0.5, "loss": 2.0, "not asked for": 3.0}

    metric = EpochMetric(function, ["loss", "tau"], output_keys=("logits", "mask"))
    model = poutyne.Model(torch.nn.Identity(), None, lambda outputs, labels: labels.sum(), epoch_metrics=[metric])
    batches = [
        ({"logits": torch.ones(1, 2), "mask": torch.ones(1, 2, dtype=torch.bool), "big": 0}, torch.tensor([[0, 1]])),
        ({"logits": torch.full((2, 3), 2.0, dtype=torch.bfloat16), "mask": torch.ones(2, 3) > 0}, torch.ones(2, 3)),
    ]
    for _ in range(2):
        _, values = model.evaluate_generator(batches, verbose=False)
        assert dict(zip(model.epoch_metrics_names, values, strict=True)) == {"loss": 2.0, "tau": 0.5}
    assert len(seen) == 2
    for outputs, labels in seen:
        assert set(outputs) == {"logits", "mask"}
        assert outputs["logits"].tolist() == [[1, 1, 0], [2, 2, 2], [2, 2, 2]]
        assert outputs["mask"].tolist() == [[True, True, False], [True] * 3, [True] * 3]
        assert labels.tolist() == [[0, 1, -100], [1, 1, 1], [1, 1, 1]]


def test_a_metric_of_one_number_and_labels_without_width() -> None:
    metric = EpochMetric(accuracy, "accuracy")
    metric.update({"logits": torch.eye(3)}, torch.tensor([0, 1, 0]))
    metric.update({"logits": torch.eye(3)[:1]}, torch.tensor([0]))
    assert metric.compute() == 0.75
