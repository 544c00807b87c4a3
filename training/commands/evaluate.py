"""`sentence-ordering evaluate`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_builder import UserError, load_all, load_stories, story_hash
from training.system.console import PROGRAM, note, say, show
from training.system.output_names import check_apart, check_file_name

from .parsing import ArgumentParser, add_recipe_flags, set_help

if TYPE_CHECKING:
    from datasets import Dataset

SUMMARY = "Evaluate a model on stories whose order is known."


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's flags and the text of its help."""
    parser.add_argument("--model", required=True, metavar="DIR_OR_REPO", help="the trained model")
    parser.add_argument("--data", required=True, nargs="+", metavar="SRC", help="stories, as for train")
    parser.add_argument(
        "--split",
        default="test",
        choices=["train", "validation", "test", "all"],
        help="split of the data; 'all' for a whole file that was not trained on",
    )
    parser.add_argument("--output_json", metavar="FILE", help="also write the metrics to this file")
    parser.add_number(
        "--num_permutations",
        "average the scores over K arrangements of each story, as in order; one by default",
        metavar="K",
        at_least=1,
    )
    parser.add_argument(
        "--bf16",
        action="store_true",
        help="compute in bfloat16: faster on hardware that supports it; the metrics differ in the third digit",
    )
    parser.add_argument(
        "--whole_texts",
        action="store_true",
        help="evaluate long texts whole, in overlapping windows, also if the model was trained on passages",
    )
    add_recipe_flags(
        parser, ("split_sentences", "per_device_eval_batch_size", "data_seed", "test_size", "validation_size")
    )
    set_help(
        parser,
        "Evaluate a model on stories whose order is known.",
        examples=[
            "evaluate --model my-first-model --data sample",
            "evaluate --model me/my-first-model --data other_stories.csv --split all --output_json metrics.json",
        ],
        writes="One metric per line to standard output: accuracy, Kendall's tau (0 is chance, 1 is perfect), the share "
        "of perfect stories (pmr), the loss, and the number of stories that the model was trained on, if known. With "
        "--output_json the metrics as JSON, and for a calibrated model the precision and recall of partial orders.",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    if options.output_json is not None:
        check_file_name("--output_json", options.output_json)
        check_apart("--output_json", options.output_json, data=options.data, models=[options.model])
    from transformers.utils import logging

    from modeling_sentence_ordering import StoryTokenizer
    from training.data.recipe_stories import fixed_passages
    from training.data.stories import TokenizedStories
    from training.evaluation.calibration import calibration_error, judged_pairs
    from training.evaluation.metrics import METRIC_NAMES
    from training.evaluation.partial_orders import partial_orders
    from training.evaluation.predictions import evaluation_metrics, predict
    from training.models import model_folder
    from training.models.trained_model import load_trained_model
    from training.system.device import limit_kernel_caches

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    if options.split == "all":
        stories = load_all(options.data, split_sentences=options.split_sentences)
    else:
        splits = load_stories(
            options.data,
            seed=options.data_seed,
            test_size=options.test_size,
            validation_size=options.validation_size,
            split_sentences=options.split_sentences,
        )
        if options.split not in splits:
            raise UserError(f"the data have no split {options.split}; choose from {', '.join(splits)}")
        stories = splits[options.split]
    limit_kernel_caches()
    model, tokenizer = load_trained_model(options.model, bf16=options.bf16)
    tokenized = TokenizedStories(stories, StoryTokenizer(tokenizer, model.config), options.data_seed)
    sizes = None if options.whole_texts else model.config.passage_sentences
    if sizes is not None:
        tokenized = fixed_passages(tokenized, sizes)
        fewest, most = sizes
        say(f"evaluating {len(tokenized):,} passages of {fewest} to {most} sentences; --whole_texts for whole texts")
    predictions = predict(
        model,
        tokenized,
        batch_size=options.per_device_eval_batch_size,
        num_permutations=options.num_permutations,
    )
    metrics = evaluation_metrics(predictions, model.config)
    temperature = model.config.confidence_temperature
    if temperature is not None:
        metrics["calibration_error"] = calibration_error(judged_pairs(predictions), temperature)
    seen = count_training_stories(options.model, stories)
    if seen is not None:
        metrics["training_stories"] = seen
    for name, value in metrics.items():
        show(f"{name:18} {value:.4f}" if isinstance(value, float) else f"{name:18} {value:,}")
    if seen:
        note(f"the model was trained on {seen:,} of these {len(stories):,} stories")
    if options.output_json is not None:
        values: dict[str, Any] = {name: metrics[name] for name in METRIC_NAMES}
        if temperature is not None:
            values["partial_orders"] = partial_orders(predictions, temperature)
        model_folder.write_json(options.output_json, values)
        say(f"\nwrote {options.output_json}")
    say(f"{'' if options.output_json else chr(10)}next: {PROGRAM} order --model {options.model} YOUR_STORIES.txt")
    return 0


def count_training_stories(model: str, stories: Dataset) -> int | None:
    """Number of the stories that the model was trained on; None if its folder does not record them."""
    from training.data.stories import sentences_of
    from training.models import model_folder

    path = Path(model) / model_folder.STORY_HASHES_FILE
    if not path.is_file():
        return None
    known = model_folder.read_story_hashes(path)
    return sum(story_hash(sentences) in known for sentences in sentences_of(stories))
