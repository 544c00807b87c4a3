"""Rows to batches, and plain `Trainer` on them: no code of ours but the model, its collator and its metrics."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import EvalPrediction, Trainer, TrainingArguments

from modeling_sentence_ordering import (
    DataCollatorForSentenceOrdering,
    SentenceOrderingModel,
    StoryTokenizer,
    compute_metrics,
)
from tests.modeling_sentence_ordering.small_encoders import STORIES, MakeModel

LABELS = [[2, 0, 3, 1], [1, 2, 0], [1, 0], [4, 0, 3, 1, 2]]
ROWS: list[dict[str, Any]] = [
    {"storyid": str(i), "sentences": [story[label] for label in labels], "labels": labels}
    for i, (story, labels) in enumerate(zip(STORIES, LABELS, strict=True))
]


@pytest.fixture(scope="module")
def parts(make_model: MakeModel) -> tuple[SentenceOrderingModel, StoryTokenizer]:
    return make_model("bert")


Parts = tuple[SentenceOrderingModel, StoryTokenizer]


def collator_of(parts: Parts, **options: Any) -> DataCollatorForSentenceOrdering:
    return parts[0].data_collator(parts[1].tokenizer, **options)


def assert_same(some: dict[str, Any], others: dict[str, Any]) -> None:
    assert some.keys() == others.keys()
    for name in some:
        assert torch.equal(torch.as_tensor(some[name]), torch.as_tensor(others[name])), name


def shown_sentences(parts: Parts, batch: dict[str, torch.Tensor]) -> list[list[str]]:
    """The text of each sentence of a batch, as the model reads it."""
    stories = []
    for ids, mask, positions in zip(
        batch["input_ids"], batch["attention_mask"], batch["marker_positions"], strict=True
    ):
        ends = [*positions[positions >= 0].tolist()[1:], int(mask.sum()) - 1]
        begins = positions[positions >= 0].tolist()
        stories.append([parts[1].tokenizer.decode(ids[b + 1 : e]) for b, e in zip(begins, ends, strict=True)])
    return stories


def test_rows_of_the_script_give_the_batch_of_the_models_own_code(parts: Parts) -> None:
    batch = collator_of(parts)(ROWS)
    expected = parts[1].collate(
        [parts[1].assemble(parts[1].tokenize(row["sentences"])) for row in ROWS], [row["labels"] for row in ROWS]
    )
    assert_same(batch, expected)
    assert isinstance(pickle.loads(pickle.dumps(collator_of(parts))), DataCollatorForSentenceOrdering)


@pytest.mark.parametrize("shuffle", [False, True])
def test_mapped_rows_give_the_same_batch(parts: Parts, shuffle: bool) -> None:
    collator = collator_of(parts, shuffle=shuffle)
    dataset = Dataset.from_list(ROWS)
    mapped = dataset.map(collator.tokenize, batched=True, remove_columns=dataset.column_names)
    assert {"input_ids", "marker_positions", "labels"} <= set(mapped.column_names)
    rows = [{name: row[name] for name in ("input_ids", "marker_positions", "labels")} for row in mapped]
    assert_same(collator(rows), collator(ROWS))
    tensors = mapped.with_format("torch", columns=["input_ids", "marker_positions", "labels"])
    assert_same(collator([tensors[i] for i in range(len(ROWS))]), collator(ROWS))


def test_true_order_is_shuffled_and_labelled(parts: Parts) -> None:
    collator = collator_of(parts, shuffle=True)
    rows = [{"sentences": story} for story in STORIES]
    batch = collator(rows)
    assert_same(batch, collator(rows))
    orders = [row[row >= 0].tolist() for row in batch["labels"]]
    assert any(order != sorted(order) for order in orders)
    whole = shown_sentences(parts, collator_of(parts)(rows))
    for shown, order, story in zip(shown_sentences(parts, batch), orders, whole, strict=True):
        assert shown == [story[label] for label in order]
    mapped = Dataset.from_list(rows).map(collator.tokenize, batched=True, remove_columns="sentences")
    assert_same(collator(list(mapped)), batch)


def test_a_shuffle_depends_on_the_seed_and_on_the_batch(parts: Parts) -> None:
    rows = [{"sentences": [f"{i}." for i in range(8)]}] * 8
    labels = collator_of(parts, shuffle=True)(rows)["labels"].tolist()
    assert len({tuple(row) for row in labels}) == 8
    assert collator_of(parts, shuffle=True)(rows[:7])["labels"].tolist() != labels[:7]
    assert collator_of(parts, shuffle=True, seed=1)(rows)["labels"].tolist() != labels
    before = torch.get_rng_state()
    collator_of(parts, shuffle=True)(rows)
    assert torch.equal(torch.get_rng_state(), before)


def test_rows_without_labels_predict(parts: Parts) -> None:
    rows = [{"sentences": row["sentences"]} for row in ROWS]
    batch = collator_of(parts)(rows)
    assert "labels" not in batch
    mixed = collator_of(parts)([ROWS[0], *rows[1:]])
    assert mixed["labels"].tolist() == [[*LABELS[0], -100], *[[-100] * 5] * 3]
    with torch.no_grad():
        torch.testing.assert_close(parts[0](**mixed).loss, parts[0](**collator_of(parts)(ROWS[:1])).loss)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_story_that_is_cut_off_keeps_its_labels(make_model: MakeModel, shuffle: bool) -> None:
    cut = make_model("bert", max_input_tokens=16)
    collator = collator_of(cut, shuffle=shuffle)
    batch = collator(ROWS)
    assert (batch["marker_positions"] < 0).sum() > (batch["labels"] < 0).sum()
    mapped = Dataset.from_list(ROWS).map(collator.tokenize, batched=True)
    again = collator([dict(row) for row in mapped.select_columns(["input_ids", "marker_positions", "labels"])])
    assert sorted(batch["labels"].flatten().tolist()) == sorted(again["labels"].flatten().tolist())
    if not shuffle:
        assert_same(again, batch)


def test_padding_and_numpy(parts: Parts) -> None:
    plain, padded = collator_of(parts)(ROWS), collator_of(parts, pad_to_multiple_of=16, return_tensors="np")(ROWS)
    assert all(isinstance(array, np.ndarray) for array in padded.values())
    width = plain["input_ids"].shape[1]
    assert width % 16 and padded["input_ids"].shape[1] % 16 == 0
    assert (padded["input_ids"][:, :width] == plain["input_ids"].numpy()).all()
    assert padded["attention_mask"].sum() == plain["attention_mask"].sum()


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"labels": [0, 1]}, "remove_unused_columns"),
        ({"sentence1": "A.", "so_targets": [0, 1]}, "sentence1"),
        ({"sentences": ["A.", "B."], "labels": [0, 1, 2]}, r"\[0, 1, 2\]"),
        ({"sentences": ["A.", "B."], "labels": [1, 1]}, "permutation"),
        ({"sentences": ["A.", "B."], "labels": [1, 2]}, "permutation"),
    ],
)
def test_rows_that_cannot_be_meant_are_refused(parts: Parts, row: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        collator_of(parts)([row])


@pytest.mark.parametrize("sentences", ["One. Two.", ["One.", None], [1, 2]])
def test_sentences_are_a_list_of_strings(parts: Parts, sentences: Any) -> None:
    with pytest.raises(TypeError, match="list of sentences|not a string"):
        collator_of(parts)([{"sentences": sentences}])
    with pytest.raises(TypeError, match="list of sentences|not a string"):
        collator_of(parts).tokenize({"sentences": [sentences]})


def test_arrays_are_lists(parts: Parts) -> None:
    rows = [{"sentences": np.array(row["sentences"]), "labels": np.array(row["labels"])} for row in ROWS]
    assert_same(collator_of(parts)(rows), collator_of(parts)(ROWS))


@pytest.mark.parametrize("batch_size", [1, 2, 4])
@pytest.mark.parametrize("mapped", [False, True])
def test_plain_trainer_has_the_metrics_of_each_story_alone(
    parts: Parts, tmp_path: Path, batch_size: int, mapped: bool
) -> None:
    model, collator = parts[0], collator_of(parts)
    data = Dataset.from_list(ROWS)
    options = {} if mapped else {"remove_unused_columns": False}
    trainer = Trainer(
        model,
        TrainingArguments(tmp_path, per_device_eval_batch_size=batch_size, report_to="none", use_cpu=True, **options),
        data_collator=collator,
        eval_dataset=data.map(collator.tokenize, batched=True) if mapped else data,
        compute_metrics=model.compute_metrics,
    )
    found = trainer.evaluate()
    taus, hits = [], []
    for row in ROWS:
        with torch.no_grad():
            scores = model(**collator([row])).logits[0]
        ranks = scores.argsort().argsort().tolist()
        hits.append([rank == label for rank, label in zip(ranks, row["labels"], strict=True)])
        pairs = itertools.combinations(zip(ranks, row["labels"], strict=True), 2)
        taus.append(np.mean([np.sign((a[0] - b[0]) * (a[1] - b[1])) for a, b in pairs]))
    assert found["eval_kendalls_tau"] == pytest.approx(np.mean(taus))
    assert found["eval_accuracy"] == pytest.approx(np.mean([np.mean(story) for story in hits]))
    assert found["eval_pmr"] == pytest.approx(np.mean([all(story) for story in hits]))
    assert {name.removeprefix("eval_") for name in found} >= {"mean_logits", "std_logits", "loss"}
    assert not {"eval_stories", "eval_sentences"} & set(found)


@pytest.mark.parametrize("wrap", [np.asarray, lambda logits: (logits, logits > 0)], ids=["array", "tuple"])
def test_metrics_need_nothing_but_labels(wrap: Any) -> None:
    logits = np.array([[3.0, 1.0, 2.0, -100.0], [0.5, 0.5, 7.0, 9.0], [1.0, -100.0, -100.0, -100.0]])
    labels = np.array([[2, 0, 1, 3], [1, 0, -100, -100], [0, 1, -100, -100]])
    found = compute_metrics(EvalPrediction(wrap(logits), labels))
    assert found == pytest.approx(
        {
            "accuracy": 0.75,
            "kendalls_tau": 0.5,
            "pmr": 0.75,
            "mean_logits": 4 / 3,
            "std_logits": np.std([3, 1, 2, 0.5, 0.5, 1]),
        }
    )


@pytest.mark.parametrize("logits", [[[np.nan, 1.0]], [[np.inf, 1.0]], [[-100.0, 1.0]]])
def test_scores_that_cannot_be_judged_are_refused(logits: Any) -> None:
    with pytest.raises(ValueError, match="finite|two sentences"):
        compute_metrics((np.array(logits), np.array([[1, 0]])))
