"""An SVG of a story being ordered, with its own background for light and dark pages."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from xml.sax.saxutils import escape

from dataset_builder.file_writing import write_text

from .plots import COLORS, GRID, INK, QUIET

DOUBTFUL = 0.6  # neighbours with a lower confidence are marked
_WIDTH, _BOX, _GAP, _MARGIN = 960, 380, 14, 24  # pixels
_LETTERS, _LINE = 50, 19  # characters of a line, and its height
_RIGHT = _WIDTH - _MARGIN - _BOX


def story_svg(
    sentences: Sequence[str], order: Sequence[int], confidence: Sequence[float] | None = None, title: str = ""
) -> str:
    """The input sentences on the left, the ordered ones on the right, and curves between them.

    Args:
        sentences: in input order.
        order: the pipeline's `order`: indices of `sentences` in predicted order.
        confidence: the pipeline's `confidence`, shown between neighbours and marked below `DOUBTFUL`.
        title: above the story.

    Raises:
        ValueError: `order` is not a permutation of the sentences, or there are no sentences.
    """
    if not sentences or sorted(order) != list(range(len(sentences))):
        raise ValueError(f"order must have each of the indices 0 to {len(sentences) - 1} once, not {list(order)}")
    lines = [textwrap.wrap(sentence, _LETTERS) or [""] for sentence in sentences]
    top = _MARGIN + (64 if title else 36)
    left = _places(lines, range(len(lines)), top)
    right = _places(lines, order, top)
    height = top + sum(_height(line) + _GAP for line in lines) + _MARGIN - _GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'font-family="Segoe UI, Helvetica, Arial, sans-serif" font-size="14" role="img">',
        f"<title>{escape(title or 'A story put in order')}</title>",
        f'<rect x="1" y="1" width="{_WIDTH - 2}" height="{height - 2}" rx="12" fill="#ffffff" stroke="{GRID}"/>',
    ]
    if title:
        parts.append(_text(_MARGIN, _MARGIN + 12, title, f'font-size="18" font-weight="bold" fill="{INK}"'))
    for x, heading in ((_MARGIN, "shuffled"), (_RIGHT, "put in order")):
        parts.append(_text(x, top - 12, heading, f'fill="{QUIET}"'))
    for place, index in enumerate(order):
        color = COLORS[place % len(COLORS)]
        start, end = (places[index] + _height(lines[index]) / 2 for places in (left, right))
        x1, x2 = _MARGIN + _BOX, _RIGHT
        bend = (x2 - x1) / 2
        parts.append(
            f'<path d="M{x1},{start:g} C{x1 + bend:g},{start:g} {x2 - bend:g},{end:g} {x2},{end:g}" fill="none" '
            f'stroke="{color}" stroke-width="2.5" opacity="0.75"/>'
        )
    for place, index in enumerate(order):
        color = COLORS[place % len(COLORS)]
        parts += _box(_MARGIN, left[index], lines[index], color)
        parts += _box(_RIGHT, right[index], lines[index], color, number=place + 1)
    for index, sure in zip(order, confidence or [], strict=False):
        parts += _doubt(right[index] + _height(lines[index]) + _GAP / 2, sure)
    return "\n".join([*parts, "</svg>\n"])


def draw_story(
    path: str | os.PathLike[str],
    sentences: Sequence[str],
    order: Sequence[int],
    confidence: Sequence[float] | None = None,
    title: str = "",
) -> None:
    """Writes the result of `story_svg` to a file.

    Raises:
        ValueError: see `story_svg`.
    """
    write_text(path, story_svg(sentences, order, confidence, title))


def _places(lines: Sequence[Sequence[str]], order: Sequence[int] | range, top: float) -> dict[int, float]:
    """The upper edge of each sentence's box, by the sentence's index."""
    places = {}
    for index in order:
        places[index] = top
        top += _height(lines[index]) + _GAP
    return places


def _height(lines: Sequence[str]) -> int:
    return 20 + _LINE * len(lines)


def _box(x: float, y: float, lines: Sequence[str], color: str, number: int | None = None) -> list[str]:
    parts = [
        f'<rect x="{x}" y="{y:g}" width="{_BOX}" height="{_height(lines)}" rx="7" fill="#ffffff" stroke="{color}" '
        'stroke-width="2"/>'
    ]
    if number is not None:
        middle = y + _height(lines) / 2
        parts.append(f'<circle cx="{x}" cy="{middle:g}" r="11" fill="{color}"/>')
        parts.append(_text(x, middle + 5, str(number), 'fill="#ffffff" text-anchor="middle" font-weight="bold"'))
    for row, line in enumerate(lines):
        parts.append(_text(x + 18, y + 24 + row * _LINE, line, f'fill="{INK}"'))
    return parts


def _doubt(y: float, sure: float) -> list[str]:
    """The confidence in two neighbours, on the border between them."""
    x, color = _RIGHT + _BOX - 58, COLORS[1] if sure < DOUBTFUL else QUIET
    return [
        f'<rect x="{x - 26}" y="{y - 10:g}" width="52" height="20" rx="10" fill="#ffffff" stroke="{color}"/>',
        _text(
            x,
            y + 4,
            f"{sure:.0%}{' ?' if sure < DOUBTFUL else ''}",
            f'fill="{color}" font-size="12" text-anchor="middle"',
        ),
    ]


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(text)}</text>'
