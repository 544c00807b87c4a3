"""YAML from untrusted sources within bounds: with anchors, a few lines can expand to gigabytes.

Every package may import this module, and it imports none of them.
"""

from __future__ import annotations

from typing import Any

import yaml

LONGEST_TEXT = 2**20
"""Maximum number of characters of a text."""
LONGEST_NUMBER = 1000
"""Maximum number of characters of a number: the time to parse one such as 1:59:59:… grows with its square."""
MOST_VALUES = 100_000
"""Maximum number of values; values repeated by an alias count each time."""


def read_yaml(text: str) -> Any:
    """The value of a text.

    Raises:
        yaml.YAMLError: it is not YAML, is too long, is nested too deeply, has too long a number, or expands to too many
            values.
    """
    if len(text) > LONGEST_TEXT:
        raise yaml.YAMLError(f"the text has {len(text):,} characters; at most {LONGEST_TEXT:,} are read")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and _values(node, {}) > MOST_VALUES:
            raise yaml.YAMLError(f"its aliases expand to more than {MOST_VALUES:,} values")
        return yaml.safe_load(text)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply, or an alias contains itself") from None


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    if id(node) not in known:
        if node.tag.endswith((":int", ":float")) and len(node.value) > LONGEST_NUMBER:
            raise yaml.YAMLError(f"a number has more than {LONGEST_NUMBER:,} characters")
        parts: list[yaml.Node] = []
        size = 1 + len(node.value) // 64 if isinstance(node, yaml.ScalarNode) else 1  # a long text counts as several
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[id(node)] = size + sum(_values(part, known) for part in parts)
    return known[id(node)]
