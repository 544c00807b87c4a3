"""The readers of text formats under atheris, which looks for inputs that reach new code.

`pip install atheris`, then `python -m tests.hostile.fuzz_readers -runs=50000` (and any other flag of libFuzzer). What
it finds becomes an `@example` in `test_fuzz.py`.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["dataset_builder"]):
    import io

    from dataset_builder import read_stories

_FORMATS = ("csv", "tsv", "jsonl", "text")


def try_one(data: bytes) -> None:
    """The first byte chooses format and mode, the rest is the file."""
    if not data:
        return
    as_given, file_format, data = bool(data[0] & 4), _FORMATS[data[0] & 3], data[1:]
    read = read_stories(io.BytesIO(data), file_format=file_format, as_given=as_given, on_error=lambda _: None)
    for story in read:
        for sentence in story.sentences:
            assert sentence.strip() and "\0" not in sentence
            assert file_format not in ("text", "tsv") or sentence.encode() in data


if __name__ == "__main__":
    atheris.Setup(sys.argv, try_one)
    atheris.Fuzz()
