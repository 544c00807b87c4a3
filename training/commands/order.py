"""`sentence-ordering order`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_builder import UserError, format_of_file
from training.inference.story_input import input_files, input_records
from training.system.console import PROGRAM, complain, drop_output, note, say
from training.system.output_names import check_apart

from .parsing import ArgumentParser, add_input_flags, set_help

if TYPE_CHECKING:
    from training.inference.ordering import OrderedStory
    from training.inference.ray_run import Summary

SUMMARY = "Put shuffled sentences in order."
# As in `order_batches` and `ray_run`, which import torch.
BACKENDS = ("torch", "onnx", "onnx-int8")
PART_FORMATS = ("jsonl", "parquet")
PART_SIZE = 2048


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's flags and the text of its help."""
    parser.epilog = (
        'a record of JSONL may constrain the order:\n  {"sentences": [...], "first": 0, "last": 3, "before": [[1, 2]]}'
    )
    add_input_flags(parser)
    parser.add_argument("--model", required=True, metavar="DIR_OR_REPO", help="the trained model")
    parser.add_argument(
        "--output", metavar="FILE", help="file to write: .txt, .jsonl, .csv or .parquet; with --engine, a folder"
    )
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
        "leave an order open if the model is less sure of it than P: these sentences are one layer, bracketed in "
        "text, and 'layers' in other formats",
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
        choices=BACKENDS,
        default="torch",
        help="library that computes the scores; onnx and onnx-int8 need the files that export writes",
    )
    _add_engine_arguments(parser)
    set_help(
        parser,
        "Put shuffled sentences in order. Text has one sentence per line and a blank line between stories; without "
        "INPUT it is read from standard input.",
        examples=[
            "order --model my-first-model stories.txt",
            "order --model me/my-first-model stories.csv --output ordered.jsonl --num_permutations 8",
            "order --model me/my-first-model folder_of_stories --output folder_of_answers --engine ray",
            "order --model my-first-model my_text.txt --ties 0.8 --show_moves",
        ],
        writes="Without --output, the ordered sentences to standard output, as text for text and as JSON lines for "
        "other inputs; messages go to standard error. With --output, the file, which appears when it is complete; "
        "with --engine, a folder, in which the file _SUCCESS appears when it is complete. All formats but text contain "
        "order, scores and confidence as well. A record that could not be ordered is replaced by an error record, and "
        "the exit code is 1.",
    )


def _add_engine_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        choices=["ray"],
        help="order with several processes or machines and write a folder of files: ray is Ray Data, of the extra ray. "
        "The same command resumes after an interruption",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="of a Ray cluster, or auto; without it, Ray is started on this machine (--engine ray)",
    )
    parser.add_number("--num_workers", "maximum number of workers; one on every GPU, else CPU, if not given "
                      "(--engine ray)", at_least=1)  # fmt: skip
    parser.add_number("--part_size", f"records in a file of the output, {PART_SIZE:,} if not given (--engine ray)",
                      at_least=1)  # fmt: skip
    parser.add_argument(
        "--output_format", choices=PART_FORMATS, help="format of these files, jsonl if not given (--engine ray)"
    )


def _check(options: argparse.Namespace) -> None:
    """Refuses options that do not fit each other, and an output over an input."""
    if options.bf16 and options.backend != "torch":
        raise UserError(f"--bf16 needs --backend torch, got {options.backend}: leave it out")
    if options.engine is None:
        for name in ("address", "num_workers", "part_size", "output_format"):
            if getattr(options, name) is not None:
                raise UserError(f"--{name} needs --engine ray")
        if (
            options.output is not None
            and os.path.isdir(options.input or "")
            and not os.path.splitext(options.output)[1]
        ):
            raise UserError(f"--output {options.output}: a folder of answers needs --engine ray; else name a file")
    elif options.input is None or options.output is None:
        raise UserError(f"--engine {options.engine} needs INPUT and --output, a folder for the answers")
    elif os.path.exists(options.output) and not os.path.isdir(options.output):
        raise UserError(f"--output {options.output} is a file, but --engine {options.engine} needs a folder")
    if options.output is not None:
        given = "-" if options.input is None else options.input  # standard input may be a file, too
        check_apart("--output", options.output, data=[given], models=[options.model])


def run(options: argparse.Namespace) -> int:
    """Runs the command; the exit code is 1 if a record could not be ordered."""
    _check(options)
    counter = _Counter()
    next_line = (_write_answers if options.engine is None else _write_with_ray)(options, counter)
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
    from training.inference.order_batches import OrderStories

    if options.output is not None:
        output_format = format_of(options.output)
    elif options.input is None or {format_of_file(path, path) for path in input_files(options.input)} == {"text"}:
        output_format = "text"
    else:
        output_format = "jsonl"
    if options.pairwise and output_format == "text":
        raise UserError("--pairwise cannot be written as text: add --output FILE.jsonl, .csv or .parquet")
    records = input_records(options.input, split_sentences=options.split_sentences)
    order = OrderStories(options.model, **_order_options(options))
    answers = counter.counted(order.answers(records, read_ahead=options.input is not None))
    if options.output is not None:
        progress = tqdm(answers, desc="Ordering", unit=" stories", disable=None, delay=1)
        write_file(progress, options.output, order.answer_options.keys)
        say(f"wrote {options.output}: {counter.total:,} stories")
        return _next(order.config, is_text=output_format == "text")
    try:
        write_stream(answers, sys.stdout, output_format)
    except BrokenPipeError:
        drop_output()  # the reader has stopped, which is not an error
        counter.failed = 0
        return ""
    return "--output FILE.jsonl writes the scores as well"


def _next(config: Any, *, is_text: bool) -> str:
    if is_text:
        return "a name that ends in .jsonl, .csv or .parquet writes the scores as well"
    if config.confidence_temperature is not None:
        return "check the sentences of low confidence first"
    return f"{PROGRAM} evaluate on similar stories measures how good the order is"


def _write_with_ray(options: argparse.Namespace, counter: _Counter) -> str:
    """Writes the answers as files in a folder, with Ray; returns what to do next."""
    from tqdm import tqdm

    from training.inference.order_batches import OrderStories
    from training.inference.ray_cluster import check_installed, connected, model_digests, model_folder, resources
    from training.inference.ray_run import RayRun
    from training.system.run_lock import only_run_in

    check_installed()
    inputs = input_files(options.input)
    config = OrderStories(options.model, **_order_options(options)).config  # reports a bad model here
    folder = Path(options.output)
    with only_run_in("--output", folder):
        model = model_folder(options.model, folder / "_order" / "model" if options.address else None)
        run = RayRun(
            inputs,
            folder,
            model=model_digests(model),
            settings={**_order_options(options), "split_sentences": options.split_sentences},
            part_size=options.part_size or PART_SIZE,
            output_format=options.output_format or PART_FORMATS[0],
        )
        before = sum(summary.records for summary in run.summaries())
        if run.missing():
            with (
                connected(options.address),
                tqdm(desc="Ordering", unit=" stories", initial=before, disable=None, delay=1) as progress,
            ):
                workers, gpus = resources(options.backend)
                for summary in run.order(str(model), options.num_workers or workers, gpus):
                    progress.update(summary.records)
        for summary in run.close():
            counter.add(summary)
    if counter.total == 0:
        raise UserError(f"no stories in {options.input}")
    there = f", {before:,} of which were there already" if before else ""
    say(f"wrote {folder}: {counter.total:,} stories in {len(run.parts):,} files{there}")
    return _next(config, is_text=False)


def _order_options(options: argparse.Namespace) -> dict[str, Any]:
    names = ("backend", "bf16", "batch_size", "batch_tokens", "num_permutations", "pairwise", "ties")
    return {"moves": options.show_moves, **{name: getattr(options, name) for name in names}}


class _Counter:
    """Counts answers, errors among them, and truncated sentences."""

    def __init__(self) -> None:
        self.total = 0
        self.failed = 0
        self.first = ""
        self.truncated = 0
        self.stories_truncated = 0

    def add(self, summary: Summary) -> None:
        self.total += summary.records
        self.failed += summary.failed
        self.first = self.first or summary.first_error
        self.truncated += summary.truncated
        self.stories_truncated += summary.stories_truncated

    def counted(self, answers: Iterable[OrderedStory]) -> Iterator[OrderedStory]:
        for answer in answers:
            self.total += 1
            self.truncated += len(answer.truncated)
            self.stories_truncated += bool(answer.truncated)
            if answer.error is not None:
                self.failed += 1
                self.first = self.first or answer.error
            yield answer
