"""The demo page as the exported app serves it, with a model that loads when the test says so, in a line on stdin.

Started in the folder of a Space, whose modules it takes, with none of our packages. Its model reverses what it is
given, says nothing of how sure it is, and cannot order what has "unorderable" in it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

for ours in ("modeling_sentence_ordering", "dataset_builder", "training", "model_card"):
    sys.modules[ours] = None
sys.path.insert(0, "")

from demo_guard import Guard  # noqa: E402
from demo_page import Model, serve  # noqa: E402
from metrics import story_metrics  # noqa: E402


def reverse(sentences: list[str], moves: bool) -> Mapping[str, Any]:
    if any("unorderable" in sentence for sentence in sentences):
        raise RuntimeError("it is too <i>odd</i>\nfor this")
    order = list(reversed(range(len(sentences))))
    return {
        "sentences": [sentences[i] for i in order],
        "order": order,
        "scores": [],
        "truncated": [0],
        "moved": order[:-1],
    }


def load() -> Any:
    if sys.stdin.readline().strip() != "load":
        raise ValueError("the model is broken")
    return reverse


serve(
    Model("slow-model", load),
    [],
    story_metrics,
    Guard,
    server_name="127.0.0.1",
    report=lambda line: print(line, flush=True),
)
