"""Rows in every layout are put in true order, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dataset_builder import BadRecord, load_stories, stories_of_rows

WriteRoc = Callable[..., Path]
LoadScript = Callable[..., Any]

TRUE = [["a", "b", "c"], ["x", "y"]]
SHUFFLED = [
    {"storyid": "1", "storytitle": "T", "sentences": ["c", "a", "b"], "labels": [2, 0, 1]},
    {"storyid": "2", "storytitle": "U", "sentences": ["y", "x"], "labels": [1, 0]},
]
REBART = [
    {"shuf_sents": ["c", "a", "b"], "orig_sents": ["1", "2", "0"]},
    {"shuf_sents": ["y", "x"], "orig_sents": ["1", "0"]},
]
GUIDE = [
    {"sentence1": "a", "sentence2": "b", "sentence3": "c", "so_targets": [2, 0, 1], "text": "[CLS] c [CLS] a [CLS] b"},
    {"sentence1": "x", "sentence2": "y", "sentence3": None, "so_targets": [1, 0], "text": "[CLS] y [CLS] x"},
]


@pytest.mark.parametrize("rows", [SHUFFLED, REBART, GUIDE])
@pytest.mark.parametrize(
    "layout",
    [
        list,
        iter,
        datasets.Dataset.from_list,
        lambda rows: datasets.Dataset.from_list(rows).with_format("numpy"),
        lambda rows: datasets.Dataset.from_list(rows).to_iterable_dataset(),
        lambda rows: datasets.Dataset.from_list(rows).to_dict(),
        pd.DataFrame,
        pa.Table.from_pylist,
        lambda rows: [{name: np.array(value) for name, value in row.items() if value is not None} for row in rows],
    ],
)
def test_any_layout_comes_out_in_true_order(rows: list[dict[str, Any]], layout: Callable[..., Any]) -> None:
    found = stories_of_rows(layout(rows))
    assert list(found["sentences"]) == TRUE
    assert found.column_names == ["storyid", "storytitle", "sentences"]


def test_the_rows_of_the_script_and_of_its_class(write_roc: WriteRoc, load_script: LoadScript) -> None:
    path = str(write_roc(20))
    expected = load_stories([path])["test"].to_list()
    for name in ("shuffled", "guide"):
        assert stories_of_rows(load_script(name, data_files=path)["test"]).to_list() == expected


def test_labels_of_any_row_count() -> None:
    """`Dataset.from_list` would take the columns of the first row for those of all, and drop the labels."""
    rows = [{"sentences": ["a", "b", "c"]}, SHUFFLED[1]]
    assert list(stories_of_rows(rows)["sentences"]) == TRUE


def test_stories_in_true_order_stay_where_they_are(write_roc: WriteRoc) -> None:
    stories = load_stories([str(write_roc(20))])["train"]
    assert stories_of_rows(stories) is stories


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (datasets.DatasetDict({"train": datasets.Dataset.from_list(SHUFFLED)}), "several splits.*'train'"),
        ([{"sentences": ["a", "b"], "labels": [0, 0]}], "row 1: 'labels' is not a permutation"),
        ([{"sentences": ["a", "b"], "labels": [0, -100]}], "row 1: 'labels' is not a permutation"),
        ([{"sentences": ["a", "b", "c"], "labels": [1, 0]}], "row 1: 'labels' is not a permutation"),
        ([{"text": "[CLS] a", "labels": [0]}], "'sentences' is missing"),
        ([["a", "b"]], "a row is a dict"),
        ("sample", "not str"),
    ],
)
def test_what_is_not_rows_of_stories_is_refused(rows: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        stories_of_rows(rows)


def test_a_row_of_one_sentence_is_left_out() -> None:
    assert list(stories_of_rows([*SHUFFLED, {"sentences": ["alone"], "labels": [0]}])["sentences"]) == TRUE
    with pytest.raises(BadRecord, match="row 3"):
        stories_of_rows([*SHUFFLED, {"sentences": []}])
