"""`OrderStories`: orders batches of columns in engines for distributed data, such as Ray Data, Daft and Spark."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from math import isnan
from typing import Any

from dataset_builder import BadRecord, Story, UserError
from dataset_builder.story import FIXED_POINTS, story_from_record
from modeling_sentence_ordering import AnswerOptions

from .answers import record
from .ordering import BATCH_TOKENS, OrderedStory, order_stories

BACKENDS = ("torch", "onnx", "onnx-int8")
RESULTS = ("sentences", "order", "scores", "confidence", "truncated", "error")


def load_model(name_or_path: str, *, backend: str = "torch", bf16: bool = False) -> tuple[Any, Any]:
    """The trained model and its tokenizer, on the device of this process; no code of the repository is run.

    Args:
        name_or_path: a folder or an id on the Hub.
        backend: one of `BACKENDS`.
        bf16: compute in bfloat16; `torch` only.
    """
    if backend != "torch":
        from .onnx_model import load_onnx_model

        return load_onnx_model(name_or_path, backend)
    from transformers.utils import logging

    from training.models.trained_model import load_trained_model
    from training.system.device import limit_kernel_caches

    logging.disable_progress_bar()
    limit_kernel_caches()
    loaded = load_trained_model(name_or_path, bf16=bf16)
    if sys.stderr.isatty():
        logging.enable_progress_bar()  # for long texts
    return loaded


class OrderStories:
    """Orders batches of stories with a model that is loaded once for each object.

    With Ray Data, each actor has one object:

        stories.map_batches(OrderStories, fn_constructor_kwargs={"model": "my-first-model"}, concurrency=2)

    Args:
        model: a folder or an id on the Hub; no code of the repository is run.
        backend: `torch`, `onnx` or `onnx-int8`; the latter two need the files that `export` writes.
        bf16: compute in bfloat16.
        batch_size, batch_tokens, num_permutations: see `score_stories`.
        pairwise, ties, moves: see `AnswerOptions`.

    Raises:
        UserError: the model cannot be loaded, or is not calibrated, which `pairwise` and `ties` need.
    """

    def __init__(
        self,
        model: str,
        *,
        backend: str = "torch",
        bf16: bool = False,
        batch_size: int | None = None,
        batch_tokens: int | None = BATCH_TOKENS,
        num_permutations: int = 1,
        pairwise: bool = False,
        ties: float | None = None,
        moves: bool = False,
    ) -> None:
        loaded, tokenizer = load_model(model, backend=backend, bf16=bf16)
        self.config = loaded.config
        self.answer_options = AnswerOptions(pairwise=pairwise, ties=ties, moves=moves)
        try:
            self.answer_options.check_calibration(self.config.confidence_temperature)
        except ValueError as error:
            raise UserError(f"--model {model}: {error}") from None
        self._order = partial(
            order_stories,
            loaded,
            tokenizer,
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            num_permutations=num_permutations,
            answer_options=self.answer_options,
        )

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Orders a batch of columns of equal length: lists, numpy arrays, or a pandas DataFrame.

        Args:
            batch: a column `sentences`, or the columns `sentence1`, `sentence2`, …; `first`, `last` and `before` may
                constrain the order.

        Returns:
            The other columns unchanged, and `sentences` in the predicted order, `order`, `scores`, `confidence`,
            `truncated`, `error` and what was asked for in addition, with None where a value is missing. A bad record
            has an error only.
        """
        columns = {str(name): list(values) for name, values in batch.items()}
        rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
        answers = [record(answer) for answer in self.answers(_story(row, i) for i, row in enumerate(rows, start=1))]
        results = {name: [answer.get(name) for answer in answers] for name in (*RESULTS, *self.answer_options.keys)}
        kept = {name: values for name, values in columns.items() if name not in FIXED_POINTS}
        return {**kept, **results}

    def answers(self, records: Iterable[Story | BadRecord], *, read_ahead: bool = False) -> Iterator[OrderedStory]:
        """One answer for each record, in their order; `read_ahead` as in `order_stories`."""
        return self._order(records, read_ahead=read_ahead)


def _story(row: Mapping[str, Any], number: int) -> Story | BadRecord:
    fields = {name: value for name, value in _plain(row).items() if value is not None}
    try:
        return story_from_record(fields, file="batch", row=number, as_given=True)
    except BadRecord as error:
        return error


def _plain(value: Any) -> Any:
    """Lists in place of numpy arrays, and None in place of NaN."""
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and isnan(value) else value
