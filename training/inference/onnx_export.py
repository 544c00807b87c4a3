"""Exports a trained model to `onnx/model.onnx` in its folder."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dataset_builder.file_writing import settle, staged
from modeling_sentence_ordering import SentenceOrderingModel, StoryTokenizer
from training.system.errors import CommandFailed

from .onnx_model import FILES, INPUTS, WEIGHTS_KEY, OnnxModel, output_names, weights_hash

OPSET = 18
TOLERANCE = 1e-4  # largest allowed difference of a score between ONNX Runtime and torch, in float32
_MAX_PROTOBUF = 2**31 - 2**26  # bytes; the limit of protobuf is 2 GiB
_MAX_SENTENCES = 4096
# Batches of different shapes: the export must not take a common size for a constant.
_EXAMPLES = (
    (["The dog ran home.", "It was raining outside, and the street was dark.", "He slept."],
     ["Tom left the house early.", "He had forgotten his keys again."]),
    (["One.", "Two is the number after it.", "Three.", "Four.", "Five.", "And six ends it all."],),
    (["A sentence all by itself."], ["Rain fell."], ["The sun came out.", "It was a long day."]),
)  # fmt: skip


class ExportFailed(CommandFailed):
    """torch cannot export the model, or the exported model gives other scores. The message is one line."""


def export_onnx(model: SentenceOrderingModel, tokenizer: Any, folder: Path, *, quantize: bool = False) -> list[Path]:
    """Exports a model to ONNX with dynamic axes and checks that it gives the same scores.

    The graph takes `input_ids`, `attention_mask` `(batch, tokens)` and `marker_positions` `(batch, sentences)`, all
    int64, as from `StoryTokenizer.collate`, and returns `logits` `(batch, sentences)`, float32; with `head="pairs"`
    also `pair_logits` `(batch, sentences, sentences)`.

    Args:
        model: in eval mode, float32.
        tokenizer: the model's.
        folder: the files are written to its subfolder `onnx/`, each with a temporary name until it is complete.
        quantize: also write `onnx/model_quantized.onnx` with int8 weights (dynamic quantization by ONNX Runtime). Its
            scores differ and are not checked.

    Returns:
        The written files.

    Raises:
        ExportFailed: torch cannot export the encoder, or the scores differ by more than `TOLERANCE`.
    """
    model = model.cpu().float().eval()
    story_tokenizer = StoryTokenizer(tokenizer, model.config)
    written = []
    with staged(folder / "onnx") as staging:
        path = staging / Path(FILES["onnx"]).name
        _export(model, story_tokenizer, path, folder)
        check_scores(model, OnnxModel(path, model.config), story_tokenizer)
        if quantize:
            _quantize(path, staging / Path(FILES["onnx-int8"]).name)
        for exported in sorted(staging.iterdir()):
            settle(exported, folder / "onnx" / exported.name)
            written.append(folder / "onnx" / exported.name)
    if not quantize:  # an older one has other weights
        (folder / FILES["onnx-int8"]).unlink(missing_ok=True)
    return written


class _Outputs(nn.Module):
    """The model with tensors as inputs and outputs, for the exporter."""

    def __init__(self, model: SentenceOrderingModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, marker_positions: Tensor) -> tuple[Tensor, ...]:
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, marker_positions=marker_positions)
        return tuple(output[name] for name in output_names(self.model.config))


def _export(model: SentenceOrderingModel, story_tokenizer: StoryTokenizer, path: Path, folder: Path) -> None:
    batch = _collated(story_tokenizer, _EXAMPLES[0])
    tokens = model.config.max_input_tokens
    axes = [torch.export.Dim("batch", min=1), torch.export.Dim("tokens", min=1, max=tokens)]
    sentences = torch.export.Dim("sentences", min=1, max=min(tokens or _MAX_SENTENCES, _MAX_SENTENCES))
    shapes = {name: {0: axes[0], 1: sentences if name == "marker_positions" else axes[1]} for name in INPUTS}
    size = sum(parameter.numel() * 4 for parameter in model.parameters())
    try:
        with _quiet():
            program = torch.onnx.export(
                _Outputs(model),
                tuple(batch[name] for name in INPUTS),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(INPUTS),
                output_names=list(output_names(model.config)),
                dynamic_shapes=shapes,
                verbose=False,
            )
            assert program is not None
            program.model.metadata_props[WEIGHTS_KEY] = weights_hash(folder) or ""
            program.save(path, external_data=size > _MAX_PROTOBUF)
    except Exception as error:
        kind = getattr(model.config.backbone_config, "model_type", "this")
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportFailed(f"torch {torch.__version__} cannot export the {kind} encoder to ONNX: {reason}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter (standard output, warnings, loggers) and ONNX Runtime (root logger)."""
    loggers = [logging.getLogger(name) for name in ("", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def check_scores(model: SentenceOrderingModel, exported: OnnxModel, story_tokenizer: StoryTokenizer) -> None:
    """Compares the scores of torch and ONNX Runtime over batches of different shapes.

    Raises:
        ExportFailed: a score differs by more than `TOLERANCE`.
    """
    for stories in _EXAMPLES:
        inputs = _collated(story_tokenizer, stories)
        with torch.inference_mode():
            expected, found = model(**inputs), exported(**inputs)
        for name in output_names(model.config):
            difference = (expected[name] - found[name]).abs().max().item()
            if not difference <= TOLERANCE:
                raise ExportFailed(f"{name} of the ONNX model differ by {difference:.2g} from torch: it was not kept")


def _collated(story_tokenizer: StoryTokenizer, stories: tuple[list[str], ...]) -> dict[str, Tensor]:
    return story_tokenizer.collate(
        [story_tokenizer.assemble(story_tokenizer.shortened(story_tokenizer.tokenize(story))[0]) for story in stories]
    )


def _quantize(path: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(path, target, weight_type=QuantType.QInt8, per_channel=True)
