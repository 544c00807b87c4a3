"""Lightning's `.ckpt` files and their conversion to Hub folders, without running code from a file."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins.io import CheckpointIO, TorchCheckpointIO
from torch import Tensor

from dataset_builder import UserError
from dataset_builder.file_writing import new_file
from modeling_sentence_ordering import SentenceOrderingConfig, SentenceOrderingModel, load_tokenizer, save_tokenizer
from training.models.model_folder import save_model

# Key of the model's config and tokenizer in a checkpoint.
RECORD = "sentence_ordering_model"
_WEIGHTS_PREFIX = "model."


def model_record(model: SentenceOrderingModel, tokenizer: Any) -> dict[str, Any]:
    """A model's config and its tokenizer's files as plain values."""
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(tokenizer, folder)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    return {"config": model.config.to_json_string(), "tokenizer": files}


def model_from_record(record: dict[str, Any]) -> tuple[SentenceOrderingModel, Any]:
    """A model with initial weights and its tokenizer, from `model_record`."""
    config = SentenceOrderingConfig.from_dict(json.loads(record["config"]))
    with tempfile.TemporaryDirectory() as folder:
        for name, content in record["tokenizer"].items():
            (Path(folder) / Path(name).name).write_bytes(content)
        tokenizer = load_tokenizer(folder)
    return SentenceOrderingModel(config), tokenizer


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a `.ckpt`, with memory-mapped tensors on the CPU.

    Raises:
        UserError: if the file is not a checkpoint of a `SentenceOrderingModule`.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if RECORD in checkpoint and "global_step" in checkpoint:
            return dict(checkpoint)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, TypeError):
        pass
    raise UserError(f"{os.fspath(path)} is not a complete checkpoint of a sentence ordering model in PyTorch Lightning")


def model_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The weights in a checkpoint, named as in `SentenceOrderingModel`."""
    return {name.removeprefix(_WEIGHTS_PREFIX): tensor for name, tensor in checkpoint["state_dict"].items()}


def checkpoint_to_folder(checkpoint: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
    """Converts a `.ckpt` to a Hub folder: weights as safetensors, config, code and tokenizer.

    Only the file is needed, and no code in it is run (`weights_only`).

    Raises:
        UserError: if the file is not a checkpoint of a `SentenceOrderingModule`.
    """
    save_model(*model_of_checkpoint(checkpoint), Path(folder))


def model_of_checkpoint(checkpoint: str | os.PathLike[str]) -> tuple[SentenceOrderingModel, Any]:
    """The model in a `.ckpt`, in eval mode, and its tokenizer.

    Raises:
        UserError: if the file is not a checkpoint of a `SentenceOrderingModule`.
    """
    content = read_checkpoint(checkpoint)
    model, tokenizer = model_from_record(content[RECORD])
    model.load_state_dict(model_weights(content))
    return model.eval(), tokenizer


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a `.ckpt` atomically: to a temporary file in the same folder, which is then renamed.

    Lightning's own writes to memory and to the system's temporary folder, which may be on another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Saves to a local path."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as unfinished, open(unfinished, "wb") as sink:
            torch.save(checkpoint, sink)


class HubFolderCallback(Callback):
    """Writes a Hub folder for each `.ckpt` that any callback saves: the folder `best` for `best.ckpt`.

    The folder is removed when Lightning removes the checkpoint.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wraps the trainer's `CheckpointIO`."""
        inner = trainer.strategy.checkpoint_io
        if isinstance(inner, _HubFolderIO):
            inner = inner.inner
        trainer.strategy.checkpoint_io = _HubFolderIO(inner, pl_module)


class _HubFolderIO(CheckpointIO):
    """Wraps a `CheckpointIO` and writes Hub folders too."""

    def __init__(self, inner: CheckpointIO, module: Any) -> None:
        self.inner = inner
        self.module = module

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        self.inner.save_checkpoint(checkpoint, path, storage_options)
        save_model(self.module.model, self.module.tokenizer, hub_folder(path))

    def load_checkpoint(self, path: str | Path, *args: Any, **options: Any) -> dict[str, Any]:
        return self.inner.load_checkpoint(path, *args, **options)

    def remove_checkpoint(self, path: str | Path) -> None:
        self.inner.remove_checkpoint(path)
        if (hub_folder(path) / "config.json").is_file():
            shutil.rmtree(hub_folder(path))


def hub_folder(checkpoint: str | Path) -> Path:
    """The Hub folder of a checkpoint: its name without `.ckpt`."""
    path = Path(checkpoint)
    return path.with_suffix("") if path.suffix == ".ckpt" else path.with_name(f"{path.name}-model")
