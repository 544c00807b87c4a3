"""Runs an exported model with ONNX Runtime, in place of the torch model where stories are only scored."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from torch import Tensor

from dataset_builder import UserError
from modeling_sentence_ordering import SentenceOrderingConfig, StoryTokenizer, load_tokenizer
from modeling_sentence_ordering.modeling_sentence_ordering import SentenceOrderingOutput
from training.system.console import PROGRAM
from training.system.hub_errors import first_line

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# Names in a repository, as is usual on the Hub.
FILES = {"onnx": "onnx/model.onnx", "onnx-int8": "onnx/model_quantized.onnx"}
INPUTS = ("input_ids", "attention_mask", "marker_positions")
WEIGHTS_KEY = "sentence_ordering_weights"  # ONNX metadata: hash of the exported weights
NEEDS = ("onnx", "onnxruntime", "onnxscript")


def output_names(config: SentenceOrderingConfig) -> tuple[str, ...]:
    """Output names of the exported graph."""
    return ("logits", "pair_logits") if config.head == "pairs" else ("logits",)


class OnnxModel:
    """Scores stories as a `SentenceOrderingModel` in eval mode does.

    Args:
        path: the ONNX file.
        config: the model's.
    """

    device = torch.device("cpu")

    def __init__(self, path: Path, config: SentenceOrderingConfig) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self.config, self.path = config, path
        self.session: InferenceSession = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, marker_positions: Tensor) -> SentenceOrderingOutput:
        """Scores a batch from `StoryTokenizer.collate`.

        Args:
            input_ids, attention_mask: `(batch, tokens)`, int64.
            marker_positions: `(batch, sentences)`, int64, padded with -1.

        Returns:
            `logits` `(batch, sentences)`, float32, `sentence_mask`, and with `head="pairs"` also `pair_logits`
            `(batch, sentences, sentences)`; no loss.
        """
        values = (input_ids, attention_mask, marker_positions)
        feed = {name: value.long().numpy() for name, value in zip(INPUTS, values, strict=True)}
        names = output_names(self.config)
        outputs = dict(zip(names, map(torch.from_numpy, self.session.run(list(names), feed)), strict=True))
        return SentenceOrderingOutput(
            logits=outputs["logits"], sentence_mask=marker_positions >= 0, pair_logits=outputs.get("pair_logits")
        )

    @property
    def weights(self) -> str:
        """Hash of the exported weights, empty if they were not in a file."""
        return str(self.session.get_modelmeta().custom_metadata_map.get(WEIGHTS_KEY, ""))


def weights_hash(folder: Path) -> str | None:
    """SHA-256 over the weights in a folder, None if it has none."""
    paths = sorted(folder.glob("model*.safetensors"))
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest() if paths else None


def check_installed() -> None:
    """Raises a `UserError` if a library for ONNX is not installed."""
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} must be installed for ONNX: pip install '{PROGRAM}[onnx]'")


def load_onnx_model(name_or_path: str, backend: str) -> tuple[OnnxModel, Any]:
    """An exported model and its tokenizer.

    Args:
        name_or_path: folder or Hub id with the subfolder `onnx/`.
        backend: `"onnx"` or `"onnx-int8"`.

    Raises:
        UserError: the file is missing, cannot be read, or was exported from other weights than those in the folder.
    """
    check_installed()
    folder, file = Path(name_or_path), FILES[backend]
    flag = " --quantize" if backend == "onnx-int8" else ""
    make = f"create it with {PROGRAM} export --model {name_or_path}{flag}"
    try:
        config = SentenceOrderingConfig.from_pretrained(name_or_path)
        tokenizer = load_tokenizer(name_or_path)
        StoryTokenizer(tokenizer, config)  # raises for a tokenizer of another model
        path = folder / file if folder.is_dir() else Path(hf_hub_download(name_or_path, file))
        if not path.is_file():
            raise FileNotFoundError(file)
        model = OnnxModel(path, config)
    except (FileNotFoundError, EntryNotFoundError):
        raise UserError(f"--model {name_or_path} has no {file}: {make}") from None
    except Exception as error:  # the exceptions of ONNX Runtime have no common class
        raise UserError(f"--model {name_or_path} cannot be loaded: {first_line(error)}") from error
    weights = weights_hash(folder) if folder.is_dir() else None
    if weights is not None and model.weights not in ("", weights):
        raise UserError(f"--model {name_or_path}: {file} was exported from other weights: {make}")
    return model, tokenizer
