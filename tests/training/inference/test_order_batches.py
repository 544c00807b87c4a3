"""`OrderStories`: batches of columns as engines for distributed data hand them over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modeling_sentence_ordering import SentenceOrderingModel, SentenceOrderingPipeline, load_tokenizer
from tests.training.conftest import Trained
from tests.training.made_up import made_up_stories
from training import OrderStories

STORIES = made_up_stories(7, shortest=2, longest=6, seed=11)


@pytest.fixture(scope="module")
def order(trained: Trained) -> OrderStories:
    return OrderStories(str(trained.folder))


def arrays(values: list[Any]) -> np.ndarray:
    column = np.empty(len(values), dtype=object)
    column[:] = [np.array(value, dtype=object) for value in values]
    return column


@pytest.mark.parametrize(
    "batch",
    [
        {"key": list(range(7)), "sentences": STORIES},
        {"key": np.arange(7), "sentences": arrays(STORIES)},  # Ray Data, and pandas from Parquet
        pd.DataFrame({"key": range(7), "sentences": STORIES}),
    ],
    ids=["lists", "arrays", "data frame"],
)
def test_a_batch_is_ordered_as_the_pipeline_orders_it(
    batch: Mapping[str, Any], order: OrderStories, trained: Trained
) -> None:
    model = SentenceOrderingModel.from_pretrained(trained.folder)
    expected = SentenceOrderingPipeline(model=model, tokenizer=load_tokenizer(str(trained.folder)))(STORIES)
    table = pd.DataFrame(order(batch))
    assert list(table["key"]) == list(range(7))
    assert [list(value) for value in table["order"]] == [answer["order"] for answer in expected]
    assert [list(value) for value in table["sentences"]] == [answer["sentences"] for answer in expected]
    assert all(error is None for error in table["error"])


def test_numbered_columns_and_constraints(order: OrderStories) -> None:
    columns: dict[str, Any] = {f"sentence{n}": [f"{n}.", f"{n}!"] for n in (1, 2, 3)}
    answer = order({"genre": ["news", "prose"], **columns, "first": [2, np.nan], "last": [np.nan, 0.0]})
    assert answer["genre"] == ["news", "prose"]
    assert answer["order"][0][0] == 2
    assert "first" not in answer


def test_bad_records_have_an_error(order: OrderStories) -> None:
    answer = order({"storyid": ["a", "b", "c"], "sentences": [["One.", ""], None, ["One.", "Two."]]})
    assert answer["storyid"] == ["a", "b", "c"]
    assert [error is None for error in answer["error"]] == [False, False, True]
    assert "sentence 2" in answer["error"][0] and answer["order"][:2] == [None, None]


def test_optional_columns(trained: Trained) -> None:
    answer = OrderStories(str(trained.folder), ties=0.8, moves=True)({"sentences": STORIES[:2]})
    assert [len(layers) > 0 for layers in answer["layers"]] == [True, True] and len(answer["moved"]) == 2


def test_an_empty_batch(order: OrderStories) -> None:
    assert order({"sentences": []})["order"] == []


def test_a_model_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        OrderStories(str(tmp_path / "nowhere"))
