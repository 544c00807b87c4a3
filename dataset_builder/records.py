"""From the fields of one record, whatever the format, to a story in true order."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from pathlib import PurePath
from typing import Any

from .lines import is_blank
from .story import BadRecord, SingleSentence, Story

FIXED_POINTS = ("first", "last", "before")
ROC_SENTENCES = ("sentence1", "sentence2", "sentence3", "sentence4", "sentence5")


def sentence_columns(names: Iterable[str]) -> list[str]:
    """The columns sentence1, sentence2, … among `names`, in the order of their numbers."""
    numbered = {name: int(name[8:]) for name in names if re.fullmatch(r"sentence[1-9][0-9]{0,3}", name)}
    return sorted(numbered, key=numbered.__getitem__)


def missing_sentence_columns(names: Iterable[str]) -> list[str]:
    """What is missing of sentence1, sentence2, … without a gap; of all five columns of ROCStories if there are none.

    A column that is not one of them but looks like the one behind the last (`sentense5`) is a misspelt one.
    """
    names = list(names)
    present = sentence_columns(names)
    last = max(2, int(present[-1][8:])) if present else len(ROC_SENTENCES)
    following = [name for name in names if name not in present and name.endswith(str(last + 1))]
    if difflib.get_close_matches(f"sentence{last + 1}", following, n=1, cutoff=0.7):
        last += 1
    return [f"sentence{number}" for number in range(1, last + 1) if f"sentence{number}" not in present]


def without_blank_end(cells: Sequence[Any]) -> list[Any]:
    """The cells up to the last one that is not empty, null or NaN: stories of a table need not be equally long."""
    cells = list(cells)
    while cells and _is_empty(cells[-1]):
        cells.pop()
    return cells


def _is_empty(cell: Any) -> bool:
    return is_blank(cell) if isinstance(cell, str) else cell is None or (isinstance(cell, float) and isnan(cell))


def did_you_mean_column(missing: str, names: Iterable[str]) -> str:
    """A hint to put behind the message that a column is missing; empty if none of those that are there is close."""
    close = difflib.get_close_matches(missing, list(names), n=1, cutoff=0.7)
    return f"; is {close[0]!r} meant to be {missing!r}?" if close else ""


def story_from_record(record: Mapping[str, Any], *, file: str, row: int, as_given: bool = False) -> Story:
    """Read one record as a story.

    The sentences stand in one of three ways:

    - `sentences`, in true order; or shuffled, with `labels[i]` the original index of the i-th sentence;
    - ReBART's `shuf_sents`, shuffled, and `orig_sents`: `orig_sents[k]` is the place in `shuf_sents` of the
      k-th sentence of the true order, as a string. It is the inverse permutation of `labels`
      (Basu Roy Chowdhury et al. 2021, https://aclanthology.org/2021.emnlp-main.841);
    - the columns `sentence1`, `sentence2`, …, in true order.

    Args:
        record: fields by name; `storyid` and `storytitle` may be missing.
        file: name of the file, for messages and for the id of a story that has none.
        row: 1-based row, for the same.
        as_given: keep the sentences in the order in which they stand, whatever `labels` say; one or none is fine. What
            is said of their true order by `first`, `last` and `before` goes into `Story.fixed_points`.

    Raises:
        BadRecord: sentences are missing, empty, not text or have a NUL in them; or, unless `as_given`, there are none
            or the labels are not a permutation of them.
        SingleSentence: there is one, unless `as_given`.
    """
    try:
        sentences = _sentences(record)
        if not sentences and not as_given:
            raise ValueError("0 sentences, where an order needs at least two")
        if len(sentences) > 1 and not as_given:
            sentences = _in_true_order(record, sentences)
    except ValueError as error:
        raise BadRecord(file, row, str(error)) from None
    storyid, title = record.get("storyid"), record.get("storytitle")
    story = Story(
        sentences=tuple(sentences),
        storyid=f"{PurePath(file).stem}-{row}" if storyid in (None, "") else str(storyid),
        title="" if title is None else str(title),
        file=file,
        row=row,
        fixed_points={name: record[name] for name in FIXED_POINTS if as_given and record.get(name) is not None},
    )
    if len(sentences) == 1 and not as_given:
        raise SingleSentence(file, row, "1 sentence, where an order needs at least two", story)
    return story


def _sentences(record: Mapping[str, Any]) -> list[str]:
    if "sentences" in record or "shuf_sents" in record:
        column = "sentences" if "sentences" in record else "shuf_sents"
        values = record[column]
        if not isinstance(values, (list, tuple)):
            raise ValueError(f"'{column}' is not a list of sentences")
        names = [f"sentence {number}" for number in range(1, len(values) + 1)]
    else:
        names = sentence_columns(record)
        if not names:
            found, hint = ", ".join(map(str, record)) or "nothing", did_you_mean_column("sentences", map(str, record))
            raise ValueError(f"'sentences' is missing (found: {found}){hint}")
        values = without_blank_end([record[name] for name in names])
        names = [f"sentence{number}" for number in range(1, len(values) + 1)]
        if missing := [name for name in names if name not in record]:
            raise ValueError(f"column {missing[0]!r} is missing")
    for name, sentence in zip(names, values, strict=True):
        if not isinstance(sentence, str):
            raise ValueError(f"{name} is not text")
        if is_blank(sentence):
            raise ValueError(f"{name} is empty")
        if "\0" in sentence:
            raise ValueError(f"{name} has a NUL character in it: this is no text, or text in UTF-16")
        if not sentence.isascii():
            _check_unicode(name, sentence)
    return list(values)


def _check_unicode(name: str, sentence: str) -> None:
    try:
        sentence.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{name} has half of a surrogate pair in it, which is no character") from None


def _in_true_order(record: Mapping[str, Any], shown: list[str]) -> list[str]:
    if "sentences" in record:
        if record.get("labels") is None:
            return shown
        labels = _permutation("labels", record["labels"], len(shown))
        in_order = dict(zip(labels, shown, strict=True))
        return [in_order[index] for index in range(len(shown))]
    if "shuf_sents" in record:
        if record.get("orig_sents") is None:
            raise ValueError("'orig_sents' is missing beside 'shuf_sents'")
        return [shown[place] for place in _permutation("orig_sents", record["orig_sents"], len(shown))]
    return shown


def _permutation(name: str, values: Sequence[Any], length: int) -> list[int]:
    try:
        numbers = [int(value) for value in values if isinstance(value, (int, str)) and not isinstance(value, bool)]
    except (TypeError, ValueError):
        numbers = []
    if sorted(numbers) != list(range(length)) or len(numbers) != len(values):
        raise ValueError(f"'{name}' is not a permutation of 0 … {length - 1}")
    return numbers
