"""The model card: `README.md` of a trained model, from plain results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from string import Template
from typing import Any

from dataset_builder.file_writing import write_bytes

from . import sections
from .facts import METRICS, TASK, ModelFacts
from .renewal import BEGIN, END, HINT, edited_section, write_card

CARD = "README.md"
_TEMPLATE = Path(__file__).with_name("model_card_template.md")
_MODEL = re.compile(r'(?:(?<=pipeline\("sentence-ordering", model=)|(?<=^repo = ))"[^"\n]*"', re.MULTILINE)


def write_model_card(folder: Path, facts: ModelFacts) -> bool:
    """Writes the card of a trained model; of one that is there, only what is not a person's is new.

    Args:
        folder: the model's folder.
        facts: what it says.

    Returns:
        Whether the card has the generated section; see `renewal.renewed_card`.
    """
    return write_card(folder / CARD, render_model_card(facts))


def name_repository(folder: Path, repo_id: str) -> bool:
    """Lets the example in a model's card load the model from its repository on the Hub.

    Args:
        folder: the model's folder, with its card.
        repo_id: the repository's id, `user/name`.

    Returns:
        Whether the card was changed.
    """
    path = folder / CARD
    if not path.is_file():
        return False
    before = path.read_bytes().decode("utf-8", "surrogateescape")
    name = json.dumps(repo_id)
    after = edited_section(before, lambda section: _MODEL.sub(lambda _: name, section))
    if after == before:
        return False
    write_bytes(path, after.encode("utf-8", "surrogateescape"))
    return True


def render_model_card(facts: ModelFacts) -> str:
    """The card as Markdown, with the metadata that the Hub reads at its top and the markers for its renewal."""
    body = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        model=json.dumps(facts.name, ensure_ascii=False),
        results=sections.results(facts),
        examples=sections.examples(facts),
        training=sections.training(facts),
        limits=sections.limits(facts),
        citation=sections.citation(facts),
    )
    body = re.sub(r"\n{3,}", "\n\n", body).strip()
    title = sections.title(facts)
    return f"---\n{_metadata(facts)}\n---\n\n{title}\n\n{HINT}\n\n{BEGIN}\n\n{body}\n\n{END}\n"


def _metadata(facts: ModelFacts) -> str:
    from huggingface_hub import EvalResult, ModelCardData  # only here: it takes a moment

    split = facts.judged_split
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
        if split is not None
    ]
    known: dict[str, Any] = {"model_name": facts.name.rpartition("/")[2], "eval_results": results} if results else {}
    return ModelCardData(
        license=facts.license,
        language=list(facts.language) if len(facts.language) > 1 else next(iter(facts.language), None),
        library_name="transformers",
        pipeline_tag=TASK,
        tags=[TASK],
        base_model=facts.base_model,
        datasets=list(facts.datasets) or None,
        metrics=list(METRICS),
        **known,
    ).to_yaml()
