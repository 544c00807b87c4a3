"""The three-way split is that of `Dataset.train_test_split`; stories in two splits are counted."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataset_builder.splitting import split_rows, warn_of_shared_stories, whole_table


def reference(count: int, seed: int, test_size: float | int, validation_size: float | int) -> dict[str, list[int]]:
    rows = Dataset.from_dict({"row": list(range(count))})
    first = rows.train_test_split(test_size=test_size, seed=seed)
    second = first["test"].train_test_split(test_size=validation_size, seed=seed)
    return {"train": first["train"]["row"], "validation": second["test"]["row"], "test": second["train"]["row"]}


def test_the_guides_numbers() -> None:
    rows = split_rows(52_665)
    assert {split: len(part) for split, part in rows.items()} == {"train": 42_132, "validation": 3_160, "test": 7_373}
    assert {split: part.tolist() for split, part in rows.items()} == reference(52_665, 42, 0.2, 0.3)


sizes = st.one_of(st.floats(0.01, 0.99), st.integers(1, 50))


@settings(deadline=None, max_examples=60)
@given(count=st.integers(1, 400), seed=st.integers(0, 2**32), test_size=sizes, validation_size=sizes)
@example(count=6, seed=42, test_size=0.2, validation_size=0.3)
@example(count=5, seed=42, test_size=0.2, validation_size=0.3)
@example(count=10, seed=42, test_size=5, validation_size=2)
def test_rows_are_those_of_train_test_split(
    count: int, seed: int, test_size: float | int, validation_size: float | int
) -> None:
    try:
        expected = reference(count, seed, test_size, validation_size)
    except ValueError:
        with pytest.raises(ValueError, match=f"^{count} stories are too few to split"):
            split_rows(count, seed=seed, test_size=test_size, validation_size=validation_size)
        return
    rows = split_rows(count, seed=seed, test_size=test_size, validation_size=validation_size)
    assert {split: part.tolist() for split, part in rows.items()} == expected
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(count))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed=-1 .*whole number"),
        ({"seed": 4.2}, "seed=4.2 "),
        ({"test_size": 0.0}, "test_size=0.0 .*share between 0 and 1"),
        ({"test_size": 1.5}, "test_size=1.5 "),
        ({"test_size": True}, "test_size=True "),
        ({"validation_size": 0}, "validation_size=0 "),
        ({"validation_size": "0.3"}, "validation_size='0.3' "),
    ],
)
def test_sizes_out_of_range(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_rows(100, **arguments)


def table(*hashes: int) -> Dataset:
    return Dataset.from_dict({"text_hash": np.array(hashes, dtype=np.uint64)})


def test_stories_in_two_splits_are_counted_once_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    largest = 2**64 - 1
    splits = {
        "train": [whole_table(table(1, 2, 2, 3)), whole_table(table(largest))],
        "validation": [whole_table(table(4, 5, 2))],
        "test": [whole_table(table(largest, largest, 2, 6))],
    }
    with caplog.at_level(logging.WARNING):
        assert warn_of_shared_stories(splits) == 2
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "2 stories are in more than one split (train and validation: 1, train and test: 2, validation and test: 1)"
    )


def test_no_warning_without_shared_stories(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert warn_of_shared_stories({"train": [whole_table(table(1, 1))], "test": [whole_table(table(2))]}) == 0
    assert not caplog.records
