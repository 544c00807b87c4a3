"""A story, the error of a bad record, and how a story is read from the fields of a record of any format."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import isnan
from pathlib import PurePath
from typing import Any

from .errors import UserError
from .unpacking import split_compression

Splitter = Callable[[str], list[str]]
FIXED_POINTS = ("first", "last", "before")
TEXT_COLUMNS = ("text", "abstract", "story")
"""Columns of prose that is split into sentences, in order of preference, where a record has no sentences."""
CLOZE_SENTENCES = ("inputsentence1", "inputsentence2", "inputsentence3", "inputsentence4")
_CLOZE_ENDINGS = {"1": "randomfifthsentencequiz1", "2": "randomfifthsentencequiz2"}
CLOZE_COLUMNS = (*CLOZE_SENTENCES, *_CLOZE_ENDINGS.values(), "answerrightending")
"""The columns of a Story Cloze test, see `plain_name`."""
STORY_FIELDS = ("storyid", "storytitle", "sentences", "labels", "shuf_sents", "orig_sents")
ROC_SENTENCES = ("sentence1", "sentence2", "sentence3", "sentence4", "sentence5")
# White space and Unicode's default ignorable characters, which are not visible.
_INVISIBLE = re.compile(
    "[\\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]+"
)


@dataclass(frozen=True, slots=True)
class Story:
    """An ordered list of sentences, and where it was read.

    Attributes:
        sentences: in true order; in the order of the file where it was read `as_given`.
        storyid: the file's own id, or `<file stem>-<row>` where it has none.
        title: the file's title, or an empty string.
        file: name of the file, as it was given.
        row: 1-based line on which the record starts; in Parquet, its row.
        fixed_points: what a JSON Lines record read `as_given` states about its order (`first`, `last`, `before`),
            unchecked; otherwise empty.
        group: value of the column `group_by` of `read_stories`, an empty string if it is empty or was not asked for.
    """

    sentences: tuple[str, ...]
    storyid: str
    title: str = ""
    file: str = ""
    row: int = 0
    fixed_points: dict[str, Any] = field(default_factory=dict, hash=False)
    group: str = ""


class BadRecord(UserError):
    """A record that cannot be read as a story.

    Attributes:
        file: name of the file.
        row: 1-based line (in Parquet: row) where the record starts, or None if the whole file is meant.
        reason: what is wrong, on one line.
    """

    def __init__(self, file: str, row: int | None, reason: str) -> None:
        super().__init__(file, row, reason)
        self.file = file
        self.row = row
        self.reason = " ".join(reason.split())

    def __str__(self) -> str:
        return f"{self.file if self.row is None else f'{self.file}, row {self.row}'}: {self.reason}"


class SingleSentence(BadRecord):
    """A record of one sentence, which has no order to learn. It is skipped and counted when stories are loaded.

    Attributes:
        story: what was read.
    """

    def __init__(self, file: str, row: int | None, reason: str, story: Story | None = None) -> None:
        super().__init__(file, row, reason)
        self.story = story


def story_hash(sentences: Iterable[str]) -> str:
    """A hash of a story's text: 32 hexadecimal digits, the same on every machine and in every process.

    It does not depend on the order of the sentences nor on the white space around them, so a story has one hash in
    every shuffle. The length before each sentence distinguishes `["ab", "c"]` from `["a", "bc"]`.
    """
    digest = hashlib.sha256()
    for sentence in sorted(sentence.strip().encode("utf-8") for sentence in sentences):
        digest.update(b"%d:" % len(sentence))
        digest.update(sentence)
    return digest.hexdigest()[:32]


def is_blank(text: str) -> bool:
    """Whether a text is empty or has only white space and invisible characters such as U+200B and U+FEFF."""
    if text.isascii():
        return not text.strip()
    return _INVISIBLE.fullmatch(text) is not None


def sentence_columns(names: Iterable[str]) -> list[str]:
    """The columns sentence1, sentence2, … among `names`, in the order of their numbers."""
    numbered = {name: int(name[8:]) for name in names if re.fullmatch(r"sentence[1-9][0-9]{0,3}", name)}
    return sorted(numbered, key=numbered.__getitem__)


def missing_sentence_columns(names: Iterable[str]) -> list[str]:
    """The gaps in sentence1, sentence2, …; all five columns of ROCStories if there are none.

    A column that is similar to the next sentence column (`sentense5` after `sentence4`) counts as misspelt.
    """
    names = list(names)
    present = sentence_columns(names)
    last = max(2, int(present[-1][8:])) if present else len(ROC_SENTENCES)
    following = [name for name in names if name not in present and name.endswith(str(last + 1))]
    if difflib.get_close_matches(f"sentence{last + 1}", following, n=1, cutoff=0.7):
        last += 1
    return [f"sentence{number}" for number in range(1, last + 1) if f"sentence{number}" not in present]


def plain_name(column: str) -> str:
    """`Sentence 1`, `sentence_1` and `sentence1` are the same column."""
    return re.sub(r"[\s_-]+", "", column).lower()


def story_columns(names: Iterable[str], name: str = "rows", *, prose: bool = False) -> list[str]:
    """The columns among `names` from which a story is read.

    Args:
        names: all columns.
        name: of the file or data set, for messages.
        prose: whether texts are split into sentences.

    Raises:
        BadRecord: none of them has sentences, or one occurs twice.
    """
    names = list(names)
    columns = [column for column in names if column in {*STORY_FIELDS, *sentence_columns(names)}]
    if twice := sorted({column for column in columns if columns.count(column) > 1}):
        raise BadRecord(name, None, f"the column {twice[0]!r} occurs twice; rename or remove one of them")
    if set(columns).difference({"storyid", "storytitle", "labels", "orig_sents"}):
        return columns
    if set(CLOZE_SENTENCES) <= set(map(plain_name, names)):
        return [column for column in names if plain_name(column) in {*CLOZE_COLUMNS, "inputstoryid"}]
    text = text_column(names)
    if text is None or not prose:
        raise BadRecord(name, None, f"column {_no_sentences(names)}")
    return [*(column for column in columns if column in ("storyid", "storytitle")), text]


def text_column(names: Iterable[str]) -> str | None:
    """The column of prose among `names`, if any."""
    present = set(names)
    return next((name for name in TEXT_COLUMNS if name in present), None)


def _no_sentences(names: Iterable[str]) -> str:
    """What is missing and why, to put after `column`."""
    names = list(map(str, names))
    found = f"'sentences' is missing (found: {', '.join(names) or 'nothing'})"
    text = text_column(names)
    return found + (similar_column("sentences", names) if text is None else hint_at_splitting(text))


def hint_at_splitting(column: str) -> str:
    """A hint for the message that sentences are missing where there is a column of prose."""
    return f"; to split '{column}' into sentences, add --split_sentences LANG, in Python split_sentences=LANG"


def without_blank_end(cells: Sequence[Any]) -> list[Any]:
    """The cells up to the last that is not empty, null or NaN: the stories of a table may differ in length."""
    cells = list(cells)
    while cells and _is_empty(cells[-1]):
        cells.pop()
    return cells


def _is_empty(cell: Any) -> bool:
    return is_blank(cell) if isinstance(cell, str) else cell is None or (isinstance(cell, float) and isnan(cell))


def similar_column(missing: str, names: Iterable[str]) -> str:
    """A hint for the message that a column is missing; empty if no name is similar."""
    close = difflib.get_close_matches(missing, list(names), n=1, cutoff=0.7)
    return f"; is {close[0]!r} meant to be {missing!r}?" if close else ""


def story_from_record(
    record: Mapping[str, Any],
    *,
    file: str,
    row: int,
    as_given: bool = False,
    splitter: Splitter | None = None,
    group_by: str | None = None,
) -> Story:
    """Read one record as a story.

    The sentences are in one of:

    - `sentences`, in true order; or shuffled, with `labels[i]` the original index of the i-th sentence;
    - ReBART's `shuf_sents`, shuffled, and `orig_sents`: `orig_sents[k]` is the index in `shuf_sents` of the
      k-th sentence of the true order, as a string. It is the inverse permutation of `labels`
      (Basu Roy Chowdhury et al. 2021, https://aclanthology.org/2021.emnlp-main.841);
    - the columns `sentence1`, `sentence2`, …, in true order;
    - the columns of a Story Cloze test (Mostafazadeh et al. 2016): `InputSentence1` … `InputSentence4`, followed by the
      right one of `RandomFifthSentenceQuiz1` and `RandomFifthSentenceQuiz2`;
    - one of `TEXT_COLUMNS`, if there is a splitter.

    Args:
        record: fields by name; `storyid` and `storytitle` may be missing.
        file: name of the file, for messages and for the id of a story that has none.
        row: 1-based row, for the same.
        as_given: keep the sentences in their order in the record, whatever `labels` say, and accept one or none.
            `first`, `last` and `before` become `Story.fixed_points`.
        splitter: splits prose into sentences.
        group_by: column of `Story.group`.

    Raises:
        BadRecord: sentences are missing, empty, not text or contain a NUL; or, unless `as_given`, there are none or
            the labels are not a permutation of them; or there is no column `group_by`.
        SingleSentence: there is one, unless `as_given`.
    """
    try:
        if not any(name in record for name in ("sentences", "shuf_sents", "sentence1")):
            record = _with_right_ending(record)
        sentences = _sentences(record, splitter)
        if not sentences and not as_given:
            raise UserError("0 sentences, where an order needs at least two")
        if len(sentences) > 1 and not as_given:
            sentences = _in_true_order(record, sentences)
        group = "" if group_by is None else _group(record, group_by)
    except ValueError as error:
        raise BadRecord(file, row, str(error)) from None
    storyid, title = record.get("storyid"), record.get("storytitle")
    story = Story(
        sentences=tuple(sentences),
        storyid=f"{_stem(file)}-{row}" if storyid in (None, "") else str(storyid),
        title="" if title is None else str(title),
        file=file,
        row=row,
        fixed_points={name: record[name] for name in FIXED_POINTS if as_given and record.get(name) is not None},
        group=group,
    )
    if len(sentences) == 1 and not as_given:
        raise SingleSentence(file, row, "1 sentence, where an order needs at least two", story)
    return story


def _group(record: Mapping[str, Any], group_by: str) -> str:
    """The value of a column, which in a table is named by its plain name."""
    for name in (group_by, plain_name(group_by)):
        if name in record:
            return "" if _is_empty(record[name]) else str(record[name])
    raise UserError(f"column '{group_by}' is missing{similar_column(group_by, record)}")


@lru_cache
def _stem(file: str) -> str:
    return PurePath(split_compression(file)[0]).stem


def _sentences(record: Mapping[str, Any], splitter: Splitter | None) -> list[str]:
    column = next((name for name in ("sentences", "shuf_sents") if name in record), None)
    if column is not None:
        values = record[column]
        if not isinstance(values, (list, tuple)):
            raise UserError(f"'{column}' is not a list of sentences")
        names = [f"sentence {number}" for number in range(1, len(values) + 1)]
    elif columns := sentence_columns(record):
        values = without_blank_end([record[name] for name in columns])
        names = [f"sentence{number}" for number in range(1, len(values) + 1)]
        if missing := [name for name in names if name not in record]:
            raise UserError(f"column {missing[0]!r} is missing")
    else:
        values = _split_text(record, splitter)
        names = [f"sentence {number}" for number in range(1, len(values) + 1)]
    for name, sentence in zip(names, values, strict=True):
        _check_sentence(name, sentence)
    return list(values)


def _with_right_ending(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record of a Story Cloze test as one with the columns `sentence1` … `sentence5`; any other unchanged."""
    cells = {plain_name(str(name)): value for name, value in record.items()}
    if not set(CLOZE_SENTENCES) <= set(cells):
        return record
    right = _CLOZE_ENDINGS.get(str(cells.get("answerrightending")).strip(), "")
    if right not in cells:
        raise UserError("'AnswerRightEnding' is neither 1 nor 2: tests without the right ending cannot be used")
    story = [cells[name] for name in (*CLOZE_SENTENCES, right)]
    return {"storyid": cells.get("inputstoryid"), **dict(zip(ROC_SENTENCES, story, strict=True))}


def _split_text(record: Mapping[str, Any], splitter: Splitter | None) -> list[str]:
    column = text_column(record)
    if splitter is None or column is None:
        raise UserError(_no_sentences(record))
    _check_sentence(column, record[column])
    return splitter(record[column])


def _check_sentence(name: str, sentence: Any) -> None:
    if not isinstance(sentence, str):
        raise UserError(f"{name} is not text")
    if is_blank(sentence):
        raise UserError(f"{name} is empty")
    if "\0" in sentence:
        raise UserError(f"{name} contains a NUL character: the file is binary, or text in UTF-16")
    try:
        sentence.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{name} contains half of a surrogate pair, which is not a character") from None


def _in_true_order(record: Mapping[str, Any], shown: list[str]) -> list[str]:
    if "sentences" in record:
        if record.get("labels") is None:
            return shown
        labels = _permutation("labels", record["labels"], len(shown))
        return [sentence for _, sentence in sorted(zip(labels, shown, strict=True))]
    if "shuf_sents" in record:
        if record.get("orig_sents") is None:
            raise UserError("'orig_sents' is missing, which 'shuf_sents' needs")
        return [shown[index] for index in _permutation("orig_sents", record["orig_sents"], len(shown))]
    return shown


def _permutation(name: str, values: Sequence[Any], length: int) -> list[int]:
    try:
        numbers = [int(value) for value in values if isinstance(value, (int, str)) and not isinstance(value, bool)]
    except (TypeError, ValueError):
        numbers = []
    if sorted(numbers) != list(range(length)) or len(numbers) != len(values):
        raise UserError(f"'{name}' is not a permutation of 0 … {length - 1}")
    return numbers
