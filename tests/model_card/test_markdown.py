"""Anybody's words in a card mean themselves."""

from __future__ import annotations

import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_card.markdown import as_text, fenced, listed, number, table
from tests.model_card.rendered import html_of

MARKUP = st.sampled_from("\\`*_[]()<>#|~$&!-.:+{}a \n")
WORDS = st.lists(st.one_of(MARKUP, st.characters(codec="utf-8", exclude_characters="\0")), max_size=30).map("".join)


def shown(words: str) -> str:
    return " ".join(words.split())


@given(WORDS, WORDS)
def test_words_in_a_cell_are_shown_as_they_are(one: str, other: str) -> None:
    html = html_of(table(["a", "b"], [[as_text(one), as_text(other)]]))
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html.replace("<!-- -->", ""), re.DOTALL)
    assert [shown(unescape(cell)) for cell in cells] == [shown(one), shown(other)]


@given(WORDS)
def test_words_in_a_heading_are_shown_as_they_are(words: str) -> None:
    assert unescape(html_of(f"# x{as_text(words)}y").replace("<!-- -->", "")) == f"<h1>x{shown(words)}y</h1>\n"


@pytest.mark.parametrize(
    "link",
    ["https://example.com/a_b", "HTTP://EXAMPLE.COM", "ftp://example.com", "www.example.com", "tom@example.com",
     "mailto:tom@example.com", "xmpp:tom@example.com", "see(https://example.com)", "@somebody"],
)  # fmt: skip
def test_bare_addresses_are_no_links(link: str) -> None:
    """GitHub and the Hub look for them in each text between tags, once the Markdown has been read."""
    html = html_of(f"| a |\n| --- |\n| {as_text(f'He wrote {link} down.')} |")
    texts = [unescape(text) for text in re.split(r"<[^>]*>", html)]
    address = re.compile(r"(https?|ftp)://|www\.|(mailto|xmpp):\w|@\w", re.IGNORECASE)
    assert not [text for text in texts if address.search(text)]
    assert link in unescape(re.sub(r"<[^>]*>", "", html))


@pytest.mark.parametrize(("code", "fence"), [("a: 1", "```"), ("a: ```\nb", "````"), ("`````", "``````")])
def test_code_does_not_end_its_block(code: str, fence: str) -> None:
    assert fenced(code, "yaml") == f"{fence}yaml\n{code}\n{fence}"
    assert html_of(fenced(code, "yaml")).count("<pre>") == 1


def test_numbers_and_lists_are_written_as_people_do() -> None:
    values = {0.0: "0.000", -0.0004: "0.000", 1.0: "1.000", -0.5: "-0.500", 2 / 3: "0.667"}
    assert {value: number(value) for value in values} == values
    assert [listed(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
