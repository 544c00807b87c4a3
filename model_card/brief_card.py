"""The card of a model that was trained outside of `sentence-ordering train`, of which little is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from .facts import METRICS, TASK
from .markdown import as_text, number, table
from .renewal import BEGIN, END, HINT, write_card


def write_brief_card(
    folder: Path,
    *,
    name: str,
    base_model: str | None = None,
    objective: str,
    framework: str | None = None,
    metrics: Mapping[str, float] | None = None,
) -> bool:
    """Writes `README.md`: what the model does, how to run it, and what the run measured, if it says.

    Args:
        folder: the model's folder.
        name: the repository's id on the Hub.
        base_model: the encoder's id on the Hub, if it has one.
        objective: what it was trained with.
        framework: what trained it.
        metrics: of the last evaluation, by the names in `METRICS`; others are left out.

    Returns:
        Whether the card has the generated section; see `renewal.renewed_card`.
    """
    from huggingface_hub import ModelCardData  # only here: it takes a moment

    data = ModelCardData(
        license="unknown",
        library_name="transformers",
        pipeline_tag=TASK,
        tags=[TASK],
        base_model=base_model,
        metrics=list(METRICS),
    )
    known = {words: (metrics or {})[metric] for metric, words in METRICS.items() if metric in (metrics or {})}
    results = "Not measured."
    if known:
        values = table(list(known), [[number(value) for value in known.values()]])
        results = f"{values}\n\nMeasured during training, on its validation stories."
    trained = f" with {as_text(framework)}" if framework else ""
    around = f" around [{base_model}](https://huggingface.co/{base_model})" if base_model else ""
    card = f"""\
---
{data.to_yaml()}
---

# {as_text(name.rpartition("/")[2])}

Puts the shuffled sentences of a story back in order.

{HINT}

{BEGIN}

```python
from transformers import pipeline

order = pipeline("sentence-ordering", model={json.dumps(name)}, trust_remote_code=True)
order(["He took it out of the oven.", "Tom mixed flour and eggs.", "The cake was delicious."])
```

## Results

{results}

## Training

Trained{trained}{around}. The objective is `{objective}`; it is part of the model, which can be trained further.

{END}
"""
    return write_card(folder / "README.md", card)
