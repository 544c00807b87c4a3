"""`sentence-ordering export`: a trained model as ONNX."""

from __future__ import annotations

import argparse
from pathlib import Path

from dataset_builder import UserError
from training.system.console import PROGRAM, say
from training.system.output_names import check_apart, check_folder_name

from .parsing import ArgumentParser, set_help

SUMMARY = "Write a trained model as ONNX, for ONNX Runtime."


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's flags and the text of its help."""
    parser.add_argument("--model", required=True, metavar="DIR_OR_REPO", help="the trained model")
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="folder to write, with tokenizer and config (default: the folder of the model)",
    )
    parser.add_argument("--quantize", action="store_true", help="also write a model with int8 weights")
    set_help(
        parser,
        "Write a trained model as ONNX, for ONNX Runtime. The file is kept only if its scores agree with torch's.",
        examples=[
            "export --model my-first-model",
            "export --model me/my-first-model --output exported --quantize",
        ],
        writes="onnx/model.onnx, and onnx/model_quantized.onnx with --quantize, the paths that are usual on the Hub; "
        "push uploads them with the rest of the folder.",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    is_folder = Path(options.model).is_dir()
    if options.output is None and not is_folder:
        raise UserError(f"--model {options.model} is not a folder: name a folder to write to with --output")
    if options.output is not None:
        check_folder_name("--output", options.output)
    folder = Path(options.model if options.output is None else options.output)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file: name a folder")
    is_own = is_folder and folder.resolve() == Path(options.model).resolve()
    if not is_own:
        check_apart("--output", str(folder), models=[options.model])
    if not is_own and folder.exists() and any(folder.iterdir()):
        what = "contains a model" if (folder / "config.json").exists() else "is not empty"
        raise UserError(f"--output {folder} {what}: choose another folder")

    from training.inference.onnx_model import check_installed

    check_installed()
    from training.inference.onnx_export import export_onnx
    from training.models.trained_model import load_trained_model

    model, tokenizer = load_trained_model(options.model)
    if not is_own:
        from modeling_sentence_ordering import save_tokenizer
        from training.models.model_folder import save_config

        save_config(model, folder)
        save_tokenizer(tokenizer, folder)
    for path in export_onnx(model, tokenizer, folder, quantize=options.quantize):
        say(f"wrote {path}: {path.stat().st_size / 2**20:,.1f} MiB")
    say(f"next: {PROGRAM} order --model {folder} --backend {'onnx-int8' if options.quantize else 'onnx'}")
    return 0
