"""Stories as other libraries hold them: arrays, Series, columns and data sets are ordered like lists of strings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from modeling_sentence_ordering import SentenceOrderingConfig, SentenceOrderingPipeline
from tests.modeling_sentence_ordering.small_encoders import STORIES, MakeModel


@pytest.fixture(scope="module")
def order(make_model: MakeModel) -> SentenceOrderingPipeline:
    model, story_tokenizer = make_model("bert")
    return SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer)


def objects(stories: list[Any]) -> Any:
    """A one-dimensional array of stories, as pandas makes one of a list column of Parquet."""
    array = np.empty(len(stories), dtype=object)
    array[:] = stories
    return array


ONE_STORY: dict[str, Callable[[list[str]], Any]] = {
    "numpy strings": np.array,
    "numpy objects": lambda story: np.array(story, dtype=object),
    "series": pd.Series,
    "arrow": pa.array,
    "chunked arrow": lambda story: pa.chunked_array([story[:1], story[1:]]),
    "tuple": tuple,
}
MANY: dict[str, Callable[[list[list[str]]], Any]] = {
    "list of arrays": lambda stories: [np.array(story) for story in stories],
    "array of arrays": lambda stories: objects([np.array(story) for story in stories]),
    "series of arrays": lambda stories: pd.Series([np.array(story) for story in stories]),
    "list of series": lambda stories: [pd.Series(story) for story in stories],
    "arrow": pa.array,
    "frame": lambda stories: pd.DataFrame({"storyid": range(len(stories)), "sentences": stories}),
    "table": lambda stories: pa.table({"sentences": stories}),
    "rows": lambda stories: [{"sentences": np.array(story)} for story in stories],
    "column": lambda stories: datasets.Dataset.from_dict({"sentences": stories})["sentences"],
}


@pytest.mark.parametrize("kind", ONE_STORY)
def test_one_story_in_an_array_is_ordered_like_a_list(kind: str, order: SentenceOrderingPipeline) -> None:
    assert order(ONE_STORY[kind](STORIES[0])) == order(STORIES[0])


@pytest.mark.parametrize("kind", MANY)
def test_many_stories_in_arrays_are_ordered_like_lists(kind: str, order: SentenceOrderingPipeline) -> None:
    assert order(MANY[kind](STORIES)) == order(STORIES)


def test_stories_that_pandas_reads_from_parquet(order: SentenceOrderingPipeline, tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"sentences": STORIES}).to_parquet(tmp_path / "stories.parquet")
    frame = pd.read_parquet(tmp_path / "stories.parquet")
    assert isinstance(frame["sentences"][0], np.ndarray)
    assert order(frame["sentences"]) == order(frame) == order(STORIES)
    assert order(frame["sentences"][0]) == order(STORIES[0])


def test_a_map_style_dataset_is_iterated_by_its_length(order: SentenceOrderingPipeline) -> None:
    class Endless(torch.utils.data.Dataset[list[str]]):
        def __len__(self) -> int:
            return len(STORIES)

        def __getitem__(self, index: int) -> list[str]:
            return STORIES[index % len(STORIES)]

    assert [answer["order"] for answer in order(Endless())] == [answer["order"] for answer in order(STORIES)]


@pytest.mark.parametrize(
    "story", [set(STORIES[0]), frozenset(STORIES[0]), {tuple(STORIES[0])}], ids=["set", "frozenset", "stories"]
)
def test_a_set_has_no_order_and_is_refused(story: Any, order: SentenceOrderingPipeline) -> None:
    for inputs in (story, [story], {"sentences": story}):
        with pytest.raises(TypeError, match="not (froz)?.*set"):
            order(inputs)


def test_integers_of_numpy_are_numbers(order: SentenceOrderingPipeline) -> None:
    expected = order(STORIES[0], first=2, before=[(0, 1)], num_permutations=2)
    numbers: dict[str, Any] = {"first": np.int64(2), "num_permutations": np.int32(2), "batch_size": np.int64(4)}
    found = order(STORIES[0], before=np.array([[0, 1]]), **numbers)
    assert found == {**expected, "scores": pytest.approx(expected["scores"], abs=1e-5)}
    for wrong in (True, np.True_, 1.0, np.float64(1.0), "1"):
        with pytest.raises(ValueError):
            order(STORIES[0], num_permutations=wrong)


def test_a_config_with_numbers_of_numpy_can_be_saved(tmp_path: Path) -> None:
    numbers: dict[str, Any] = {
        "group_size": np.int64(4),
        "marker_token_id": np.int64(1),
        "max_input_tokens": np.int32(64),
        "confidence_temperature": np.float32(0.5),
    }
    SentenceOrderingConfig({"model_type": "bert"}, **numbers).save_pretrained(tmp_path)
    again = SentenceOrderingConfig.from_pretrained(tmp_path)
    assert (again.group_size, again.marker_token_id, again.max_input_tokens) == (4, 1, 64)
    assert again.confidence_temperature == 0.5
