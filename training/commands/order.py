"""`sentence-ordering order`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_builder import UserError, format_of_file
from training.inference.story_input import input_files, input_records
from training.system.console import PROGRAM, complain, drop_output, note, say
from training.system.output_names import check_apart

from .parsing import ArgumentParser, add_recipe_flags, set_help

if TYPE_CHECKING:
    from modeling_sentence_ordering import AnswerOptions
    from training.inference.ordering import OrderedStory

SUMMARY = "Put shuffled sentences in order."
# Keys of `onnx_model.FILES`, which imports torch.
BACKENDS = ("onnx", "onnx-int8")


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's flags and the text of its help."""
    parser.epilog = (
        'a record of JSONL may constrain the order:\n  {"sentences": [...], "first": 0, "last": 3, "before": [[1, 2]]}'
    )
    parser.add_argument(
        "input", nargs="?", metavar="INPUT", help="text (.txt), JSONL, CSV, TSV, JSON or Parquet, or a folder"
    )
    add_recipe_flags(parser, ("split_sentences",))
    parser.add_argument("--model", required=True, metavar="DIR_OR_REPO", help="the trained model")
    parser.add_argument(
        "--output", metavar="FILE", help="file to write: .txt, .jsonl, .csv or .parquet; for shards, a folder"
    )
    parser.add_number(
        "--shard_size",
        "write files of N stories each into the folder --output (default: 10,000 where INPUT is a folder). The same "
        "command resumes; with `accelerate launch` or `torchrun` the processes share the work",
        at_least=1,
    )
    parser.add_argument("--output_format", choices=["jsonl", "parquet"], default="jsonl", help="format of shards")
    parser.add_number("--batch_tokens", "tokens in a batch, with padding", default=8192, at_least=1)
    parser.add_number("--batch_size", "maximum number of stories in a batch", at_least=1)
    parser.add_number(
        "--num_permutations",
        "average the scores over K arrangements of each story; each counts in --batch_size",
        default=1,
        metavar="K",
        at_least=1,
    )
    parser.add_number(
        "--ties",
        "do not assert an order of which the model is less sure than P: sentences between which it is not are one "
        "layer, bracketed in text, and 'layers' in other formats",
        metavar="P",
        kind=float,
        above=0.5,
        at_most=1,
    )
    parser.add_argument(
        "--pairwise",
        action="store_true",
        help="add the probabilities of all pairs: that sentence i comes before sentence j",
    )
    parser.add_argument(
        "--show_moves",
        action="store_true",
        help="mark the sentences that moved: as few as possible; 'moved' in formats other than text",
    )
    parser.add_argument(
        "--bf16",
        action="store_true",
        help="compute in bfloat16: faster on hardware that supports it (AMX, AVX512-BF16, CUDA from 8.0); sentences "
        "with nearly equal scores may be swapped",
    )
    parser.add_argument(
        "--backend",
        choices=["torch", *BACKENDS],
        default="torch",
        help="library that computes the scores; onnx and onnx-int8 need the files that export writes",
    )
    set_help(
        parser,
        "Put shuffled sentences in order. Text has one sentence per line and a blank line between stories; without "
        "INPUT it is read from standard input.",
        examples=[
            "order --model my-first-model stories.txt",
            "order --model me/my-first-model stories.csv --output ordered.jsonl --num_permutations 8",
            "order --model me/my-first-model folder_of_stories --output folder_of_answers",
            "order --model my-first-model my_text.txt --ties 0.8 --show_moves",
        ],
        writes="Without --output, the ordered sentences to standard output, as text for text and as JSON lines for "
        "other inputs; messages go to standard error. With --output, the file, which appears when it is complete. All "
        "formats but text contain order, scores and confidence as well. A record that could not be ordered is replaced "
        "by an error record, and the exit code is 1.",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command; the exit code is 1 if a record could not be ordered."""
    if options.bf16 and options.backend != "torch":
        raise UserError(f"--bf16 needs --backend torch, got {options.backend}: leave it out")
    if options.output is not None:
        given = "-" if options.input is None else options.input  # standard input may be a file, too
        check_apart("--output", options.output, data=[given], models=[options.model])
    counter = _Counter()
    in_shards = options.shard_size is not None or os.path.isdir(options.input or "")
    next_line = (_write_shards if in_shards else _write_answers)(options, counter)
    if counter.truncated:
        note(
            f"{counter.truncated:,} sentences, in {counter.stories_truncated:,} of {counter.total:,} stories, "
            "were truncated: they are too long for this model"
        )
    if counter.failed:
        complain(f"{counter.failed:,} of {counter.total:,} records could not be ordered; the first: {counter.first}")
        return 1
    if options.output is None and next_line:
        stories = f"{counter.total:,} {'story' if counter.total == 1 else 'stories'}"
        # Standard output is for the stories only.
        say(f"{PROGRAM}: ordered {stories}; next: {next_line}", sys.stderr)
    elif next_line:
        say(f"next: {next_line}")
    return 0


def _write_answers(options: argparse.Namespace, counter: _Counter) -> str:
    """Writes the answers to one file or to standard output; returns what to do next."""
    from tqdm import tqdm

    from training.inference.answers import format_of, write_file, write_stream

    if options.output is not None:
        output_format = format_of(options.output)
    elif options.input is None or format_of_file(options.input, options.input) == "text":
        output_format = "text"
    else:
        output_format = "jsonl"
    if options.pairwise and output_format == "text":
        raise UserError("--pairwise cannot be written as text: add --output FILE.jsonl, .csv or .parquet")
    records = input_records(options.input, split_sentences=options.split_sentences)
    model, tokenizer = _load(options)
    answers = counter.counted(_orderer(options, model, tokenizer)(records))
    if options.output is not None:
        progress = tqdm(answers, desc="Ordering", unit=" stories", disable=None, delay=1)
        write_file(progress, options.output, _answer_options(options).keys)
        say(f"wrote {options.output}: {counter.total:,} stories")
        return _next(model, is_text=output_format == "text")
    try:
        write_stream(answers, sys.stdout, output_format)
    except BrokenPipeError:
        drop_output()  # the reader has stopped, which is not an error
        counter.failed = 0
        return ""
    return "--output FILE.jsonl writes the scores as well"


def _next(model: Any, *, is_text: bool) -> str:
    if is_text:
        return "a name that ends in .jsonl, .csv or .parquet writes the scores as well"
    if model.config.confidence_temperature is not None:
        return "check the sentences of low confidence first"
    return f"{PROGRAM} evaluate on similar stories measures how good the order is"


def _write_shards(options: argparse.Namespace, counter: _Counter) -> str:
    """Writes this process's share of the answers as shards in a folder; returns what to do next."""
    if options.input is None or options.output is None:
        raise UserError(
            f"{options.input or 'standard input'}: a folder, or an input with --shard_size, needs INPUT and --output, "
            "a folder for the shards"
        )
    inputs = input_files(options.input)
    records = input_records(options.input, split_sentences=options.split_sentences)
    first = next(records, None)  # reports a missing file before the model is loaded

    from tqdm import tqdm

    from training.inference.sharding import SHARD_SIZE, open_shards, order_in_shards, shard_plan
    from training.system.processes import Processes

    processes = Processes.from_environment()
    model, tokenizer = _load(options)
    shard_size = options.shard_size or SHARD_SIZE
    folder = Path(options.output)
    plan = shard_plan(inputs, options.model, model, options.num_permutations, shard_size)
    for name in ("split_sentences", "ties", "pairwise", "show_moves"):
        if getattr(options, name):
            plan[name] = getattr(options, name)
    open_shards(folder, plan)
    order = _orderer(options, model, tokenizer)
    progress = tqdm(desc="Ordering", unit=" stories", disable=processes.rank > 0 or None, delay=1)
    shards = order_in_shards(
        chain([] if first is None else [first], records),
        lambda some: counter.counted(order(some), progress),
        folder,
        shard_size=shard_size,
        output_format=options.output_format,
        optional=_answer_options(options).keys,
        processes=processes,
    )
    with progress:
        made = [(count, there) for _, count, there in shards]
    stories, old = sum(count for count, _ in made), sum(there for _, there in made)
    of_process = f"process {processes.rank}: " if processes.world_size > 1 else ""
    say(
        f"{of_process}{folder} has {stories:,} stories in {len(made):,} shards"
        + (f", {old:,} of which were there already" if old else "")
    )
    return _next(model, is_text=False)


def _load(options: argparse.Namespace) -> tuple[Any, Any]:
    """The trained model and its tokenizer, on the device of this process."""
    if options.backend != "torch":
        from training.inference.onnx_model import load_onnx_model

        return load_onnx_model(options.model, options.backend)
    from transformers.utils import logging

    from training.models.trained_model import load_trained_model
    from training.system.device import limit_kernel_caches

    logging.disable_progress_bar()
    limit_kernel_caches()
    loaded = load_trained_model(options.model, bf16=options.bf16)
    if sys.stderr.isatty():
        logging.enable_progress_bar()  # for long texts
    return loaded


def _answer_options(options: argparse.Namespace) -> AnswerOptions:
    from modeling_sentence_ordering import AnswerOptions

    return AnswerOptions(pairwise=options.pairwise, ties=options.ties, moves=options.show_moves)


def _orderer(options: argparse.Namespace, model: Any, tokenizer: Any) -> Callable[..., Iterator[OrderedStory]]:
    from training.inference.ordering import order_stories

    answer_options = _answer_options(options)
    try:
        answer_options.check_calibration(model.config.confidence_temperature)
    except ValueError as error:
        raise UserError(f"--model {options.model}: {error}") from None
    return partial(
        order_stories,
        model,
        tokenizer,
        batch_size=options.batch_size,
        batch_tokens=options.batch_tokens,
        num_permutations=options.num_permutations,
        answer_options=answer_options,
        read_ahead=options.input is not None,
    )


class _Counter:
    """Counts answers, errors among them, and truncated sentences."""

    def __init__(self) -> None:
        self.total = 0
        self.failed = 0
        self.first = ""
        self.truncated = 0
        self.stories_truncated = 0

    def counted(self, answers: Iterable[OrderedStory], progress: Any = None) -> Iterator[OrderedStory]:
        for answer in answers:
            self.total += 1
            self.truncated += len(answer.truncated)
            self.stories_truncated += bool(answer.truncated)
            if answer.error is not None:
                self.failed += 1
                self.first = self.first or answer.error
            if progress is not None:
                progress.update()
            yield answer
