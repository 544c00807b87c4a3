"""The values that a model card shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

METRICS = {"kendalls_tau": "Kendall's tau", "accuracy": "Accuracy", "pmr": "Perfect match ratio"}
TASK = "sentence-ordering"
_BUNDLED = {
    "sample": "the sample bundled with sentence-ordering",
    "sample-long": "the long texts bundled with sentence-ordering",
}


@dataclass(frozen=True)
class Example:
    """A story ordered by the model.

    Attributes:
        chosen: why it is shown: `best`, `median` or `worst`.
        sentences: in true order.
        order: true positions, from 0, in the predicted order.
        kendalls_tau: of this story.
    """

    chosen: str
    sentences: Sequence[str]
    order: Sequence[int]
    kendalls_tau: float


@dataclass(frozen=True)
class ModelFacts:
    """A trained model in plain values.

    Attributes:
        name: id of the repository, or name of the folder.
        recipe: the recipe as published.
        results: content of `results.json`.
        parameters: number of parameters.
        training_sentences: minimum and maximum number of sentences of a training story.
        max_input_tokens: maximum number of tokens of an input, None for no limit.
        head: `score` or `pairs`.
        base_model: the encoder's id on the Hub, if it has one.
        datasets: Hub ids of the data.
        license: of the model, an id of the Hub.
        language: codes of the languages of the stories; empty if not stated.
        quoted_under: licence of the quoted stories.
        examples: stories to quote, if their licence allows it.
        curves, heatmap: file names of the pictures, None if there is none.
    """

    name: str
    recipe: Mapping[str, Any]
    results: Mapping[str, Any]
    parameters: int
    training_sentences: tuple[int, int]
    max_input_tokens: int | None = None
    head: str = "score"
    base_model: str | None = None
    datasets: Sequence[str] = ()
    license: str = "unknown"
    language: Sequence[str] = ()
    quoted_under: str | None = None
    examples: Sequence[Example] = ()
    curves: str | None = None
    heatmap: str | None = None

    @property
    def main_split(self) -> str | None:
        """The split of the results: `test`, otherwise `validation`; None without both."""
        return next((split for split in ("test", "validation") if split in self.results), None)

    @property
    def data_names(self) -> list[str]:
        """Names of the data for a reader."""
        return [_BUNDLED.get(name, name) for name in self.recipe["data"]]
