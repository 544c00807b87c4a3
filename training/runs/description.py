"""What stands beside a trained model: results, pictures and the card."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from datasets import DatasetDict

from dataset_builder import may_be_quoted
from modeling_sentence_ordering import SentenceOrderingModel
from modeling_sentence_ordering.configuration_sentence_ordering import hub_id
from training.frameworks.training_log import read_training_log
from training.models import repository
from training.recipe.recipe import Recipe, shareable

from .card_options import CardOptions
from .trained_on import TrainedOn

_LIBRARIES = ("sentence-ordering", "torch", "transformers", "datasets", "accelerate", "pytorch-lightning", "poutyne")


class Described(Protocol):
    """What is described: a training run that has ended."""

    recipe: Recipe
    folder: Path
    stories: DatasetDict
    model: SentenceOrderingModel
    trained_on: TrainedOn

    @property
    def judged_split(self) -> str | None:
        """The split that the model is judged on."""


def describe(run: Described, results: Mapping[str, Any], options: CardOptions) -> str:
    """Writes results, loss curves, heatmap and card beside the model.

    Args:
        run: the run.
        results: what `results.json` is to hold; nothing in it quotes a story.
        options: what is stated for the card.

    Returns:
        One line for the person who waits.
    """
    from model_card.card import CARD, write_model_card
    from model_card.plots import plot_loss_curves, plot_position_heatmap

    folder, analysis = run.folder, results.get("analysis")
    repository.write_json(folder / repository.RESULTS_FILE, results)
    rows = read_training_log(folder / repository.LOG_FILE)
    plot_loss_curves({run.recipe.encoder_name: rows}, folder / repository.CURVES_FILE)
    if analysis is not None:
        plot_position_heatmap(analysis["positions"], folder / repository.HEATMAP_FILE)
    was_there = (folder / CARD).exists()
    whole = write_model_card(folder, _facts(run, results, options))
    card = f"the model card {CARD}"
    if was_there:
        card = f"the generated section of {CARD} (what stands outside of it was kept)"
    if not whole:
        card = f"the metadata of {CARD} (its text has no generated section: delete it, and a new card takes its place)"
    return f"wrote {folder}: the model, its tokenizer and code, {repository.RESULTS_FILE}, and {card}"


def _facts(run: Described, results: Mapping[str, Any], options: CardOptions) -> Any:
    from model_card.facts import Example, ModelFacts

    recipe, split, analysis = run.recipe, run.judged_split, results.get("analysis")
    sources = recipe.sources
    examples = []
    if split is not None and analysis is not None and may_be_quoted(sources, license=options.license):
        examples = [
            Example(
                chosen["chosen"], run.stories[split][chosen["story"]]["sentences"], chosen["order"],
                chosen["kendalls_tau"],
            )
            for chosen in analysis["examples"]["stories"]
        ]  # fmt: skip
    return ModelFacts(
        name=run.folder.resolve().name,  # of the folder itself where the path is "."
        recipe=shareable(recipe),
        results=results,
        parameters=sum(parameter.numel() for parameter in run.model.parameters()),
        training_sentences=run.trained_on.sentences,
        max_input_tokens=run.model.config.max_input_tokens,
        head=run.model.config.head,
        base_model=run.model.config.base_model,
        datasets=[source for source in recipe.data if source != "sample" and hub_id(source)],
        license=options.model_license or "unknown",
        language=options.language or (),
        quoted_under=options.license,
        examples=examples,
        curves=repository.CURVES_FILE,
        heatmap=repository.HEATMAP_FILE if analysis is not None else None,
    )


def environment(model: SentenceOrderingModel) -> dict[str, str]:
    """Versions, and on what the model ran; nothing that tells one machine of a kind from another."""
    versions = {name: version(name) for name in _LIBRARIES}
    device = model.device
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        hardware = f"CPU ({platform.machine()}), {threads} thread{'s' * (threads > 1)}"
    return {"python": platform.python_version(), **versions, "device": device.type, "hardware": hardware}
