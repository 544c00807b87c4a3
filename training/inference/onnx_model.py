"""A trained model that ONNX Runtime runs, in the place of the torch model wherever stories are only scored."""

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

# Where a repository has them, as on the Hub.
FILES = {"onnx": "onnx/model.onnx", "onnx-int8": "onnx/model_quantized.onnx"}
INPUTS = ("input_ids", "attention_mask", "marker_positions")
# Of the metadata: the hash of the weights that were exported.
WEIGHTS_KEY = "sentence_ordering_weights"
NEEDS = ("onnx", "onnxruntime", "onnxscript")


def output_names(config: SentenceOrderingConfig) -> tuple[str, ...]:
    """What the graph of a model with this config returns."""
    return ("logits", "pair_logits") if config.head == "pairs" else ("logits",)


class OnnxModel:
    """Scores stories as a `SentenceOrderingModel` in eval mode does.

    Args:
        path: the ONNX file.
        config: the model's.

    Attributes:
        config: the model's.
        path: the ONNX file.
        device: the CPU.
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
        """Scores a batch as `StoryTokenizer.collate` gives it.

        Args:
            input_ids: `(batch, tokens)`, int64.
            attention_mask: `(batch, tokens)`, int64.
            marker_positions: `(batch, sentences)`, int64, -1 where there is no sentence.

        Returns:
            `logits` `(batch, sentences)`, float32, `sentence_mask`, and `pair_logits`
            `(batch, sentences, sentences)` of a model with `head="pairs"`; no loss.
        """
        values = (input_ids, attention_mask, marker_positions)
        feed = {name: value.long().numpy() for name, value in zip(INPUTS, values, strict=True)}
        names = output_names(self.config)
        found = dict(zip(names, map(torch.from_numpy, self.session.run(list(names), feed)), strict=True))
        return SentenceOrderingOutput(
            logits=found["logits"], sentence_mask=marker_positions >= 0, pair_logits=found.get("pair_logits")
        )

    @property
    def weights(self) -> str:
        """The hash of the weights that it was exported from, empty if they were in no file."""
        return str(self.session.get_modelmeta().custom_metadata_map.get(WEIGHTS_KEY, ""))


def weights_hash(folder: Path) -> str | None:
    """SHA-256 over the weights in a folder, None where there are none."""
    digest, some = hashlib.sha256(), False
    for path in sorted(folder.glob("model*.safetensors")):
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        some = True
    return digest.hexdigest() if some else None


def check_installed() -> None:
    """Refuses, in words, to go on without the libraries.

    Raises:
        UserError: if one is missing.
    """
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {' and '.join(missing)}, not installed here: pip install '{PROGRAM}[onnx]'")


def load_onnx_model(name_or_path: str, backend: str) -> tuple[OnnxModel, Any]:
    """A model that was exported, and its tokenizer.

    Args:
        name_or_path: a folder or an id on the Hub, with `onnx/` in it.
        backend: `"onnx"` or `"onnx-int8"`.

    Raises:
        UserError: if there is none, it was exported from other weights than those beside it, or cannot be read.
    """
    check_installed()
    folder, file = Path(name_or_path), FILES[backend]
    flag = " --quantize" if backend == "onnx-int8" else ""
    make = f"make it with {PROGRAM} export --model {name_or_path}{flag}"
    try:
        config = SentenceOrderingConfig.from_pretrained(name_or_path)
        tokenizer = load_tokenizer(name_or_path)
        StoryTokenizer(tokenizer, config)  # refuses a tokenizer of another model
        path = folder / file if folder.is_dir() else Path(hf_hub_download(name_or_path, file))
        if not path.is_file():
            raise FileNotFoundError(file)
        model = OnnxModel(path, config)
    except (FileNotFoundError, EntryNotFoundError):
        raise UserError(f"--model {name_or_path} has no {file}: {make}") from None
    except Exception as error:  # ONNX Runtime has exceptions of its own, with no class in common
        raise UserError(f"--model {name_or_path} cannot be loaded: {first_line(error)}") from error
    weights = weights_hash(folder) if folder.is_dir() else None
    if weights is not None and model.weights not in ("", weights):
        raise UserError(f"--model {name_or_path}: {file} was exported from other weights than lie beside it: {make}")
    return model, tokenizer
