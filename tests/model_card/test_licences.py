"""Ids of licences."""

from __future__ import annotations

import pytest

from model_card.licences import LICENCES, check_licence
from tests.hub_server.cards import LICENSES


def test_every_licence_that_the_tests_hub_accepts_is_known() -> None:
    assert set(LICENSES.split()) <= LICENCES
    assert {"apache-2.0", "cc-by-4.0", "unknown", "other"} <= LICENCES


@pytest.mark.parametrize("licence", ["mit", "cc-by-nc-sa-4.0", "unknown"])
def test_a_licence_that_the_hub_knows_is_fine(licence: str) -> None:
    check_licence("--license", licence)


@pytest.mark.parametrize(
    ("licence", "near"),
    [
        ("MIT", "did you mean mit?"),
        ("CC-BY-4.0", "did you mean cc-by-4.0?"),
        ("apache", "apache-2.0?"),
        ("", "apache-2.0, mit"),
    ],
)
def test_another_is_refused_with_the_nearest_name(licence: str, near: str) -> None:
    with pytest.raises(ValueError, match="unknown licence") as error:
        check_licence("--license", licence)
    assert near in str(error.value) and str(error.value).startswith(f"--license {licence}:")
