"""Handler of a Hugging Face Inference Endpoint, which finds it by the name of this file.

Limits keep a request from occupying the endpoint for long. Each is an environment variable of the endpoint:

| variable | limit | default |
|---|---|---|
| `SENTENCE_ORDERING_MAX_SENTENCES` | sentences of all stories, times `num_permutations` | 10,000 |
| `SENTENCE_ORDERING_MAX_BYTES` | bytes of their texts, as UTF-8 | 4,194,304 |
| `SENTENCE_ORDERING_MAX_PAIRS` | pairs in `before` of all stories, and in the answer with `pairwise` | 100,000 |
| `SENTENCE_ORDERING_MAX_PERMUTATIONS` | `num_permutations` | 32 |
| `SENTENCE_ORDERING_MAX_BATCH_SIZE` | `batch_size` | 256 |
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import pipeline

LIMITS = {"SENTENCES": 10_000, "BYTES": 2**22, "PAIRS": 100_000, "PERMUTATIONS": 32, "BATCH_SIZE": 256}

MOST_OF_AN_ERROR = 500
"""Characters of an error message: long values of a request are not sent back."""


class EndpointHandler:
    """Answers requests to an endpoint.

    Args:
        path: folder of the repository on the endpoint's machine.

    Raises:
        ValueError: if a limit in the environment is not a whole number.
    """

    def __init__(self, path: str = "") -> None:
        self.limits = {name: _limit(name) for name in LIMITS}
        device = 0 if torch.cuda.is_available() else -1
        self.order = pipeline("sentence-ordering", model=path, trust_remote_code=True, device=device)

    def __call__(self, data: dict[str, Any]) -> Any:
        """Orders the stories of a request.

        Args:
            data: `inputs`, one story (a list of sentences) or a list of stories; `parameters`, if any, such as
                `{"batch_size": 8}`.

        Returns:
            The pipeline's answer or list of answers; `{"error": ...}` for an invalid request or one that exceeds a
            limit.
        """
        if not isinstance(data, dict) or "inputs" not in data:
            return {"error": "the request has no 'inputs': one story (a list of sentences) or a list of stories"}
        parameters = data.get("parameters") or {}
        if not isinstance(parameters, dict):
            return {"error": f"'parameters' must be an object, not {type(parameters).__name__}"}
        try:
            self._check(data["inputs"], parameters)
            return self.order(data["inputs"], **parameters)
        except (TypeError, ValueError) as error:
            text = str(error)
            return {"error": text if len(text) <= MOST_OF_AN_ERROR else f"{text[:MOST_OF_AN_ERROR]}…"}

    def _check(self, inputs: Any, parameters: Mapping[str, Any]) -> None:
        sentences = list(_sentences(inputs, depth=4))
        permutations = _number(parameters.get("num_permutations"))
        found = {
            "PERMUTATIONS": permutations,
            "SENTENCES": (len(sentences) + _empty(inputs)) * max(1, permutations),
            "BYTES": sum(len(sentence.encode("utf-8", "surrogatepass")) for sentence in sentences),
            "PAIRS": _pairs(inputs) + _pairs(parameters) + (_squares(inputs) if parameters.get("pairwise") else 0),
            "BATCH_SIZE": _number(parameters.get("batch_size")),
        }
        for name, number in found.items():
            if number > self.limits[name]:
                what = name.lower().replace("_", " ")
                raise ValueError(
                    f"the request has {number:,} {what}, but this endpoint takes at most {self.limits[name]:,} "
                    f"(SENTENCE_ORDERING_MAX_{name})"
                )


def _limit(name: str) -> int:
    variable = f"SENTENCE_ORDERING_MAX_{name}"
    text = os.environ.get(variable, str(LIMITS[name]))
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{variable} must be a whole number, got {text[:80]!r}") from None


def _sentences(value: Any, depth: int) -> list[str]:
    """All sentences of a story or of stories, either of which may be dictionaries."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return _sentences(value.get("sentences"), depth)
    if not isinstance(value, Sequence) or depth == 0:
        return []
    return [sentence for item in value for sentence in _sentences(item, depth - 1)]


def _empty(value: Any) -> int:
    """The number of stories without sentences, which take some time, too."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return 0
    return sum(not isinstance(story, str) and not _sentences(story, depth=1) for story in value)


def _squares(value: Any) -> int:
    """The size of the matrices of `pairwise`: the squares of the numbers of sentences, summed."""
    if isinstance(value, Mapping) or (isinstance(value, Sequence) and any(isinstance(item, str) for item in value)):
        return len(_sentences(value, depth=4)) ** 2
    return sum(map(_squares, value)) if isinstance(value, Sequence) and not isinstance(value, str) else 0


def _pairs(value: Any) -> int:
    if isinstance(value, Mapping):
        before = value.get("before")
        return len(before) if isinstance(before, Sequence) else 0
    return sum(_pairs(item) for item in value if isinstance(item, Mapping)) if isinstance(value, Sequence) else 0


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0  # the pipeline refuses other types
