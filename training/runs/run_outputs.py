"""Writes results, plots and the model card of a trained model."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

from dataset_builder import SAMPLES, may_be_quoted
from modeling_sentence_ordering import SentenceOrderingModel
from modeling_sentence_ordering.configuration_sentence_ordering import hub_id
from training.frameworks.run import TrainingRun
from training.frameworks.training_log import read_training_log
from training.models import model_folder
from training.recipe.recipe import shareable

from .card_options import CardOptions

_LIBRARIES = ("sentence-ordering", "torch", "transformers", "datasets", "accelerate", "pytorch-lightning", "poutyne")


def write_outputs(run: TrainingRun, results: Mapping[str, Any], options: CardOptions) -> str:
    """Writes results, loss curves, heatmap and model card to the run's folder.

    Args:
        run: a run that has ended.
        results: content of `results.json`; it quotes no story.
        options: the user's statements for the card.

    Returns:
        One line that says what was written.
    """
    from model_card.card import CARD, write_model_card
    from model_card.plots import plot_loss_curves, plot_position_heatmap

    folder, analysis = run.folder, results.get("analysis")
    model_folder.write_json(folder / model_folder.RESULTS_FILE, results)
    rows = read_training_log(folder / model_folder.LOG_FILE)
    plot_loss_curves({run.recipe.encoder_name: rows}, folder / model_folder.CURVES_FILE)
    if analysis is not None:
        plot_position_heatmap(analysis["positions"], folder / model_folder.HEATMAP_FILE)
    existed = (folder / CARD).exists()
    has_section = write_model_card(folder, _facts(run, results, options))
    card = f"the model card {CARD}"
    if existed:
        card = f"the generated section of {CARD} (other sections were kept)"
    if not has_section:
        card = f"the metadata of {CARD} (its text has no generated section; delete the file to get a new card)"
    return f"wrote {folder}: the model, its tokenizer and code, {model_folder.RESULTS_FILE}, and {card}"


def _facts(run: TrainingRun, results: Mapping[str, Any], options: CardOptions) -> Any:
    from model_card.facts import Example, ModelFacts

    assert run.trained_on is not None
    recipe, split, analysis = run.recipe, run.main_split, results.get("analysis")
    sources = recipe.sources
    examples = []
    if split is not None and analysis is not None and may_be_quoted(sources, license=options.license):
        examples = [
            Example(
                chosen["chosen"], run.splits[split].stories[chosen["story"]]["sentences"], chosen["order"],
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
        datasets=[source for source in recipe.data if source not in SAMPLES and hub_id(source)],
        license=options.model_license or "unknown",
        language=options.language or (),
        quoted_under=options.license,
        examples=examples,
        curves=model_folder.CURVES_FILE,
        heatmap=model_folder.HEATMAP_FILE if analysis is not None else None,
    )


def environment(model: SentenceOrderingModel) -> dict[str, str]:
    """Versions of the libraries and the hardware; nothing that identifies the machine."""
    versions = {name: version(name) for name in _LIBRARIES}
    device = model.device
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        hardware = f"CPU ({platform.machine()}), {threads} thread{'s' * (threads > 1)}"
    return {"python": platform.python_version(), **versions, "device": device.type, "hardware": hardware}
