"""Stories from a `datasets.Dataset` that the user has loaded, in place of the sources that `--data` names."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from modeling_sentence_ordering import StoryTokenizer

from .stories import TokenizedStories

_SHOWN = "labels"


class GivenStories(TokenizedStories):
    """Stories of a data set, ready to train and evaluate on.

    Args:
        rows: the column `sentences`, and optionally `labels`: the original index (0 … N-1) of each sentence. Without
            labels the sentences are in their true order. `storyid` and `storytitle` are optional.
        story_tokenizer, data_seed: see `TokenizedStories`.

    Raises:
        ValueError: if there is no column `sentences`, or a row's labels do not belong to its sentences.
    """

    def __init__(self, rows: Dataset, story_tokenizer: StoryTokenizer, data_seed: int = 42) -> None:
        super().__init__(in_true_order(rows), story_tokenizer, data_seed)

    def evaluation_labels(self, index: int) -> list[int]:
        """The shuffle that a story is evaluated in: the one it was given in, if it has labels."""
        if _SHOWN not in self.stories.column_names:
            return super().evaluation_labels(index)
        labels: list[int] = self.stories[int(index)][_SHOWN]
        return labels


def in_true_order(rows: Dataset) -> Dataset:
    """The stories of a data set with the columns `storyid`, `storytitle`, `sentences` (in true order) and `labels`."""
    check_has_sentences(rows)
    columns = rows.column_names

    def restore(row: dict[str, Any], index: int) -> dict[str, Any]:
        story = {"storyid": str(row.get("storyid", index)), "storytitle": str(row.get("storytitle") or "")}
        sentences, labels = list(row["sentences"]), row.get(_SHOWN)
        if _SHOWN not in columns:
            return {**story, "sentences": sentences}
        if labels is None or sorted(labels) != list(range(len(sentences))):
            raise ValueError(
                f"row {index}: labels are the original index of each sentence, for {len(sentences)} sentences a "
                f"permutation of 0 to {len(sentences) - 1}, not {labels}"
            )
        by_label = dict(zip(labels, sentences, strict=True))
        return {**story, "sentences": [by_label[label] for label in range(len(labels))], _SHOWN: list(labels)}

    kept = ("storyid", "storytitle", "sentences", _SHOWN)
    other = [column for column in columns if column not in kept]
    restored: Dataset = rows.with_format(None).map(
        restore, with_indices=True, remove_columns=other, desc="Reading stories"
    )
    return restored


def check_has_sentences(rows: Dataset) -> None:
    """Raises ValueError if a data set has no stories."""
    if "sentences" not in rows.column_names:
        raise ValueError(
            f"the data set has no column 'sentences'; it has {', '.join(rows.column_names)}. "
            "Load it with the configuration 'shuffled', or rename the column"
        )
