"""How well the sentences of texts stand in the order they have, in the judgement of a model: by text and by group."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dataset_builder.file_writing import new_file
from training.evaluation.analysis import confidence_intervals
from training.system.console import shortened

from .ordering import OrderedStory

MEASURES = ("log_probability", "kendalls_tau")
_COLUMNS = ("storyid", "storytitle", "group", "sentences", *MEASURES, "joints", "weakest_joints", "truncated", "error")


def record(answer: OrderedStory) -> dict[str, Any]:
    """A scored text as JSON values, or `error`; `sentences` is their number."""
    values: dict[str, Any] = {}
    if answer.story is not None:
        values = {"storyid": answer.story.storyid, "storytitle": answer.story.title}
        if answer.story.group:
            values["group"] = answer.story.group
    if answer.error is not None:
        return {**values, "error": shortened(answer.error)}
    values |= {"sentences": len(answer.order), **(answer.coherence or {})}
    return values | ({"truncated": answer.truncated} if answer.truncated else {})


def write_scores(answers: Iterable[OrderedStory], path: str) -> None:
    """Writes the texts to a file, as CSV if its suffix is `.csv`, otherwise as JSONL; lists in CSV are JSON."""
    with new_file(path) as unfinished, open(unfinished, "w", encoding="utf-8", newline="") as sink:
        if not path.lower().endswith(".csv"):
            sink.writelines(json.dumps(record(answer), ensure_ascii=False) + "\n" for answer in answers)
            return
        writer = csv.DictWriter(sink, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        for answer in answers:
            cells = record(answer).items()
            writer.writerow({key: json.dumps(cell) if isinstance(cell, list) else cell for key, cell in cells})


@dataclass
class Summary:
    """Collects the measures of texts by group, while they are written.

    Attributes:
        measures: for each group the measures of its texts, in the order of `MEASURES`.
        unscored: number of texts with fewer than two different sentences, which have no order to judge.
    """

    measures: dict[str, list[Sequence[float]]] = field(default_factory=dict)
    unscored: int = 0

    def counted(self, answers: Iterable[OrderedStory]) -> Iterator[OrderedStory]:
        for answer in answers:
            if answer.coherence is not None and answer.story is not None:
                values = [answer.coherence[name] for name in MEASURES]
                if None in values:
                    self.unscored += 1
                else:
                    self.measures.setdefault(answer.story.group, []).append(values)
            yield answer

    def of_all(self) -> dict[str, Any]:
        """As `of_groups`, over all texts; no measures without texts."""
        return _summary([values for group in self.measures.values() for values in group])

    def of_groups(self) -> dict[str, dict[str, Any]]:
        """For each group, the most coherent first: `texts`, for each measure the mean over the texts, and `intervals`.

        The intervals are `confidence_intervals` of the means: bootstrap over texts.
        """
        groups = {name: _summary(values) for name, values in self.measures.items()}
        return dict(sorted(groups.items(), key=lambda item: (-item[1]["log_probability"], item[0])))


def _summary(values: Sequence[Sequence[float]]) -> dict[str, Any]:
    if not values:
        return {"texts": 0}
    columns = dict(zip(MEASURES, np.array(values, dtype=np.float64).T, strict=True))
    means = {name: float(column.mean()) for name, column in columns.items()}
    return {"texts": len(values), **means, "intervals": confidence_intervals(columns)}
