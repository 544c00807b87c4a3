"""Renewing a card: section and results are replaced, and what a person wrote is kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from hypothesis import example, given
from hypothesis import strategies as st

from model_card.renewal import BEGIN, END, RUN_KEYS, renewed_card, write_card

METADATA: dict[str, Any] = {
    "license": "unknown",
    "tags": ["sentence-ordering"],
    "base_model": "org/encoder",
    "model-index": [{"name": "m", "results": [{"metrics": [{"type": "pmr", "value": 0.25}]}]}],
}


def generated(section: str = "tau 0.7", free: str = "# my-model\n\nOrders.\n", **metadata: Any) -> str:
    """A card as a program makes it; a value of None leaves a key out."""
    values = {key: value for key, value in {**METADATA, **metadata}.items() if value is not None}
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---\n\n{free}\n{BEGIN}\n{section}\n{END}\n"


def metadata_of(card: str) -> Any:
    """What the Hub finds there."""
    block = REGEX_YAML_BLOCK.search(card.removeprefix("\ufeff"))
    return yaml.safe_load(block[2])


def text_of(card: str) -> str:
    """What stands behind the metadata."""
    return card.replace("\r\n", "\n").split("---\n", 2)[2]


FRESH = renewed_card(None, generated())


def test_a_new_card_is_the_generated_one() -> None:
    assert metadata_of(FRESH) == METADATA
    assert text_of(FRESH).startswith("\n# my-model\n\nOrders.\n")
    assert "\ntau 0.7\n" in FRESH
    assert renewed_card(" \n", generated()) == FRESH


def test_what_a_person_wrote_outside_of_the_section_stays_and_the_section_is_new() -> None:
    mine = FRESH.replace("# my-model\n\nOrders.", "# Märchen\n\nMine.") + "\n## Thanks\n\nTo all.\n"
    card = renewed_card(mine, generated("tau 0.8"))
    assert card == mine.replace("tau 0.7", "tau 0.8")


def test_a_change_inside_of_the_section_is_replaced() -> None:
    assert renewed_card(FRESH.replace("tau 0.7", "tau 1.0, honestly"), generated()) == FRESH


def test_a_card_without_markers_keeps_its_text_and_its_metadata_are_completed() -> None:
    card = renewed_card("---\nlicense: mit\n---\n# Mine\n\nAll of it.\n", generated())
    assert text_of(card) == "# Mine\n\nAll of it.\n"
    assert metadata_of(card) == {**METADATA, "license": "mit"}


def test_a_card_without_metadata_gets_them() -> None:
    assert metadata_of(renewed_card("Mine.", generated())) == METADATA
    assert renewed_card("Mine.", generated()).endswith("---\nMine.")
    assert renewed_card("---\n---\nMine.", generated()).endswith("---\nMine.")


def test_what_was_generated_follows_and_what_a_person_set_stays() -> None:
    """Even a key that is no longer generated goes, where nobody has touched it: the encoder is another one now."""
    new = generated(license="apache-2.0", base_model=None, language="en")
    assert metadata_of(renewed_card(FRESH, new)) == {
        key: value for key, value in {**METADATA, "license": "apache-2.0", "language": "en"}.items()
        if key != "base_model"
    }  # fmt: skip
    mine = FRESH.replace("license: unknown", "license: mit\ndoi: 10.1/x").replace("org/encoder", "org/other")
    card = metadata_of(renewed_card(mine, new))
    assert (card["license"], card["doi"], card["base_model"]) == ("mit", "10.1/x", "org/other")


@pytest.mark.parametrize("key", sorted(RUN_KEYS))
def test_results_are_the_new_ones_whoever_wrote_the_old(key: str) -> None:
    assert metadata_of(renewed_card(f"---\n{key}: mine\n---\n", generated(**dict([(key, "new")]))))[key] == "new"


def test_tags_of_both_are_joined() -> None:
    mine = FRESH.replace("- sentence-ordering", "- stories")
    assert metadata_of(renewed_card(mine, generated()))["tags"] == ["stories", "sentence-ordering"]
    new = generated(tags=["sentence-ordering", "cnn"])
    assert metadata_of(renewed_card(FRESH, new))["tags"] == ["sentence-ordering", "cnn"]


def test_a_removed_key_takes_its_line_and_leaves_comment_lines() -> None:
    for comment in ("", "# BERT\n"):
        mine = FRESH.replace("base_model: org/encoder\n", f"base_model: org/encoder\n{comment}")
        card = renewed_card(mine, generated(base_model=None))
        assert f"\n- sentence-ordering\n{comment}model-index:" in card


def test_comments_and_order_in_the_metadata_stay() -> None:
    mine = (
        "---\n# legal says so\nlicense: mit   # since May\nbase_model: org/old\n# pretrained\n\n"
        "model-index:\n- name: m\n  results: []\n# thanks\nthanks: all\n---\nText.\n"
    )
    lines = renewed_card(mine, generated()).splitlines()
    kept = ["# legal says so", "license: mit   # since May", "base_model: org/encoder", "# pretrained", "# thanks"]
    assert [line for line in lines if line in kept] == kept
    assert lines[lines.index("# thanks") + 1] == "thanks: all"


@pytest.mark.parametrize(
    "mine",
    [
        "---\nlicense: [\n---\nMine.\n",
        "---\nA heading\n---\nMine.\n",
        "--- \nlicense: mit\n---\nMine.\n",
        "---\nlicense: mit\nMine.\n",
        "---\nwhen: 2024-99-99\n---\nMine.\n",
        "Mine.\n\n---\n\nlicense: mine\n\n---\nStill mine.\n",
    ],
)
def test_metadata_that_are_none_stay_as_text(mine: str) -> None:
    card = renewed_card(mine, generated())
    assert card.endswith(f"---\n{mine}")
    assert metadata_of(card) == METADATA
    assert renewed_card(card, generated()) == card


@pytest.mark.parametrize(
    "block", ["{license: mit, doi: x}", " license: mit\n doi: x", "license: &a mit\ndoi: x\nb: *a"]
)
def test_metadata_in_another_way_of_writing_yaml(block: str) -> None:
    found = metadata_of(renewed_card(f"---\n# note\n{block}\n---\nMine.\n", generated()))
    assert {**found, **METADATA, "license": "mit", "doi": "x"} == found


@pytest.mark.parametrize("marker", [BEGIN, END])
def test_a_card_with_only_one_marker_keeps_its_text(marker: str, tmp_path: Path) -> None:
    """It is not known where the section ends, and `write_card` tells the caller."""
    mine = FRESH.replace(next(line for line in FRESH.splitlines() if line.startswith(marker[:-4])) + "\n", "")
    assert text_of(renewed_card(mine, generated("tau 0.8"))) == text_of(mine)
    (tmp_path / "README.md").write_text(mine)
    assert write_card(tmp_path / "README.md", generated("tau 0.8")) is False


def test_a_marker_inside_of_a_line_is_text() -> None:
    mine = f"---\na: b\n---\nRemove `{BEGIN}` and `{END}` to keep all.\n"
    assert text_of(renewed_card(mine, generated())) == text_of(mine)


def test_line_ends_of_windows_stay() -> None:
    mine = FRESH.replace("Orders.", "Mine.").replace("license: unknown", "license: mit").replace("\n", "\r\n")
    card = renewed_card(mine, generated("tau 0.8\ntau 0.9"))
    assert card == mine.replace("tau 0.7", "tau 0.8\r\ntau 0.9")


def test_a_byte_order_mark_stays_in_front() -> None:
    card = renewed_card("\ufeff---\nlicense: mit\n---\nMine.\n", generated())
    assert card.startswith("\ufeff---\nlicense: mit\n") and card.count("\ufeff") == 1


def test_what_is_no_generated_card_is_an_error_of_the_program() -> None:
    for wrong in ("# no metadata", FRESH.replace(END, "")):
        with pytest.raises(ValueError, match="generated card"):
            renewed_card(None, wrong)


# Text with all that matters to the reading of a card, and anything else.
PIECES = st.one_of(
    st.sampled_from([
        "---", "---\n", "\n", "\r\n", "\r", "\ufeff", BEGIN, END, f"{BEGIN}\n", f"\n{END}\n", "license: mit\n",
        "license:\n", "tags: [a]\n", "tags:\n- a\n", "model-index:\n- name: x\n\n# c\n", "base_model: |\n  x\n\n",
        "...\n", "base_model: &a x\n",
        "doi: *a\n", "# note\n", "metrics: {a: 1,\n b: 2}\n", "{", "datasets: 'x\n  y'\n", ".nan",
    ]),
    st.text(max_size=12),
)  # fmt: skip
CARDS = st.one_of(
    st.lists(PIECES, max_size=12).map("".join),
    st.tuples(st.lists(PIECES, max_size=8).map("".join), st.lists(PIECES, max_size=8).map("".join)).map(
        lambda parts: f"---\n{parts[0]}\n---\n{parts[1]}"
    ),
)
LINES = st.text(st.characters(exclude_characters="<\r", exclude_categories=["Cs"]), max_size=40)


@given(CARDS)
@example(f"{END}\n{BEGIN}")
@example("---\n\r\r\n\n---\n")
@example("---\n---\r---\n---\n")
def test_any_card_can_be_renewed_and_renewing_it_twice_changes_nothing(mine: str) -> None:
    card = renewed_card(mine, generated())
    assert renewed_card(card, generated()) == card
    found = metadata_of(card)
    assert {key: found[key] for key in ("base_model", "model-index")} == {
        key: METADATA[key] for key in ("base_model", "model-index")
    }


@given(LINES, LINES, LINES)
def test_every_word_around_the_section_is_kept_to_the_letter(before: str, inside: str, behind: str) -> None:
    mine = f"---\nlicense: mit\n---\n{before}\n{BEGIN}\n{inside}\n{END}\n{behind}"
    card = renewed_card(mine, generated())
    head, section, tail = card.split("---\n", 2)[2].partition("tau 0.7")
    assert head.startswith(f"{before}\n<!--") and tail == f"\n{END}\n{behind}"
    assert (head + section).count("<!--") == 1


@given(LINES.filter(lambda text: not text.lstrip().startswith("---")))
def test_text_without_markers_is_kept_to_the_letter(mine: str) -> None:
    card = renewed_card(mine, generated())
    assert card.endswith(mine if mine.strip("\ufeff \t\n") else f"{END}\n")


KEYS = st.text("abcdefghij-_", min_size=3, max_size=9).filter(lambda key: key not in {*RUN_KEYS, *METADATA})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | LINES | st.dates(),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(KEYS, some, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=4), st.booleans())
def test_every_key_that_a_person_added_keeps_its_value(added: dict[str, Any], flow: bool) -> None:
    block = yaml.safe_dump({"base_model": "org/old", **added}, default_flow_style=flow, allow_unicode=True)
    card = renewed_card(f"---\n{block}---\n", generated())
    found = yaml.safe_load(card[4 : card.index("\n---\n") + 1])
    assert found["base_model"] == "org/encoder"
    assert {key: repr(found[key]) for key in added} == {
        key: repr(value) for key, value in yaml.safe_load(block).items() if key in added
    }


def test_the_file_is_renewed_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    write_card(path, generated())
    path.write_bytes(path.read_bytes().replace(b"Orders.", b"Gr\xfc\xdfe.\r\nMine.") + b"\xff\r\n")
    mine = path.read_bytes()
    write_card(path, generated("tau 0.8"))
    assert b"Gr\xfc\xdfe.\r\nMine." in path.read_bytes() and path.read_bytes().endswith(b"\xff\r\n")
    assert b"tau 0.8" in path.read_bytes() and b"tau 0.7" in mine
    assert os.listdir(tmp_path) == ["README.md"]


def test_a_card_that_cannot_be_made_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("Mine.")
    with pytest.raises(ValueError):
        write_card(tmp_path / "README.md", "# no card")
    assert (tmp_path / "README.md").read_text() == "Mine." and os.listdir(tmp_path) == ["README.md"]
