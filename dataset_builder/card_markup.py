"""What whoever builds a data set does with its card: how words are shown, what stands around it, how it is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .file_writing import write_text


def _one_cell(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")


@dataclass(frozen=True)
class CardMarkup:
    """Handed in from above, since this package knows nothing of model cards, nor of what is kept when one is renewed.

    Attributes:
        as_text: somebody's words to Markdown on one line, in which nothing of them is markup.
        before, behind: paragraphs around the part of the card that is made anew each time.
        write: writes the card to a path.
    """

    as_text: Callable[[str], str] = _one_cell
    before: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    write: Callable[[Path, str], object] = write_text
