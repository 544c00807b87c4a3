"""`sentence-ordering evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from transformers.utils import logging

from dataset_builder import UserError, load_all, load_stories, story_hash
from modeling_sentence_ordering import StoryTokenizer
from training.data.stories import TokenizedStories, sentences_of
from training.evaluation.calibration import calibration_error, judged_pairs
from training.evaluation.metrics import METRIC_NAMES
from training.evaluation.predictions import judge, predict
from training.models import repository
from training.models.trained_model import load_trained_model
from training.system.console import PROGRAM, note, say, show
from training.system.device import limit_kernel_caches
from training.system.output_names import check_apart, check_file_name

from .parsing import OneLineErrors, add_split_sentences, complete_help


def command_parser() -> OneLineErrors:
    """What the command takes."""
    parser = OneLineErrors(
        prog=f"{PROGRAM} evaluate",
        description="Judge a model on stories whose order is known.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", required=True, metavar="DIR_OR_REPO", help="the trained model")
    parser.add_argument("--data", required=True, nargs="+", metavar="SRC", help="stories, as for train")
    add_split_sentences(parser)
    parser.add_argument(
        "--split",
        default="test",
        choices=["train", "validation", "test", "all"],
        help="which part of the data; 'all' for a whole file that is no training data (default: test)",
    )
    parser.add_argument("--output_json", metavar="FILE", help="write the metrics there as well")
    parser.add_argument("--per_device_eval_batch_size", type=int, default=64, help="stories at once (default: 64)")
    parser.add_argument(
        "--num_permutations",
        type=int,
        metavar="K",
        help="average the scores over K arrangements of each story, those of `order`, instead of one",
    )
    parser.add_argument(
        "--bf16",
        action="store_true",
        help="compute in bfloat16: faster where the hardware does; the metrics differ in their third digit",
    )
    parser.add_argument("--data_seed", type=int, default=42, help="seed of split and shuffles (default: 42)")
    parser.add_argument("--test_size", type=float, default=0.2, help="as for train (default: 0.2)")
    parser.add_argument("--validation_size", type=float, default=0.3, help="as for train (default: 0.3)")
    complete_help(
        parser,
        examples=[
            "evaluate --model my-first-model --data sample",
            "evaluate --model me/my-first-model --data other_stories.csv --split all --output_json metrics.json",
        ],
        writes="A metric a line to standard output: accuracy, Kendall's tau (0 is chance, 1 is perfect), the share of "
        "perfect stories (pmr) and the loss; how many of the stories the model was trained on, if it knows. With "
        "--output_json the metrics as JSON.",
    )
    return parser


def run(arguments: Sequence[str]) -> int:
    """Runs the command; its exit code."""
    options = command_parser().parse_args(list(arguments))
    for name in ("per_device_eval_batch_size", "num_permutations"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, not {value}")
    if options.output_json is not None:
        check_file_name("--output_json", options.output_json)
        check_apart("--output_json", options.output_json, data=options.data, models=[options.model])
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
            raise UserError(f"the data have no split {options.split}; there is {', '.join(splits)}")
        stories = splits[options.split]
    limit_kernel_caches()
    model, tokenizer = load_trained_model(options.model, bf16=options.bf16)
    tokenized = TokenizedStories(stories, StoryTokenizer(tokenizer, model.config), options.data_seed)
    predictions = predict(
        model,
        tokenized,
        batch_size=options.per_device_eval_batch_size,
        num_permutations=options.num_permutations,
    )
    metrics = judge(predictions, model.config)
    if model.config.confidence_temperature is not None:
        metrics["calibration_error"] = calibration_error(judged_pairs(predictions), model.config.confidence_temperature)
    seen = count_training_stories(options.model, stories)
    if seen is not None:
        metrics["training_stories"] = seen
    for name, value in metrics.items():
        show(f"{name:18} {value:.4f}" if isinstance(value, float) else f"{name:18} {value:,}")
    if seen:
        note(f"{seen:,} of these {len(stories):,} stories are among those that the model was trained on")
    if options.output_json is not None:
        repository.write_json(options.output_json, {name: metrics[name] for name in METRIC_NAMES})
        say(f"\nwrote {options.output_json}")
    say(f"{'' if options.output_json else chr(10)}next: {PROGRAM} order --model {options.model} YOUR_STORIES.txt")
    return 0


def count_training_stories(model: str, stories: Dataset) -> int | None:
    """How many of the stories the model was trained on, or None if its folder does not say."""
    path = Path(model) / repository.STORY_HASHES_FILE
    if not path.is_file():
        return None
    known = repository.read_story_hashes(path)
    return sum(story_hash(sentences) in known for sentences in sentences_of(stories))
