"""`sentence-ordering demo`: a page to try a model, local or as a Space on the Hub."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dataset_builder import UserError
from training.system.console import PROGRAM, say
from training.system.output_names import check_apart, check_folder_name

from .parsing import ArgumentParser, set_help

EXAMPLES = 5
SUMMARY = "Try a model on a page, local or as a Space on the Hub."


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's flags and the text of its help."""
    parser.add_argument("--model", required=True, metavar="DIR_OR_REPO", help="the trained model")
    parser.add_number("--port", "port of the page (default: the first free one from 7860)", at_least=1, at_most=65535)
    parser.add_argument(
        "--export",
        metavar="DIR",
        help="write the Space to this folder, which must be new or empty, instead of serving it; a model in a folder "
        "is copied into it, one on the Hub is loaded from there",
    )
    parser.add_argument(
        "--trust_remote_code",
        action="store_true",
        help="with --export: copy code in the model's folder that is not part of this package, which the Space will "
        "run; read it first",
    )
    set_help(
        parser,
        "Serve a page on localhost that shuffles sentences and orders them with a model; stop it with Ctrl-C. Or write "
        "the same page as a Space for the Hub.",
        examples=["demo --model my-first-model", "demo --model me/my-first-model --export my-space"],
        writes="Nothing without --export. With --export the folder of a Space: the code of the page and the model, or "
        "the id of a model on the Hub; push --space uploads it.",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command. Without --export it runs until it is interrupted."""
    if options.export is not None:
        if options.port is not None:
            raise UserError("--port and --export cannot be combined: leave one of them out")
        check_folder_name("--export", options.export)
        check_apart("--export", options.export, models=[options.model])
        _export(options.model, Path(options.export), options.trust_remote_code)
        return 0
    if find_spec("gradio") is None:
        raise UserError(f"demo needs Gradio: pip install '{PROGRAM}[demo]'")
    from training.demo.guard import Guard
    from training.demo.page import Model, serve
    from training.demo.space import model_name
    from training.evaluation.metrics import story_metrics

    model = Model(model_name(options.model), lambda: _pipeline(options.model))
    serve(model, examples(), story_metrics, Guard, server_name="127.0.0.1", server_port=options.port, report=say)
    return 0


def examples() -> list[dict[str, Any]]:
    """Stories for the page, with `title` and `sentences` in true order: the first of the sample's test split.

    A model trained on the sample was not trained on them.
    """
    from dataset_builder import load_stories

    chosen = load_stories("sample")["test"].select(range(EXAMPLES))
    return [{"title": story["storytitle"], "sentences": story["sentences"]} for story in chosen]


def _pipeline(model: str) -> Any:
    """The model with the code of this package: no code of its repository is run."""
    from transformers.utils import logging

    from modeling_sentence_ordering import SentenceOrderingPipeline
    from training.models.trained_model import load_trained_model

    logging.disable_progress_bar()
    loaded, tokenizer = load_trained_model(model)
    return SentenceOrderingPipeline(model=loaded, tokenizer=tokenizer)


def _export(model: str, folder: Path, trust_remote_code: bool) -> None:
    from training.demo.space import write_space
    from training.models.trained_model import check_trained_model, load_trained_model

    if Path(model).is_dir():
        load_trained_model(model)  # reports errors now, not when the Space is opened
    else:
        check_trained_model(model)
    write_space(folder, model, examples(), trust_remote_code=trust_remote_code)
    say(f"wrote {folder}: a Space; `python app.py` in that folder serves it locally")
    say(f"next: {PROGRAM} push --space {folder} --repo_id USER/NAME")
