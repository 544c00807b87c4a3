"""The picture of a story being put in order: what stands in it, and where."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_card.story_picture import draw_story, story_svg

SVG = "{http://www.w3.org/2000/svg}"
STORY = [
    "He ate it & smiled.",
    "Tom <baked> a cake.",
    "A sentence of so many words that one line does not hold it " * 2,
]


def words(svg: str) -> list[tuple[float, float, str]]:
    """Left, top and text of each line."""
    root = ElementTree.fromstring(svg)
    return [(float(text.attrib["x"]), float(text.attrib["y"]), str(text.text)) for text in root.iter(f"{SVG}text")]


def test_both_columns_hold_the_sentences_in_their_orders() -> None:
    drawn = words(story_svg(STORY, [1, 0, 2], [0.9, 0.5], "A & B"))
    middle = 480
    for order, column in (
        ([0, 1, 2], [text for x, _, text in sorted(drawn, key=lambda line: line[1]) if x < middle]),
        ([1, 0, 2], [text for x, _, text in sorted(drawn, key=lambda line: line[1]) if x > middle]),
    ):
        said = " ".join(column)
        starts = [said.index(STORY[index][:19]) for index in order]
        assert starts == sorted(starts)
        assert "so many words that one line does not hold it" in said
    assert [text for _, _, text in drawn if "%" in text] == ["90%", "50% ?"]
    assert drawn[0][2] == "A & B"


def test_nothing_overlaps_and_all_is_inside() -> None:
    root = ElementTree.fromstring(story_svg(STORY, [2, 1, 0]))
    frame, *boxes = ({key: float(box.attrib[key]) for key in ("x", "y", "width", "height")}
                     for box in root.iter(f"{SVG}rect"))  # fmt: skip
    for column in {box["x"] for box in boxes}:
        edges = [(box["y"], box["y"] + box["height"]) for box in boxes if box["x"] == column]
        ends = [edge for pair in sorted(edges) for edge in pair]
        assert len(edges) == 3 and ends == sorted(ends) and ends[0] > 0
        assert ends[-1] < frame["y"] + frame["height"]
    assert len(list(root.iter(f"{SVG}path"))) == 3


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])), min_size=1, max_size=12))
def test_whatever_the_sentences_are_it_is_xml_and_the_same_each_time(sentences: list[str]) -> None:
    sentences = [sentence.replace("\ufffe", "").replace("\uffff", "") for sentence in sentences]
    order = list(range(len(sentences)))[::-1]
    assert story_svg(sentences, order) == story_svg(sentences, order)
    ElementTree.fromstring(story_svg(sentences, order, title=sentences[0]))


@pytest.mark.parametrize(("sentences", "order"), [([], []), (["a", "b"], [0, 0]), (["a"], [1]), (["a", "b"], [0])])
def test_an_order_that_is_none_is_refused(sentences: list[str], order: list[int]) -> None:
    with pytest.raises(ValueError, match="each of the indices 0 to"):
        story_svg(sentences, order)


def test_no_half_picture_is_left(tmp_path: Path) -> None:
    draw_story(tmp_path / "story.svg", STORY, [1, 0, 2])
    assert (tmp_path / "story.svg").read_text(encoding="utf-8") == story_svg(STORY, [1, 0, 2])
    with pytest.raises(ValueError):
        draw_story(tmp_path / "story.svg", STORY, [])
    assert [path.name for path in tmp_path.iterdir()] == ["story.svg"]
