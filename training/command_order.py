"""`sentence-ordering order`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence

from tqdm import tqdm

from dataset_builder.readers import read_stories
from dataset_builder.story import BadRecord, Story
from dataset_builder.story_files import format_of_name

from .answers import format_of, write_file, write_stream
from .command_line import PROGRAM, OneLineErrors, complain, complete_help, note, say
from .ordering import OrderedStory, order_stories


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
    parser.add_argument("input", nargs="?", metavar="INPUT", help="text (.txt), JSONL, CSV, TSV or Parquet")
    parser.add_argument("--model", required=True, metavar="DIR_OR_REPO", help="the trained model")
    parser.add_argument("--output", metavar="FILE", help="file to write: .txt, .jsonl, .csv or .parquet")
    parser.add_argument("--batch_size", type=int, default=64, help="stories at once (default: 64)")
    parser.add_argument(
        "--num_permutations",
        type=int,
        default=1,
        metavar="K",
        help="average the scores over K arrangements of each story; each counts in --batch_size (default: 1)",
    )
    complete_help(
        parser,
        examples=[
            "order --model my-first-model stories.txt",
            "order --model me/my-first-model stories.csv --output ordered.jsonl --num_permutations 8",
        ],
        writes="Without --output the sentences in order to standard output, as text for text and as JSON lines else; "
        "what there is to say besides goes to standard error. With --output the file, which has its name only when it "
        "is whole. All formats but text give order, scores and confidence as well; a record that could not be ordered "
        "has the reason in its place, and the exit code is 1.",
    )
    return parser


def run(arguments: Sequence[str]) -> int:
    """Runs the command; its exit code: 1 if there is a record that could not be ordered."""
    options = command_parser().parse_args(list(arguments))
    for name in ("batch_size", "num_permutations"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be at least 1, not {getattr(options, name)}")
    if options.output is not None:
        format_of(options.output)
    records = _records(options.input)

    from transformers.utils import logging

    from .trained_model import load_trained_model

    logging.disable_progress_bar()
    model, tokenizer = load_trained_model(options.model)
    if sys.stderr.isatty():
        logging.enable_progress_bar()  # that of a long text
    counter = _Counter(
        order_stories(
            model, tokenizer, records, batch_size=options.batch_size, num_permutations=options.num_permutations
        )
    )
    if options.output is not None:
        write_file(tqdm(counter, desc="Ordering", unit=" stories", disable=None, delay=1), options.output)
        say(f"wrote {options.output}: {counter.total:,} stories")
    else:
        text = options.input is None or format_of_name(options.input) == "text"
        write_stream(counter, sys.stdout, "text" if text else "jsonl")
    if counter.truncated:
        note(
            f"{counter.truncated:,} sentences, in {counter.stories_truncated:,} of {counter.total:,} stories, "
            "are too long for this model: only their beginnings were read"
        )
    if counter.failed:
        complain(f"{counter.failed:,} of {counter.total:,} records could not be ordered; the first: {counter.first}")
        return 1
    _say_what_next(options.output, counter.total, calibrated=model.config.confidence_temperature is not None)
    return 0


def _say_what_next(output: str | None, total: int, *, calibrated: bool) -> None:
    if output is None:  # standard output is for the stories alone
        stories = f"{total:,} {'story' if total == 1 else 'stories'}"
        say(f"{PROGRAM}: ordered {stories}; next: --output FILE.jsonl keeps the scores, too", sys.stderr)
    elif format_of(output) == "text":
        say("next: a name that ends in .jsonl, .csv or .parquet keeps the scores, too")
    elif calibrated:
        say("next: look at the sentences of low confidence; there the order is most in doubt")
    else:
        say(f"next: {PROGRAM} evaluate on stories of that kind tells how far to trust the order")


def _records(path: str | None) -> Iterator[Story | BadRecord]:
    """The stories of the input, with the records that are none in their places."""
    errors: list[BadRecord] = []
    if path is None and sys.stdin.isatty():
        complain("type sentences, one a line, a blank line between stories; Ctrl-D ends the input")
    stories = read_stories(sys.stdin if path is None else path, as_given=True, on_error=errors.append)
    return _merged(stories, errors)


def _merged(stories: Iterable[Story], errors: list[BadRecord]) -> Iterator[Story | BadRecord]:
    for story in stories:
        yield from errors
        errors.clear()
        yield story
    yield from errors


class _Counter:
    """Passes answers on and counts those that are errors, and the sentences that were cut."""

    def __init__(self, answers: Iterable[OrderedStory]) -> None:
        self._answers = answers
        self.total = 0
        self.failed = 0
        self.first = ""
        self.truncated = 0
        self.stories_truncated = 0

    def __iter__(self) -> Iterator[OrderedStory]:
        for answer in self._answers:
            self.total += 1
            self.truncated += len(answer.truncated)
            self.stories_truncated += bool(answer.truncated)
            if answer.error is not None:
                self.failed += 1
                self.first = self.first or answer.error
            yield answer
