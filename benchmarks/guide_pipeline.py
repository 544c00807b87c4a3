"""The guide's pipeline of 2021, written anew on today's libraries: what the speed of ours is measured against.

A token classifier with one label, every story shuffled once and padded to 512 tokens, a loss outside of the model in a
subclass of Trainer, float32, batches of 8, and an evaluation that keeps a number for every token. With `padding`
`"longest"` it pads to the longest story of a batch instead, as most people would today.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

from training.evaluation.metrics import LABEL_PADDING, ordering_metrics

MAX_LENGTH = 512
BATCH_SIZE = 8
LEARNING_RATE = 3e-5
PADDINGS = ("max_length", "longest")


class GuideTrainer(Trainer):
    """Squared error at the markers, summed over a story and averaged over the batch's stories."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss, with the model's output where it is asked for."""
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        marked = labels != LABEL_PADDING
        errors = torch.where(marked, outputs.logits.squeeze(-1) - labels, 0.0)
        loss = errors.square().sum(dim=1).mean()
        return (loss, outputs) if return_outputs else loss


def load_guide_model(encoder: str) -> tuple[Any, Any]:
    """The guide's model and tokenizer around an encoder, by id or folder."""
    tokenizer = AutoTokenizer.from_pretrained(encoder, trust_remote_code=False)
    return AutoModelForTokenClassification.from_pretrained(encoder, num_labels=1, trust_remote_code=False), tokenizer


def guide_dataset(stories: Iterable[Sequence[str]], tokenizer: Any, padding: str, seed: int = 42) -> Dataset:
    """Ids and a label for each token: the sentence's place at a marker, -100 elsewhere.

    Args:
        stories: sentences of each story, in true order.
        tokenizer: with a CLS token, the marker.
        padding: `"max_length"`, or `"longest"` for none before the batch is made.
        seed: of the shuffles.
    """
    generator = np.random.default_rng(seed)

    def encode(story: Sequence[str]) -> dict[str, list[int]]:
        order = generator.permutation(len(story))
        text = "".join(f"{tokenizer.cls_token} {story[place]} " for place in order)
        to_full_length = "max_length" if padding == "max_length" else False
        encoded = tokenizer(
            text, add_special_tokens=False, truncation=True, max_length=MAX_LENGTH, padding=to_full_length
        )
        places = iter(order.tolist())
        labels = [next(places) if token == tokenizer.cls_token_id else LABEL_PADDING for token in encoded["input_ids"]]
        return {
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "labels": labels,
        }

    return Dataset.from_list([encode(story) for story in stories])


def guide_trainer(
    model: Any, tokenizer: Any, output_dir: str, train: Dataset | None = None, evaluation: Dataset | None = None,
    **options: Any,
) -> GuideTrainer:  # fmt: skip
    """A Trainer as the guide set it up.

    Args:
        model, tokenizer: see `load_guide_model`.
        output_dir: folder that Trainer may write to.
        train, evaluation: see `guide_dataset`.
        **options: further `TrainingArguments`.
    """
    arguments = TrainingArguments(
        output_dir,
        learning_rate=LEARNING_RATE,
        per_device_train_batch_size=BATCH_SIZE,
        per_device_eval_batch_size=BATCH_SIZE,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        **{"eval_strategy": "no", "save_strategy": "no", **options},
    )
    return GuideTrainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=evaluation,
        data_collator=DataCollatorForTokenClassification(tokenizer),
        compute_metrics=guide_metrics,
    )


def guide_metrics(prediction: Any) -> dict[str, Any]:
    """The metrics of our own, so that only the pipelines differ, out of a number for every token."""
    numbers, labels = np.squeeze(prediction.predictions, -1), prediction.label_ids
    marked = labels != LABEL_PADDING
    width = int(marked.sum(axis=1).max())
    scores, places = np.zeros((len(labels), width)), np.full((len(labels), width), LABEL_PADDING)
    for row, there in enumerate(marked):
        scores[row, : there.sum()], places[row, : there.sum()] = numbers[row, there], labels[row, there]
    return dict(ordering_metrics(scores, places, places != LABEL_PADDING))


def guide_orders(
    stories: Sequence[Sequence[str]], model: Any, tokenizer: Any, *, padding: str = "max_length", batch_size: int = 1
) -> list[list[int]]:
    """The order of each story, the guide's way: encode, one number for each token, keep those of the markers."""
    orders = []
    for start in range(0, len(stories), batch_size):
        batch = stories[start : start + batch_size]
        texts = ["".join(f"{tokenizer.cls_token} {sentence} " for sentence in story) for story in batch]
        inputs = tokenizer(
            texts,
            add_special_tokens=False,
            truncation=True,
            max_length=MAX_LENGTH,
            padding=padding,
            return_tensors="pt",
        )
        with torch.no_grad():
            numbers = model(**inputs).logits.squeeze(-1)
        for row, ids in zip(numbers, inputs["input_ids"], strict=True):
            orders.append(row[ids == tokenizer.cls_token_id].argsort().tolist())
    return orders
