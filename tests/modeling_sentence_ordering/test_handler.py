"""The limits of a request to an Inference Endpoint; what it answers is in tests/training/inference/test_endpoint.py."""

from __future__ import annotations

from typing import Any

import pytest

from modeling_sentence_ordering import handler

SETTINGS = {"SENTENCES": 6, "BYTES": 100, "PAIRS": 2, "PERMUTATIONS": 3, "BATCH_SIZE": 4}
STORY = ["It rained.", "She stayed dry."]


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> handler.EndpointHandler:
    """One with narrow limits, whose pipeline says what it was asked."""
    monkeypatch.setattr(handler, "pipeline", lambda *_, **__: lambda inputs, **parameters: [inputs, parameters])
    for name, value in SETTINGS.items():
        monkeypatch.setenv(f"SENTENCE_ORDERING_MAX_{name}", str(value))
    return handler.EndpointHandler("folder")


@pytest.mark.parametrize(
    ("inputs", "parameters", "exceeded"),
    [
        (["a"] * 6, {}, None),
        (["a"] * 7, {}, "SENTENCES"),
        ([["a"] * 4, ["b"] * 3], {}, "SENTENCES"),
        ([{"sentences": ["a"] * 4}, {"sentences": ("b",) * 3}], {}, "SENTENCES"),
        ({"sentences": ["a"] * 7}, {}, "SENTENCES"),
        (["a" * 99, "b"], {}, None),
        (["\u00e4" * 50, "b"], {}, "BYTES"),
        ([[["a" * 101]]], {}, "BYTES"),
        ({"sentences": STORY, "before": [[0, 1]] * 2}, {}, None),
        ({"sentences": STORY, "before": [[0, 1]] * 3}, {}, "PAIRS"),
        ([{"sentences": STORY, "before": [[0, 1]] * 2}] * 2, {}, "PAIRS"),
        (STORY, {"before": [[0, 1]] * 3}, "PAIRS"),
        (["a"], {"pairwise": True}, None),
        (STORY, {"pairwise": True}, "PAIRS"),
        ([{"sentences": STORY}], {"pairwise": True}, "PAIRS"),
        (STORY, {"num_permutations": 3, "batch_size": 4}, None),
        (STORY, {"num_permutations": 4}, "PERMUTATIONS"),
        (STORY, {"batch_size": 10**9}, "BATCH_SIZE"),
        (["a"] * 4, {"num_permutations": 2}, "SENTENCES"),
        ([[]] * 7, {}, "SENTENCES"),
        ([{"sentences": []}] * 7, {}, "SENTENCES"),
    ],
)
def test_a_request_beyond_a_limit_is_refused(
    inputs: Any, parameters: dict[str, Any], exceeded: str | None, endpoint: handler.EndpointHandler
) -> None:
    answer = endpoint({"inputs": inputs, "parameters": parameters})
    if exceeded is None:
        assert answer == [inputs, parameters]
    else:
        assert f"SENTENCE_ORDERING_MAX_{exceeded}" in answer["error"]
        assert f"at most {SETTINGS[exceeded]}" in answer["error"]


def test_a_long_value_is_not_sent_back(endpoint: handler.EndpointHandler) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise ValueError("x" * 5000)

    endpoint.order = refuses
    assert len(endpoint({"inputs": STORY})["error"]) < 600


def test_each_limit_is_documented_with_its_default() -> None:
    assert set(handler.LIMITS) == set(SETTINGS)
    for name, value in handler.LIMITS.items():
        assert f"| `SENTENCE_ORDERING_MAX_{name}` |" in (handler.__doc__ or "") and f"| {value:,} |" in handler.__doc__


def test_a_limit_that_is_not_a_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTENCE_ORDERING_MAX_BYTES", "4 MB")
    with pytest.raises(ValueError, match="SENTENCE_ORDERING_MAX_BYTES must be a whole number"):
        handler.EndpointHandler("folder")
