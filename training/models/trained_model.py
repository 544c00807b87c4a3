"""Loads a trained model for evaluation and ordering."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PretrainedConfig

from dataset_builder import UserError
from modeling_sentence_ordering import SentenceOrderingConfig, SentenceOrderingModel, StoryTokenizer, load_tokenizer
from modeling_sentence_ordering.configuration_sentence_ordering import hub_id
from modeling_sentence_ordering.repository_sentence_ordering import refuse_adapter
from training.system.device import fastest_device
from training.system.hub_errors import first_line, is_unreachable

# Errors of loading a damaged or hostile model. ImportError: it needs a library that is not installed.
_FAILURES = (
    OSError, ValueError, TypeError, AttributeError, LookupError, RuntimeError, ImportError, SafetensorError,
    pickle.UnpicklingError,
)  # fmt: skip
# First bytes of files from `torch.save` (a zip archive, or a pickle before torch 1.6) and `pickle`.
_PICKLES = (b"PK", *(b"\x80" + bytes([protocol]) for protocol in range(2, 6)))


def is_trained_model(name_or_path: str) -> bool:
    """Whether a folder or an id on the Hub is a sentence ordering model; false if it cannot be read."""
    try:
        fields = PretrainedConfig.get_config_dict(name_or_path)[0]
        return bool(fields.get("model_type") == SentenceOrderingConfig.model_type)
    except (OSError, ValueError, TypeError, AttributeError):
        return False  # loading it reports the error


def check_name(flag: str, name: str, error: type[UserError] = UserError) -> None:
    """Raises `error`, naming the flag, for what is neither a folder nor an id on the Hub."""
    if not Path(name).is_dir() and (Path(name).exists() or hub_id(name) is None):
        raise error(f"{flag} {name}: no such folder, and not the id of a repository on the Hub")


def check_trained_model(repo_id: str) -> None:
    """Checks that a repository on the Hub is a sentence ordering model, without downloading its weights.

    Raises:
        UserError: if it is not, or there is none.
        OSError: if the Hub cannot be reached.
    """
    check_name("--model", repo_id)
    try:
        fields = PretrainedConfig.get_config_dict(repo_id)[0]
    except (OSError, ValueError) as error:
        message = f"--model {repo_id} cannot be read: {first_line(error)}"
        raise (OSError if is_unreachable(error) else UserError)(message) from error
    if fields.get("model_type") != SentenceOrderingConfig.model_type:
        raise UserError(f"--model {repo_id} is not a sentence ordering model")


def load_trained_model(name_or_path: str, *, bf16: bool = False) -> tuple[SentenceOrderingModel, Any]:
    """A sentence ordering model and its tokenizer, loaded by this package: no code of the repository is run.

    Args:
        name_or_path: a folder or an id on the Hub.
        bf16: convert the weights to bfloat16, which is faster on some hardware; scores then have three digits.

    Returns:
        The model in eval mode on the fastest device, and its tokenizer.

    Raises:
        UserError: the model does not exist, or it is not a sentence ordering model.
        OSError: if the Hub cannot be reached.
    """
    check_name("--model", name_or_path)
    folder = Path(name_or_path)
    if folder.is_dir():
        _check_folder(folder)
    try:
        refuse_adapter(name_or_path)
        config = SentenceOrderingConfig.from_pretrained(name_or_path)
        if config.backbone_config is None:
            raise ValueError("it is not a sentence ordering model")
        model, loaded = SentenceOrderingModel.from_pretrained(
            name_or_path, config=config, use_safetensors=True, output_loading_info=True
        )
        if missing := sorted(loaded["missing_keys"]):
            raise ValueError(f"its weights lack {', '.join(missing[:3])}")
        if broken := [name for name, weight in model.state_dict().items() if not weight.isfinite().all()]:
            raise ValueError(f"its weights are not finite numbers (NaN or infinity) in {', '.join(broken[:3])}")
        tokenizer = load_tokenizer(name_or_path)
        StoryTokenizer(tokenizer, model.config)  # refuses a tokenizer of another model
        model = model.eval().to(fastest_device())
        return model.bfloat16() if bf16 else model, tokenizer
    except _FAILURES as error:
        message = f"--model {name_or_path} cannot be loaded: {first_line(error)}"
        if is_unreachable(error):
            raise OSError(message) from error
        raise UserError(message) from error


def _check_folder(folder: Path) -> None:
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except FileNotFoundError:
        raise UserError(f"--model {folder} has no config.json: it is not a model folder") from None
    except (ValueError, AttributeError):
        raise UserError(f"--model {folder}: config.json is broken") from None
    if kind != SentenceOrderingConfig.model_type:
        raise UserError(
            f"--model {folder} is a {kind} model, not a sentence ordering model: train one around it with "
            "sentence-ordering train --encoder, or convert it with SentenceOrderingModel.from_token_classification"
        )
    weights = sorted(folder.glob("model*.safetensors"))
    if not weights:
        pickled = "; pytorch_model.bin is a pickle, which may run code when it is read, and is not read"
        there = any(folder.glob("pytorch_model*.bin"))
        raise UserError(f"--model {folder} has no weights (model.safetensors){pickled if there else ''}")
    for path in weights:
        with open(path, "rb") as file:
            beginning = file.read(9)
            if beginning[:2] in _PICKLES and beginning[8:] != b"{":  # with which the header of safetensors begins
                raise UserError(f"--model {folder}: {path.name} holds a pickle, which may run code: it is not read")
    for path in folder.glob("model*.safetensors.index.json"):
        _check_index(path)
    if not (folder / "tokenizer_config.json").is_file():
        raise UserError(f"--model {folder} has no tokenizer")


def _check_index(path: Path) -> None:
    """Refuses an index of shards that names other files than safetensors in its own folder."""
    try:
        names = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, LookupError, AttributeError, TypeError):
        raise UserError(f"--model {path.parent}: {path.name} is broken") from None
    for name in names:
        if not str(name).endswith(".safetensors") or Path(str(name)).name != name:
            raise UserError(
                f"--model {path.parent}: {path.name} names {str(name)[:100]!r}, which is not a safetensors file of "
                "this folder: it is not read"
            )
