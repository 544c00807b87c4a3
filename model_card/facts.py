"""What a model card is made of: plain values, wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

METRICS = {"kendalls_tau": "Kendall's tau", "accuracy": "Accuracy", "pmr": "Perfect match ratio"}
TASK = "sentence-ordering"


@dataclass(frozen=True)
class Example:
    """A story that the model put in order.

    Attributes:
        chosen: why it is shown: `best`, `median` or `worst`.
        sentences: in true order.
        order: true positions, from 0, in the order that the model gave.
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
        name: what it is called: its repository's id, or the name of its folder.
        recipe: the recipe as published.
        results: what `results.json` holds.
        parameters: number of parameters.
        training_sentences: the fewest and the most sentences of a story that it was trained on.
        max_input_tokens: the most tokens of a story that it reads, None for no limit.
        head: what the model decides: `score` or `pairs`.
        base_model: the encoder's id on the Hub, if it has one.
        datasets: ids on the Hub of the data.
        license: of the model, an id that the Hub knows.
        language: codes of the languages of the stories; empty if not stated.
        quoted_under: the licence of the stories, if some are quoted.
        examples: stories to quote, only where their licence allows it.
        curves, heatmap: names of the pictures beside the card, None for one that is not there.
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
    def judged_split(self) -> str | None:
        """The split that the results are of: `test`, or `validation` where there is no test; None where neither is."""
        return next((split for split in ("test", "validation") if split in self.results), None)

    @property
    def data_names(self) -> list[str]:
        """Names of the data, as a reader knows them."""
        return ["the sample bundled with sentence-ordering" if name == "sample" else name
                for name in self.recipe["data"]]  # fmt: skip
