"""The model card: `README.md` of a trained model, from plain values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from dataset_builder.file_writing import write_bytes

from . import sections
from .facts import METRICS, TASK, ModelFacts
from .markdown import as_text, number, table
from .renewal import BEGIN, END, HINT, edited_section, write_card

CARD = "README.md"
_TEMPLATE = Path(__file__).with_name("model_card_template.md")
_MODEL = re.compile(r'(?:(?<=pipeline\("sentence-ordering", model=)|(?<=^repo = ))"[^"\n]*"', re.MULTILINE)
_BRIEF = """\
```python
from transformers import pipeline

order = pipeline("sentence-ordering", model=$model, trust_remote_code=True)
order(["He took it out of the oven.", "Tom mixed flour and eggs.", "The cake was delicious."])
```

## Results

$results

## Training

Trained$framework$encoder with the objective `$objective`. The repository has all that is needed to train it further."""


def write_model_card(folder: Path, facts: ModelFacts) -> bool:
    """Writes the card of a model that `sentence-ordering train` trained, or renews the existing one.

    Returns:
        Whether the card has the generated section; see `renewal.write_card`.
    """
    return write_card(folder / CARD, render_model_card(facts))


def write_brief_card(
    folder: Path,
    *,
    name: str,
    base_model: str | None = None,
    objective: str,
    framework: str | None = None,
    metrics: Mapping[str, float] | None = None,
) -> bool:
    """Writes the card of a model about whose training little is known, or renews the existing one.

    Args:
        folder: the model's folder.
        name: id of the repository on the Hub.
        base_model: the encoder's id on the Hub, if it has one.
        objective: training objective.
        framework: what trained the model.
        metrics: of the last evaluation on validation stories; keys that are not in `METRICS` are ignored.

    Returns:
        Whether the card has the generated section; see `renewal.write_card`.
    """
    metrics = metrics or {}
    known = {words: number(metrics[metric]) for metric, words in METRICS.items() if metric in metrics}
    measured = f"{table(list(known), [list(known.values())])}\n\nMeasured on the validation stories during training."
    body = Template(_BRIEF).substitute(
        model=json.dumps(name),
        results=measured if known else "Not measured.",
        framework=f" with {as_text(framework)}" if framework else "",
        encoder=f" from [{base_model}](https://huggingface.co/{base_model})" if base_model else "",
        objective=objective,
    )
    return write_card(folder / CARD, _assembled(_metadata(base_model=base_model), name, body))


def name_repository(folder: Path, repo_id: str) -> bool:
    """Changes the code examples in a model's card so that they load `repo_id` from the Hub.

    Returns:
        Whether the card was changed.
    """
    path = folder / CARD
    if not path.is_file():
        return False
    before = path.read_bytes().decode("utf-8", "surrogateescape")
    after = edited_section(before, lambda section: _MODEL.sub(lambda _: json.dumps(repo_id), section))
    if after == before:
        return False
    write_bytes(path, after.encode("utf-8", "surrogateescape"))
    return True


def render_model_card(facts: ModelFacts) -> str:
    """The card as Markdown, with the metadata that the Hub reads and the markers for `renewal`."""
    body = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        model=json.dumps(facts.name, ensure_ascii=False),
        results=sections.results(facts),
        examples=sections.examples(facts),
        training=sections.training(facts),
        limits=sections.limits(facts),
        citation=sections.citation(facts),
    )
    metadata = _metadata(
        license=facts.license,
        language=list(facts.language) if len(facts.language) > 1 else next(iter(facts.language), None),
        base_model=facts.base_model,
        datasets=list(facts.datasets) or None,
        **_evaluation(facts),
    )
    return _assembled(metadata, facts.name, re.sub(r"\n{3,}", "\n\n", body).strip())


def _assembled(metadata: str, name: str, body: str) -> str:
    title = f"# {as_text(name.rpartition('/')[2])}\n\nPuts the shuffled sentences of a story back in order."
    return f"---\n{metadata}\n---\n\n{title}\n\n{HINT}\n\n{BEGIN}\n\n{body}\n\n{END}\n"


def _metadata(*, license: str = "unknown", **values: Any) -> str:
    from huggingface_hub import ModelCardData  # slow to import

    constant: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": TASK, "tags": [TASK]}
    return ModelCardData(license=license, metrics=list(METRICS), **constant, **values).to_yaml()


def _evaluation(facts: ModelFacts) -> dict[str, Any]:
    """What the Hub shows as evaluation results; empty if the model was not evaluated."""
    from huggingface_hub import EvalResult

    split = facts.main_split
    if split is None:
        return {}
    on_hub = facts.datasets[0] if len(facts.datasets) == len(facts.recipe["data"]) == 1 else None
    name = ", ".join(facts.data_names)
    results = [
        EvalResult(
            task_type=TASK,
            task_name="Sentence ordering",
            dataset_type=on_hub or re.sub(r"[^\w.-]+", "-", name).strip("-") or "stories",
            dataset_name=name,
            dataset_split=split,
            metric_type=metric,
            metric_name=words,
            metric_value=facts.results[split][metric],
        )
        for metric, words in METRICS.items()
    ]
    return {"model_name": facts.name.rpartition("/")[2], "eval_results": results}
