"""Splits prose into sentences, by sentencex: rules and lists of abbreviations, no model, nothing to download."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from .errors import UserError
from .story import is_blank

# sentencex takes any name for a language and splits by general rules, so a misspelt one would go unnoticed.
LANGUAGES = (
    "am ar bg bn ca cs da de el en es fa fi fr gu he hi hu hy id it ja kk kn ko ml mr my nb nl pa pl pt ro ru sk sv ta "
    "te tr uk vi zh"
)


@dataclass(frozen=True)
class SentenceSplitter:
    """Splits texts of one language; equal splitters give equal sentences, and can be sent to other processes.

    Args:
        language: one of `LANGUAGES`.

    Raises:
        UserError: the language is unknown, or sentencex is not installed.
    """

    language: str

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES.split():
            raise UserError(f"unknown language {self.language!r}; choose from {LANGUAGES}")
        _sentencex()

    def __call__(self, text: str) -> list[str]:
        """The sentences of a text, in which any white space, line ends included, is a space."""
        parts = _sentencex().segment(self.language, " ".join(text.split()))
        return [part.strip() for part in parts if not is_blank(part)]

    @property
    def key(self) -> tuple[str, str]:
        """What the sentences of a text depend on."""
        return self.language, version("sentencex")


def _sentencex() -> Any:
    try:
        import sentencex
    except ImportError:
        raise UserError("splitting sentences needs sentencex: pip install 'sentence-ordering[split]'") from None
    return sentencex


def splitter_of(language: str | None) -> SentenceSplitter | None:
    """A splitter, or None without a language."""
    return None if language is None else SentenceSplitter(language)
