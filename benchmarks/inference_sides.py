"""One side of `benchmarks.inference_speed`: evaluates or orders stories in a process of its own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer, pipeline

from benchmarks.guide_pipeline import guide_dataset, guide_orders, guide_trainer, load_guide_model
from benchmarks.side_by_side import peak_memory
from dataset_builder import Story, load_all
from modeling_sentence_ordering import StoryTokenizer
from training.data.stories import TokenizedStories
from training.evaluation.predictions import evaluate
from training.inference.onnx_model import load_onnx_model
from training.inference.ordering import order_stories
from training.models.trained_model import load_trained_model
from training.system.device import limit_kernel_caches

Stories = Sequence[Sequence[str]]
Work = Callable[[Stories], Any]


def measure_side(told: Mapping[str, Any]) -> dict[str, Any]:
    """Does the work on some stories to warm up, and then on those that are counted.

    Args:
        told: `work`, a name of `WORK`; `model`, `guide_model` and `data`; `stories`, how many are counted; and
            whatever the work takes besides.
    """
    stories = load_all(told["data"])["sentences"]
    warm, counted = list(stories[:64]), list(stories[64 : 64 + told["stories"]])
    work = WORK[told["work"]](told)
    work(warm[: max(8, told["stories"] // 10)])
    began = time.perf_counter()
    work(counted)
    return {"seconds": time.perf_counter() - began, "stories": len(counted), "peak_memory": peak_memory()}


def _guide_evaluation(told: Mapping[str, Any]) -> Work:
    model, tokenizer = load_guide_model(told["guide_model"])
    folder = tempfile.mkdtemp()

    def work(stories: Stories) -> Any:
        encoded = guide_dataset(stories, tokenizer, told["padding"])
        return guide_trainer(model, tokenizer, folder, evaluation=encoded).evaluate()

    return work


def _our_evaluation(told: Mapping[str, Any]) -> Work:
    limit_kernel_caches()
    model, tokenizer = load_trained_model(told["model"], bf16=told["bf16"])
    every = load_all(told["data"])

    def work(stories: Stories) -> Any:
        chosen = every.select(range(64, 64 + len(stories)))
        tokenized = TokenizedStories(chosen, StoryTokenizer(tokenizer, model.config))
        return evaluate(model, tokenized)

    return work


def _guide_ordering(told: Mapping[str, Any]) -> Work:
    model, tokenizer = load_guide_model(told["guide_model"])
    model.eval()
    return lambda stories: guide_orders(stories, model, tokenizer, padding="max_length", batch_size=8)


def _plain_loop(told: Mapping[str, Any]) -> Work:
    """Story by story, or so many at a time in the order of the input, as one writes it with transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(told["model"], trust_remote_code=True)
    model = AutoModel.from_pretrained(told["model"], trust_remote_code=True).eval()
    marker, size = tokenizer.decode(model.config.marker_token_id), told["batch_size"]

    def work(stories: Stories) -> list[list[int]]:
        orders = []
        for start in range(0, len(stories), size):
            texts = ["".join(marker + sentence for sentence in story) for story in stories[start : start + size]]
            inputs = tokenizer(texts, add_special_tokens=False, padding=True, truncation=True, return_tensors="pt")
            with torch.no_grad():
                output = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
            for scores, mask in zip(output.logits, output.sentence_mask, strict=True):
                orders.append(scores[mask].argsort().tolist())
        return orders

    return work


def _pipeline(told: Mapping[str, Any]) -> Work:
    order = pipeline("sentence-ordering", model=told["model"], trust_remote_code=True)
    return lambda stories: order([list(story) for story in stories])


def _order(told: Mapping[str, Any]) -> Work:
    limit_kernel_caches()
    backend = told.get("backend")
    model: Any
    if backend:
        model, tokenizer = load_onnx_model(told["model"], backend)
    else:
        model, tokenizer = load_trained_model(told["model"], bf16=told.get("bf16", False))
    options = {"batch_tokens": told["batch_tokens"]} if "batch_tokens" in told else {}

    def work(stories: Stories) -> Any:
        records = [Story(tuple(story), str(place)) for place, story in enumerate(stories)]
        return list(order_stories(model, tokenizer, records, read_ahead=True, **options))

    return work


WORK: dict[str, Callable[[Mapping[str, Any]], Work]] = {
    "guide_evaluation": _guide_evaluation,
    "our_evaluation": _our_evaluation,
    "guide_ordering": _guide_ordering,
    "plain_loop": _plain_loop,
    "pipeline": _pipeline,
    "order": _order,
}


def agreement(folder: str, data: Sequence[str]) -> dict[str, Any]:
    """How far ONNX Runtime's scores and orders are from torch's, on all stories of some data."""
    records = [Story(tuple(story), str(place)) for place, story in enumerate(load_all(data)["sentences"])]
    expected = list(order_stories(*load_trained_model(folder), records))
    found: dict[str, Any] = {"stories": len(records)}
    for backend in ("onnx", "onnx-int8"):
        answers = list(order_stories(*load_onnx_model(folder, backend), records))  # type: ignore[arg-type]
        both = list(zip(answers, expected, strict=True))
        found[backend] = {
            "largest_difference": max(
                abs(a - b) for one, other in both for a, b in zip(one.scores, other.scores, strict=True)
            ),
            "same_order": sum(one.order == other.order for one, other in both),
        }
    return found
