"""`sentence-ordering demo`: a page on which one tries a model, here or as a Space on the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dataset_builder import SAMPLE_FILE, UserError, read_stories, split_rows
from training.demo.space import model_name, write_space
from training.system.console import PROGRAM, say
from training.system.output_names import check_apart, check_folder_name

from .parsing import OneLineErrors, complete_help

EXAMPLES = 5


def command_parser() -> OneLineErrors:
    """What the command takes."""
    parser = OneLineErrors(
        prog=f"{PROGRAM} demo",
        description="Show a page on which sentences are shuffled and put in order by a model, at an address that only "
        "this machine can reach; or write the same page as a Space, which is ready for the Hub.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", required=True, metavar="DIR_OR_REPO", help="the trained model")
    parser.add_argument("--port", type=int, help="port of the page (default: the first free one from 7860 on)")
    parser.add_argument(
        "--export",
        metavar="DIR",
        help="write the Space to this folder, which must be new or empty, and show nothing; a model that is a folder "
        "is copied into it, one on the Hub is named",
    )
    parser.add_argument(
        "--trust_remote_code",
        action="store_true",
        help="with --export: copy code in the model's folder that is not this package's, which the Space will run; "
        "read it before",
    )
    complete_help(
        parser,
        examples=["demo --model my-first-model", "demo --model me/my-first-model --export my-space"],
        writes="Nothing: the page is there until Ctrl-C ends it. With --export a folder that is a whole Space, with "
        "the page's code and the model, or the name of one on the Hub, in it; push --space uploads it.",
    )
    return parser


def run(arguments: Sequence[str]) -> int:
    """Runs the command; its exit code. Without --export it ends only when it is interrupted."""
    options = command_parser().parse_args(list(arguments))
    if options.export is not None:
        if options.port is not None:
            raise UserError("--port is for a page that is shown, and --export shows none: leave one of them out")
        check_folder_name("--export", options.export)
        check_apart("--export", options.export, models=[options.model])
        _export(options.model, Path(options.export), options.trust_remote_code)
        return 0
    if find_spec("gradio") is None:
        raise UserError(f"the page needs Gradio, which is not installed: pip install '{PROGRAM}[demo]'")
    if options.port is not None and not 1 <= options.port <= 65535:
        raise UserError(f"--port {options.port} is none: it is a number from 1 to 65535")
    from training.demo.guard import Guard
    from training.demo.page import Model, serve
    from training.evaluation.metrics import story_metrics

    model = Model(model_name(options.model), lambda: _pipeline(options.model))
    serve(model, examples(), story_metrics, Guard, server_name="127.0.0.1", server_port=options.port, report=say)
    return 0


def examples() -> list[dict[str, Any]]:
    """Stories for the page, with `title` and `sentences` in true order: the first of the sample's test split.

    A model that was trained on the sample has not seen them.
    """
    stories = list(read_stories(SAMPLE_FILE))
    chosen = (stories[row] for row in split_rows(len(stories))["test"][:EXAMPLES])
    return [{"title": story.title, "sentences": list(story.sentences)} for story in chosen]


def _pipeline(model: str) -> Any:
    """The model by the code of this package: nothing of its repository is executed."""
    from transformers.utils import logging

    from modeling_sentence_ordering import SentenceOrderingPipeline
    from training.models.trained_model import load_trained_model

    logging.disable_progress_bar()
    loaded, tokenizer = load_trained_model(model)
    return SentenceOrderingPipeline(model=loaded, tokenizer=tokenizer)


def _export(model: str, folder: Path, trust_remote_code: bool) -> None:
    from training.models.trained_model import check_trained_model, load_trained_model

    if Path(model).is_dir():
        load_trained_model(model)  # says what is wrong with it; of one on the Hub, whoever opens the Space is told
    else:
        check_trained_model(model)
    write_space(folder, model, examples(), trust_remote_code=trust_remote_code)
    say(f"wrote {folder}: a Space, which `python app.py` shows in it as well")
    say(f"next: {PROGRAM} push --space {folder} --repo_id USER/NAME")
