"""`sentence-ordering order`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dataset_builder import BadRecord, Story, UserError, files_in_folder, format_of_file, read_stories
from training.inference.answers import format_of, write_file, write_stream
from training.inference.ordering import OrderedStory, order_stories
from training.system.console import PROGRAM, complain, drop_output, note, say
from training.system.output_names import check_apart

from .parsing import OneLineErrors, add_split_sentences, complete_help

# Those of `onnx_model.FILES`, which a look at --help need not import.
BACKENDS = ("onnx", "onnx-int8")


def command_parser() -> OneLineErrors:
    """What the command takes."""
    parser = OneLineErrors(
        prog=f"{PROGRAM} order",
        description="Put shuffled sentences in order. Text has a sentence a line and a blank line between stories; "
        "without INPUT it is read from standard input.",
        epilog="a record of JSONL may say what is known of its order:\n"
        '  {"sentences": [...], "first": 0, "last": 3, "before": [[1, 2]]}',
        allow_abbrev=False,
    )
    parser.add_argument(
        "input", nargs="?", metavar="INPUT", help="text (.txt), JSONL, CSV, TSV, JSON or Parquet, or a folder"
    )
    parser.add_argument("--model", required=True, metavar="DIR_OR_REPO", help="the trained model")
    parser.add_argument(
        "--output", metavar="FILE", help="file to write: .txt, .jsonl, .csv or .parquet; for shards, a folder"
    )
    parser.add_argument(
        "--shard_size",
        type=int,
        metavar="N",
        help="write files of N stories each into the folder --output (default: 10,000 where INPUT is a folder). The "
        "same command goes on where it was stopped; under `accelerate launch` or `torchrun` processes share the work",
    )
    parser.add_argument("--output_format", choices=["jsonl", "parquet"], default="jsonl", help="of shards")
    parser.add_argument(
        "--batch_tokens", type=int, default=8192, help="tokens at once, padding included (default: 8,192)"
    )
    parser.add_argument("--batch_size", type=int, metavar="N", help="no more than N stories at once, however short")
    parser.add_argument(
        "--num_permutations",
        type=int,
        default=1,
        metavar="K",
        help="average the scores over K arrangements of each story; each counts in --batch_size (default: 1)",
    )
    parser.add_argument(
        "--bf16",
        action="store_true",
        help="compute in bfloat16: faster where the hardware does (AMX, AVX512-BF16, CUDA from 8.0 on), and sentences "
        "of nearly equal scores may change places",
    )
    parser.add_argument(
        "--backend",
        choices=["torch", *BACKENDS],
        default="torch",
        help="what computes the scores; onnx and onnx-int8 need what export wrote",
    )
    add_split_sentences(parser)
    complete_help(
        parser,
        examples=[
            "order --model my-first-model stories.txt",
            "order --model me/my-first-model stories.csv --output ordered.jsonl --num_permutations 8",
            "order --model me/my-first-model folder_of_stories --output folder_of_answers",
        ],
        writes="Without --output the sentences in order to standard output, as text for text and as JSON lines else; "
        "what there is to say besides goes to standard error. With --output the file, which has its name only when it "
        "is whole; in shards, the same command goes on where it was stopped. All formats but text give order, scores "
        "and confidence as well; a record that could not be ordered has the reason in its place, and the exit code "
        "is 1.",
    )
    return parser


def run(arguments: Sequence[str]) -> int:
    """Runs the command; its exit code: 1 if there is a record that could not be ordered."""
    options = command_parser().parse_args(list(arguments))
    for name in ("batch_size", "batch_tokens", "num_permutations", "shard_size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, not {value}")
    if options.bf16 and options.backend != "torch":
        raise UserError(f"--bf16 is for --backend torch, not {options.backend}: what was exported has its own numbers")
    if options.output is not None:
        given = "-" if options.input is None else options.input  # standard input may be a file, too
        check_apart("--output", options.output, data=[given], models=[options.model])
    counter = _Counter()
    in_shards = options.shard_size is not None or os.path.isdir(options.input or "")
    next_line = (_write_shards if in_shards else _write_answers)(options, counter)
    if counter.truncated:
        note(
            f"{counter.truncated:,} sentences, in {counter.stories_truncated:,} of {counter.total:,} stories, "
            "are too long for this model: only their beginnings were read"
        )
    if counter.failed:
        complain(f"{counter.failed:,} of {counter.total:,} records could not be ordered; the first: {counter.first}")
        return 1
    if options.output is None and next_line:
        stories = f"{counter.total:,} {'story' if counter.total == 1 else 'stories'}"
        # Standard output is for the stories alone.
        say(f"{PROGRAM}: ordered {stories}; next: {next_line}", sys.stderr)
    elif next_line:
        say(f"next: {next_line}")
    return 0


def _write_answers(options: argparse.Namespace, counter: _Counter) -> str:
    """All answers to one file, or to standard output as they come; what to do next."""
    if options.output is not None:
        format_of(options.output)
    records = _records(options.input, options.split_sentences)
    model, tokenizer = _load(options)
    answers = counter.counted(_orderer(options, model, tokenizer)(records))
    if options.output is not None:
        write_file(tqdm(answers, desc="Ordering", unit=" stories", disable=None, delay=1), options.output)
        say(f"wrote {options.output}: {counter.total:,} stories")
        return _next(model, is_text=format_of(options.output) == "text")
    text = options.input is None or format_of_file(options.input, options.input) == "text"
    try:
        write_stream(answers, sys.stdout, "text" if text else "jsonl")
    except BrokenPipeError:
        drop_output()  # whoever reads has enough of it, and that is no error
        counter.failed = 0
        return ""
    return "--output FILE.jsonl keeps the scores, too"


def _next(model: Any, *, is_text: bool) -> str:
    if is_text:
        return "a name that ends in .jsonl, .csv or .parquet keeps the scores, too"
    if model.config.confidence_temperature is not None:
        return "look at the sentences of low confidence; there the order is most in doubt"
    return f"{PROGRAM} evaluate on stories of that kind tells how far to trust the order"


def _write_shards(options: argparse.Namespace, counter: _Counter) -> str:
    """The answers as shards in a folder, this process's share of them; what to do next."""
    if options.input is None or options.output is None:
        raise UserError(
            f"{options.input or 'standard input'}: a folder, or what --shard_size cuts up, is ordered into a folder: "
            "name INPUT and --output"
        )
    inputs = files_in_folder(options.input) if os.path.isdir(options.input) else [options.input]
    records = chain.from_iterable(_records(path, options.split_sentences) for path in inputs)
    first = next(records, None)  # so that a file that is not there is told before a model is loaded

    from training.inference.sharding import SHARD_SIZE, open_shards, order_in_shards, shard_plan
    from training.system.processes import Processes

    processes = Processes.from_environment()
    model, tokenizer = _load(options)
    shard_size = options.shard_size or SHARD_SIZE
    folder = Path(options.output)
    plan = shard_plan(inputs, options.model, model, options.num_permutations, shard_size)
    if options.split_sentences is not None:
        plan["split_sentences"] = options.split_sentences
    open_shards(folder, plan)
    order = _orderer(options, model, tokenizer)
    progress = tqdm(desc="Ordering", unit=" stories", disable=processes.rank > 0 or None, delay=1)
    shards = order_in_shards(
        chain([] if first is None else [first], records),
        lambda some: counter.counted(order(some), progress),
        folder,
        shard_size=shard_size,
        output_format=options.output_format,
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
    """The trained model and its tokenizer, on this process's device."""
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
        logging.enable_progress_bar()  # that of a long text
    return loaded


def _orderer(options: argparse.Namespace, model: Any, tokenizer: Any) -> Callable[..., Iterator[OrderedStory]]:
    return partial(
        order_stories,
        model,
        tokenizer,
        batch_size=options.batch_size,
        batch_tokens=options.batch_tokens,
        num_permutations=options.num_permutations,
        read_ahead=options.input is not None,
    )


def _records(path: str | None, split_sentences: str | None) -> Iterator[Story | BadRecord]:
    """The stories of the input, with the records that are none in their places."""
    errors: list[BadRecord] = []
    if path is None and sys.stdin.isatty():
        complain("type sentences, one a line, a blank line between stories; Ctrl-D ends the input")
    stories = read_stories(
        sys.stdin if path is None else path, as_given=True, on_error=errors.append, split_sentences=split_sentences
    )
    return _merged(stories, errors, path)


def _merged(stories: Iterable[Story], errors: list[BadRecord], path: str | None) -> Iterator[Story | BadRecord]:
    """Raises UserError for an input with no story in it; of standard input, only if it is not empty."""
    some = False
    for story in stories:
        yield from errors
        errors.clear()
        yield story
        some = True
    if not some and errors:
        others = f"; nor can the {len(errors) - 1:,} records behind it" if len(errors) > 1 else ""
        raise UserError(f"{errors[0]}{others}")
    if not some and path is not None:
        raise UserError(f"no stories in {path}")
    yield from errors


class _Counter:
    """Counts answers as they pass, those that are errors, and the sentences that were cut."""

    def __init__(self) -> None:
        self.total = 0
        self.failed = 0
        self.first = ""
        self.truncated = 0
        self.stories_truncated = 0

    def counted(self, answers: Iterable[OrderedStory], progress: Any = None) -> Iterator[OrderedStory]:
        """The answers, counted."""
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
