"""`sentence-ordering score`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_builder import UserError
from training.inference.story_input import input_records
from training.system.console import PROGRAM, complain, note, say, show
from training.system.output_names import check_apart, check_file_name

from .parsing import ArgumentParser, add_input_flags, set_help

if TYPE_CHECKING:
    from training.inference.ordering import OrderedStory

SUMMARY = "Score how well the sentences of texts stand in the order they have."
_SUFFIXES = {"--output": (".jsonl", ".csv"), "--output_json": (".json",), "--plot": (".png",)}


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's flags and the text of its help."""
    add_input_flags(parser)
    parser.add_argument("--model", required=True, metavar="DIR_OR_REPO", help="the trained model, calibrated")
    parser.add_argument(
        "--group_by", metavar="COLUMN", help="column such as genre or author: means of its values, with intervals"
    )
    parser.add_argument("--output", metavar="FILE", help="file for the texts: .jsonl or .csv")
    parser.add_argument("--output_json", metavar="FILE", help="file for the means of all texts and of each group")
    parser.add_argument("--plot", metavar="FILE", help="PNG for a plot of the means of each group")
    parser.add_number("--batch_tokens", "tokens in a batch, with padding", default=8192, at_least=1)
    parser.add_number("--batch_size", "maximum number of texts in a batch", at_least=1)
    parser.add_number(
        "--num_permutations",
        "average over K arrangements of each text, as in order",
        default=1,
        metavar="K",
        at_least=1,
    )
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16, as in order")
    set_help(
        parser,
        "Score how well the sentences of texts stand in the order they have, in the judgement of a model.",
        examples=[
            "score --model my-first-model my_text.txt",
            "score --model me/my-first-model novels.jsonl --group_by genre --output scores.csv --plot genres.png",
        ],
        writes="For each text a line to standard output: the mean log-probability of the order of its pairs, Kendall's "
        "tau between the given and the predicted order, and the weakest joint. With --output the texts to the file "
        "instead. Then the means of all texts and of each group, with 95% bootstrap intervals. A record that could not "
        "be scored is replaced by an error record, and the exit code is 1.",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command; the exit code is 1 if a record could not be scored."""
    for flag, suffixes in _SUFFIXES.items():
        path = getattr(options, flag.removeprefix("--"))
        if path is None:
            continue
        check_file_name(flag, path)
        given = "-" if options.input is None else options.input
        check_apart(flag, path, data=[given], models=[options.model])
        if Path(path).suffix.lower() not in suffixes:
            raise UserError(f"{flag} {path}: the name must end in {' or '.join(suffixes)}")
    if options.plot is not None and options.group_by is None:
        raise UserError("--plot shows groups: add --group_by COLUMN")
    records = input_records(options.input, split_sentences=options.split_sentences, group_by=options.group_by)

    from training.inference.coherence import Summary, write_scores

    summary, failed = Summary(), list[str]()
    answers = summary.counted(_without_errors(_scored(options, records), failed, keep=options.output is not None))
    if options.output is not None:
        write_scores(answers, options.output)
        say(f"wrote {options.output}")
    else:
        for answer in answers:
            show(_line(answer))
    _report(options, summary.of_all(), summary.of_groups())
    if summary.unscored:
        note(f"{summary.unscored:,} texts have no two different sentences and were not scored")
    if failed:
        complain(f"{len(failed):,} records could not be scored; the first: {failed[0]}")
        return 1
    return 0


def _scored(options: argparse.Namespace, records: Iterable[Any]) -> Iterator[OrderedStory]:
    from tqdm import tqdm
    from transformers.utils import logging

    from modeling_sentence_ordering import AnswerOptions
    from training.inference.ordering import order_stories
    from training.models.trained_model import load_trained_model
    from training.system.device import limit_kernel_caches

    logging.disable_progress_bar()
    limit_kernel_caches()
    model, tokenizer = load_trained_model(options.model, bf16=options.bf16)
    answer_options = AnswerOptions(score=True)
    try:
        answer_options.check_calibration(model.config.confidence_temperature)
    except ValueError as error:
        raise UserError(f"--model {options.model}: {error}") from None
    answers = order_stories(
        model,
        tokenizer,
        records,
        batch_size=options.batch_size,
        batch_tokens=options.batch_tokens,
        num_permutations=options.num_permutations,
        answer_options=answer_options,
        read_ahead=options.input is not None,
    )
    return iter(tqdm(answers, desc="Scoring", unit=" texts", disable=None if options.output else True, delay=1))


def _without_errors(answers: Iterable[OrderedStory], failed: list[str], *, keep: bool) -> Iterator[OrderedStory]:
    """Collects the messages of error records; they are answers, too, if they are to be kept."""
    for answer in answers:
        if answer.error is not None:
            failed.append(answer.error)
        if answer.error is None or keep:
            yield answer


def _line(answer: OrderedStory) -> str:
    found = answer.coherence or {}
    name = answer.story.storyid if answer.story is not None else ""
    if found.get("log_probability") is None:
        return f"{name}: not scored, no two different sentences"
    weakest = found["weakest_joints"][0]
    index = weakest["index"]
    return (
        f"{name}: log-probability {found['log_probability']:.3f}, tau {found['kendalls_tau']:.2f}, weakest joint "
        f"{index + 1}|{index + 2} ({weakest['probability']:.2f})"
    )


def _report(options: argparse.Namespace, total: Mapping[str, Any], groups: Mapping[str, Any]) -> None:
    """Prints, writes and draws the means of all texts and of the groups."""
    show(f"\n{_means('all texts', total)}" if total["texts"] else "no text was scored")
    if options.group_by is not None:
        for name, group in groups.items():
            show(_means(f"{options.group_by}: {name or '(empty)'}", group))
    if options.output_json is not None:
        from training.models.model_folder import write_json

        named = {"group_by": options.group_by, "groups": groups} if options.group_by is not None else {}
        write_json(options.output_json, {"all": dict(total), **named})
        say(f"wrote {options.output_json}")
    if options.plot is not None and groups:
        from model_card.plots import plot_groups

        plot_groups({name or "(empty)": group for name, group in groups.items()}, options.plot, name=options.group_by)
        say(f"wrote {options.plot}")
    if options.output is None:
        say(f"{PROGRAM}: --output FILE.jsonl writes all joints as well", sys.stderr)


def _means(name: str, summary: Mapping[str, Any]) -> str:
    parts = []
    for words, key in (("log-probability", "log_probability"), ("tau", "kendalls_tau")):
        interval = summary["intervals"].get(key)
        around = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
        parts.append(f"{words} {summary[key]:.3f}{around}")
    return f"{name}, {summary['texts']:,} texts: {', '.join(parts)}"
