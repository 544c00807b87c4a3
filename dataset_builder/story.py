"""A story, what identifies its text, and the error that a bad record is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .errors import UserError


@dataclass(frozen=True, slots=True)
class Story:
    """An ordered list of sentences, and where it came from.

    Attributes:
        sentences: in true order; in the order of the file where it was read `as_given`.
        storyid: the file's own id, or `<file stem>-<row>` where it has none.
        title: the file's title, or an empty string.
        file: name of the file, as it was given.
        row: 1-based number of the physical line on which the record starts; in Parquet, of the row.
        fixed_points: what a record of JSON Lines that is to be put in order says of its order already (`first`, `last`,
            `before`), unchecked; empty where stories are read in true order.
    """

    sentences: tuple[str, ...]
    storyid: str
    title: str = ""
    file: str = ""
    row: int = 0
    fixed_points: dict[str, Any] = field(default_factory=dict, hash=False)


class BadRecord(UserError):
    """A record that cannot be read as a story.

    Attributes:
        file: name of the file.
        row: 1-based line (in Parquet: row) where the record starts, or None if the whole file is meant.
        reason: what is wrong, in words.
    """

    def __init__(self, file: str, row: int | None, reason: str) -> None:
        super().__init__(file, row, reason)
        self.file = file
        self.row = row
        self.reason = " ".join(reason.split())

    def __str__(self) -> str:
        place = self.file if self.row is None else f"{self.file}, row {self.row}"
        return f"{place}: {self.reason}"


class SingleSentence(BadRecord):
    """A record of one sentence, which has no order to learn. Where stories are loaded, it is skipped and counted.

    Attributes:
        story: what was read.
    """

    def __init__(self, file: str, row: int | None, reason: str, story: Story | None = None) -> None:
        super().__init__(file, row, reason)
        self.story = story


def story_hash(sentences: Iterable[str]) -> str:
    """A hash of the text of a story: 32 hexadecimal digits, the same on every machine and in every process.

    It depends neither on the order of the sentences nor on the white space around them, so that a story is
    recognised in any shuffle. The length before each sentence keeps `["ab", "c"]` apart from `["a", "bc"]`.
    """
    digest = hashlib.sha256()
    for sentence in sorted(sentence.strip().encode("utf-8") for sentence in sentences):
        digest.update(b"%d:" % len(sentence))
        digest.update(sentence)
    return digest.hexdigest()[:32]
