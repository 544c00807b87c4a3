"""The folder of a trained model: a complete Hub repository."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

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
"""In the folder of checkpoints: `RecipeStories.digests` of the stories they were trained on."""
TENSORBOARD = "tensorboard"


def write_json(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Writes a JSON file, with null for NaN and infinity."""
    write_text(path, json.dumps(_finite(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a file written by `write_json`."""
    values: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return values


def save_model(model: SentenceOrderingModel, tokenizer: Any, folder: Path) -> None:
    """Saves the model, its tokenizer and all code files to a folder, and removes an older model there.

    Everything is written to a temporary folder first. Weights of the old model under other names (shards instead of a
    single file) are removed.
    """
    from modeling_sentence_ordering import save_tokenizer  # imports torch, which the other functions do not need

    with staged(folder) as staging:
        model.save_pretrained(staging)
        save_tokenizer(tokenizer, staging)
        stale = {path.name for path in folder.glob("model*.safetensors*")}
        new = {path.name for path in staging.iterdir()}
        for path in staging.glob("*.safetensors"):
            shutil.copymode(staging / "config.json", path)  # safetensors writes files that only the owner can read
        for name in sorted(new):
            settle(staging / name, folder / name)
        for name in stale - new:
            (folder / name).unlink()


def load_weights(model: SentenceOrderingModel, folder: Path) -> None:
    """Loads the weights of a `save_pretrained` folder into a model of the same shape, adapters included."""
    from modeling_sentence_ordering import SentenceOrderingModel as Model

    if any("lora_" in name for name, _ in model.named_parameters()):
        from accelerate import load_checkpoint_in_model

        load_checkpoint_in_model(model, str(folder), strict=True)
    else:
        # Through transformers, which renames some encoders' weights in the file.
        model.load_state_dict(Model.from_pretrained(folder, use_safetensors=True).state_dict())


def save_config(model: SentenceOrderingModel, folder: Path) -> None:
    """Overwrites the config in a model's folder."""
    with staged(folder) as staging:
        model.config.save_pretrained(staging)
        settle(staging / "config.json", folder / "config.json")


def write_recipe(folder: Path, values: Mapping[str, Any]) -> None:
    """Writes the recipe as YAML, for `train --config`."""
    write_text(folder / RECIPE_FILE, yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))


def write_story_hashes(folder: Path, hashes: Iterable[str]) -> int:
    """Writes the sorted hashes of the training stories, with which `evaluate` recognizes them; returns their number."""
    different = sorted(set(hashes))
    write_text(folder / STORY_HASHES_FILE, "\n".join(different) + "\n")
    return len(different)


def read_story_hashes(path: str | os.PathLike[str]) -> frozenset[str]:
    """Reads a file written by `write_story_hashes`."""
    return frozenset(Path(path).read_text(encoding="utf-8").split())
