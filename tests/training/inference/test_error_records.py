"""What is said of a record that cannot be ordered."""

from __future__ import annotations

from training.inference.answers import record
from training.inference.ordering import OrderedStory


def test_a_long_value_is_not_repeated() -> None:
    assert record(OrderedStory(None, error="a.jsonl, row 1: no labels"))["error"] == "a.jsonl, row 1: no labels"
    assert len(record(OrderedStory(None, error=f"a.jsonl, row 1: first is {'9' * 5000}"))["error"]) < 300
