"""Formats with a record in each line or block of lines: decoding to lines, JSON Lines and text.

A reader yields `(row, fields)` pairs, one record at a time. It never raises for bad content: it yields a `BadRecord`
in place of the record, so that callers can continue with the next one. Only the line end is removed from a sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import IO, Any

from .story import BadRecord, is_blank

Record = tuple[int, dict[str, Any]]
Records = Iterator[Record | BadRecord]
_CHUNK = 1 << 16  # characters read at once before the kind of line end is known
_MARK = "\ufeff"
_BYTES_END, _TEXT_END = re.compile(rb"\r\n|\r|\n"), re.compile(r"\r\n|\r|\n")

_EOS = re.compile(r"\s*<eos>\s*", re.IGNORECASE)
_SENTENCE_ENDS = tuple(".!?…。！？؟।\"'”’»“‘)]")


class Lines:
    """The lines of an open file, decoded one by one: a byte that is not UTF-8 makes its line bad, not the file.

    Lines end with LF or CR LF. If the first line ends with CR alone, every CR ends a line. A byte-order mark is removed
    from the beginning of any line, because concatenated files have them inside.

    This is not a generator, because a generator ends with the first exception that it raises.

    Args:
        stream: an open file, or a part of one.
        file: its name, for messages.
        before: number of lines and bytes before the stream, if it is a part.
    """

    def __init__(self, stream: IO[Any], file: str, *, before: tuple[int, int] = (0, 0)) -> None:
        self.file = file
        self.number, self._offset = before
        self._stream = stream
        self._pending: Any = None  # read beyond the last line
        self._cr_ends: bool | None = None  # unknown before the first line end

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = self._read_line()
        if not line:
            raise StopIteration
        self.number += 1
        start, self._offset = self._offset, self._offset + len(line)
        if isinstance(line, bytes):
            try:
                line = line.decode("utf-8")
            except UnicodeDecodeError as error:
                reason = f"not UTF-8: byte 0x{line[error.start]:02x} at offset {start + error.start} of the file"
                raise BadRecord(self.file, self.number, f"{reason}; save the file as UTF-8") from None
        return str(line).removeprefix(_MARK)

    def without_ends(self) -> Iterator[tuple[int, str | BadRecord]]:
        """Row and text of each line without its line end, or the error in its place."""
        while True:
            try:
                line = next(self)
            except StopIteration:
                return
            except BadRecord as error:
                yield self.number, error
                continue
            yield self.number, line.removesuffix("\n").removesuffix("\r")

    def look_ahead(self) -> Lines | None:
        """All lines, to look at before the first is read; None for a stream that cannot be rewound.

        Call `rewind` before reading on.
        """
        return Lines(self._stream, self.file) if self._stream.seekable() else None

    def rewind(self) -> None:
        """Sets the stream back to its beginning, after `look_ahead`."""
        self._stream.seek(0)

    def _read_line(self) -> Any:
        """The next line with its end; empty at the end of the file."""
        pieces: list[Any] = []
        while True:
            text, self._pending = self._pending or self._read(), None
            end = self._end_of_line(text) if text else 0
            if end:
                self._pending = text[end:] or None
                text = text[:end]
            pieces.append(text)
            if end or not text:
                return pieces[0] if len(pieces) == 1 else type(text)().join(pieces)

    def _read(self) -> Any:
        """Up to one LF; never a CR without the character after it, except at the end of the file."""
        if self._cr_ends is False:
            return self._stream.readline()
        text = self._stream.readline(_CHUNK)
        while text[-1:] in (b"\r", "\r") and (more := self._stream.read(1)):
            text += more
        return text

    def _end_of_line(self, text: Any) -> int:
        """Where the first line of the text ends; 0 if it goes on."""
        if self._cr_ends is False:
            return len(text) if text[-1:] in (b"\n", "\n") else 0
        found = (_BYTES_END if isinstance(text, bytes) else _TEXT_END).search(text)
        if found is None:
            return 0
        if self._cr_ends is None:
            self._cr_ends = found.group() in (b"\r", "\r")
            if not self._cr_ends:
                return self._end_of_line(text)
        return int(found.end())


def jsonl_records(lines: Lines) -> Records:
    """JSON Lines: `{"sentences": [...]}`, with `labels` if shuffled, or ReBART's `shuf_sents` and `orig_sents`."""
    for row, line in lines.without_ends():
        if isinstance(line, BadRecord):
            yield line
            continue
        if is_blank(line):
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield BadRecord(lines.file, row, f"not a line of JSON: {error}")
            continue
        if isinstance(record, dict):
            yield row, record
        else:
            yield BadRecord(lines.file, row, 'not a JSON object; {"sentences": [...]} is expected on each line')


def text_records(lines: Lines, *, prose: bool = False) -> Records:
    """Text: a sentence on each line, a blank line between stories. A bad line makes its whole story bad.

    If the first line has several sentences joined with `<eos>`, each line is a story; otherwise `<eos>` is text.

    Args:
        lines: the lines of the file.
        prose: the lines between blank lines are a text to split, yielded as `text`. In a file without blank lines, in
            which each line ends with the end of a sentence, each line is a text.
    """
    block: list[str] = []
    start, broken = 0, False
    joined: bool | None = None
    line_ends_story = prose and _has_text_per_line(lines)
    for row, line in lines.without_ends():
        if isinstance(line, BadRecord):
            yield line
            broken = not line_ends_story
            continue
        if not is_blank(line):
            start = start if block else row
            pieces = _joined_sentences(line)
            if joined is None:
                joined = len(pieces) > 1
                line_ends_story = line_ends_story or joined
                broken = broken and not joined
            block += pieces if joined else [line]
        if is_blank(line) or line_ends_story:
            if block and not broken:
                yield start, _text_record(block, prose and not joined)
            block, broken = [], False
    if block and not broken:
        yield start, _text_record(block, prose and not joined)


def joins_sentences(line: str) -> bool:
    """Whether a line has several sentences joined with `<eos>`."""
    return len(_joined_sentences(line)) > 1


def _joined_sentences(line: str) -> list[str]:
    return [piece for piece in _EOS.split(line) if not is_blank(piece)] if "<" in line else [line]


def _text_record(block: list[str], prose: bool) -> dict[str, Any]:
    return {"text": " ".join(block)} if prose else {"sentences": block}


def _has_text_per_line(lines: Lines) -> bool:
    """Whether no line is blank, except at the end, and each ends with the end of a sentence."""
    ahead = lines.look_ahead()
    if ahead is None:
        return False
    try:
        blank = False
        for _, line in ahead.without_ends():
            if isinstance(line, BadRecord):
                return False
            if (blank and not is_blank(line)) or not (is_blank(line) or line.rstrip().endswith(_SENTENCE_ENDS)):
                return False
            blank = blank or is_blank(line)
        return True
    finally:
        lines.rewind()
