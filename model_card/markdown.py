"""Markdown for GitHub and the Hub."""

from __future__ import annotations

import re
from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is aligned left, the others right. Cells are Markdown without line ends."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_text(words: str) -> str:
    """Escapes a text and puts it on one line, so that nothing in it is markup or a link.

    Bare URLs, e-mail addresses and user names become links without markup and cannot be escaped: an empty comment
    inside them prevents that.
    """
    escaped = re.sub(r"([\\`*_\[\]<>#|~$&])", r"\\\1", " ".join(words.split()))
    return re.sub(r"(https?:|ftp:|mailto:|xmpp:|www(?=\.)|@)(?=\S)", r"\1<!-- -->", escaped, flags=re.IGNORECASE)


def fenced(code: str, language: str) -> str:
    """A code block, with a fence longer than any in the code."""
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code.rstrip()}\n{fence}"


def number(value: float) -> str:
    """Three decimals, without a minus sign before zero."""
    return f"{round(value, 3) + 0.0:.3f}"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b` or `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
