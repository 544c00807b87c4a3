"""The folder that training leaves: a complete Hub repository."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dataset_builder import story_hash
from dataset_builder.file_writing import settle, staged, write_text

if TYPE_CHECKING:
    from modeling_sentence_ordering import SentenceOrderingModel

RECIPE_FILE = "recipe.yaml"
RESULTS_FILE = "results.json"
LOG_FILE = "training_log.csv"
CURVES_FILE = "loss_curves.png"
HEATMAP_FILE = "position_heatmap.png"
STORY_HASHES_FILE = "training_stories.txt"
CHECKPOINTS = "checkpoints"
STORIES_FILE = "stories.json"
"""In the folder of checkpoints: which stories they were trained on, see `RecipeStories.digests`."""
TENSORBOARD = "tensorboard"


def write_json(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Writes a JSON file. A number that is not finite becomes null: JSON has no NaN and no infinity."""
    write_text(path, json.dumps(_finite(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `write_json` wrote."""
    values: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return values


def save_model(model: SentenceOrderingModel, tokenizer: Any, folder: Path) -> None:
    """Puts the model, its tokenizer and all code files into a folder; an older model there is replaced as a whole.

    Everything is written beside it first. Weights of the old model that the new one does not overwrite (shards
    beside a single file) are removed.
    """
    from modeling_sentence_ordering import save_tokenizer  # only here: it brings torch, which other writers do not need

    with staged(folder) as staging:
        model.save_pretrained(staging)
        save_tokenizer(tokenizer, staging)
        stale = {path.name for path in folder.glob("model*.safetensors*")}
        new = {path.name for path in staging.iterdir()}
        for path in staging.glob("*.safetensors"):
            shutil.copymode(staging / "config.json", path)  # safetensors lets nobody else read what it writes
        for name in sorted(new):
            settle(staging / name, folder / name)
        for name in stale - new:
            (folder / name).unlink()


def load_weights(model: SentenceOrderingModel, folder: Path) -> None:
    """Loads what `save_pretrained` wrote into a model of the same shape, adapters included."""
    from modeling_sentence_ordering import SentenceOrderingModel as Model

    if any("lora_" in name for name, _ in model.named_parameters()):
        from accelerate import load_checkpoint_in_model

        load_checkpoint_in_model(model, str(folder), strict=True)
    else:
        # By transformers and not from the file: for some encoders it writes other names than the model's own.
        model.load_state_dict(Model.from_pretrained(folder, use_safetensors=True).state_dict())


def save_config(model: SentenceOrderingModel, folder: Path) -> None:
    """Renews the config in a folder that has the model already, and nothing else there."""
    with staged(folder) as staging:
        model.config.save_pretrained(staging)
        settle(staging / "config.json", folder / "config.json")


def write_recipe(folder: Path, values: Mapping[str, Any]) -> None:
    """The recipe as YAML: `train --config` with it, and the same data, makes the same model."""
    write_text(folder / RECIPE_FILE, yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))


def write_story_hashes(folder: Path, stories: Iterable[Mapping[str, Any]]) -> None:
    """Hashes of the training stories, sorted, by which `evaluate` tells which stories a model was trained on."""
    hashes = sorted({story_hash(story["sentences"]) for story in stories})
    write_text(folder / STORY_HASHES_FILE, "\n".join(hashes) + "\n")


def read_story_hashes(path: str | os.PathLike[str]) -> frozenset[str]:
    """The hashes that `write_story_hashes` wrote."""
    return frozenset(Path(path).read_text(encoding="utf-8").split())
