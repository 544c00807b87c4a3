"""The card of a data set that `build_dataset` writes: metadata for the Hub, and the text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .configurations import CITATION, CONFIGURATIONS, HOMEPAGE, TERMS, Configuration
from .file_writing import write_text
from .parquet_format import WrittenSplit
from .rights import ROCSTORIES_TAG

_KINDS = {"text": "string", "texts": "list of strings", "numbers": "list of int64"}
_COLUMNS = {
    "storyid": "id of the story in its source",
    "storytitle": "its title, empty if it has none",
    "sentences": "its sentences, shuffled",
    "labels": "`labels[i]` is the original index (from 0) of `sentences[i]` in the story",
    "sentence1": "the sentences in true order",
    "so_targets": "`so_targets[i]` is the original index (from 0) of the i-th sentence of `text` in the story",
    "text": "the sentences, shuffled, each after `[CLS]`",
}
_COLUMN_NAMES = {"sentence1": "`sentence1` … `sentence5`"}  # one row of a table for all five
_SHUFFLES = {
    "shuffled": "in `shuffled`, the shuffle of a story depends only on the seed, its id and its text",
    "guide": "in `guide`, the generator is seeded again for each 1,000 rows of the source, before splitting",
}
_SAMPLE_RIGHTS = "The stories are the sample of sentence-ordering, written for it, under the Apache License 2.0."
_RIGHTS = "The stories belong to their authors and collectors, whose terms apply to this data set too."
_ABOUT_EXAMPLES = "The first stories of `shuffled`; the label is the original index of a sentence in its story, from 0."
_LONGEST_TABLE = 15  # rows; more are summed up
_LONGEST_SENTENCE = 300  # characters; the rest is cut off


def _one_cell(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")


@dataclass(frozen=True)
class CardMarkup:
    """Functions and paragraphs from above this package, which does not import `model_card`.

    Attributes:
        as_text: converts a user's words to Markdown on one line, without any markup from them.
        before, behind: paragraphs around the generated part of the card.
        write: writes the card to a path.
    """

    as_text: Callable[[str], str] = _one_cell
    before: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    write: Callable[[Path, str], object] = write_text


@dataclass(frozen=True)
class BuiltStories:
    """The data set that a card describes.

    Attributes:
        sources: for each file or data set its name without a path, its kind, and its split, if any.
        lengths: by split, the number of stories by their number of sentences.
        files: by configuration and split, the size of `<configuration>/<split>-*.parquet`.
        seed, test_size, validation_size: of the three-way split and the shuffles.
        shared_stories: number of stories that are in more than one split.
        is_sample: whether the stories are the bundled ones.
        rocstories: names of the sources that look like ROCStories.
        license, language: ids of the Hub, if known.
        examples: rows of `shuffled` to show; none unless they may be quoted.
        repo_id: id of the data set's repository on the Hub.
        markup: how the text is formatted.
    """

    sources: Sequence[tuple[str, str, str | None]]
    lengths: Mapping[str, Mapping[int, int]]
    files: Mapping[str, Mapping[str, WrittenSplit]]
    seed: int
    test_size: float | int
    validation_size: float | int
    shared_stories: int = 0
    is_sample: bool = False
    rocstories: Sequence[str] = ()
    license: str | None = None
    language: Sequence[str] = ()
    examples: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    repo_id: str | None = None
    markup: CardMarkup = field(default_factory=CardMarkup, repr=False)

    @property
    def stories(self) -> dict[str, int]:
        """Number of stories by split."""
        return {split: sum(counts.values()) for split, counts in self.lengths.items()}


def dataset_card(built: BuiltStories) -> str:
    """The text of README.md: metadata, a title that users may change, and the generated section."""
    sections = [
        _use(built),
        _counts(built),
        *(_columns(CONFIGURATIONS[name]) for name in built.files),
        _examples(built.examples, built.markup),
        _origin(built),
        _splits(built),
        _rights(built),
        f"## Citation\n\n```bibtex\n{CITATION}```" if built.rocstories else "",
    ]
    return "\n\n".join(
        [
            f"---\n{_metadata(built)}\n---",
            f"# {_title(built)}",
            *built.markup.before,
            *filter(None, sections),
            *built.markup.behind,
            "",
        ]
    )


def _title(built: BuiltStories) -> str:
    return "Shuffled sample stories" if built.is_sample else "Shuffled stories"


def _metadata(built: BuiltStories) -> str:
    from huggingface_hub import DatasetCardData

    data = DatasetCardData(
        language=list(built.language) or None,
        license=built.license,
        pretty_name=_title(built),
        size_categories=[_size_category(sum(built.stories.values()))],
        tags=["sentence-ordering", *([ROCSTORIES_TAG] if built.rocstories else [])],
        configs=[
            {
                "config_name": name,
                "data_files": [{"split": split, "path": f"{name}/{split}-*.parquet"} for split in splits],
                **({"default": True} if name == "shuffled" else {}),
            }
            for name, splits in built.files.items()
        ],
        # Without the features, whose spelling differs in `datasets` 3 and 5; the Parquet files have them.
        dataset_info=[
            {
                "config_name": name,
                "splits": [
                    {"name": split, "num_bytes": some.memory_bytes, "num_examples": some.rows}
                    for split, some in splits.items()
                ],
                "download_size": sum(some.file_bytes for some in splits.values()),
                "dataset_size": sum(some.memory_bytes for some in splits.values()),
            }
            for name, splits in built.files.items()
        ],
    )
    return str(data.to_yaml())


def _use(built: BuiltStories) -> str:
    where = f'load_dataset("{built.repo_id}")'
    if built.repo_id is None:
        where = 'load_dataset("path/to/this/folder")  # or the id of this repository'
    return f"""\
Stories with shuffled sentences, for learning to order them. Written by `sentence-ordering build`.

```python
from datasets import load_dataset

stories = {where}
story = stories["{"test" if "test" in built.stories else next(iter(built.stories))}"][0]
in_order = [sentence for _, sentence in sorted(zip(story["labels"], story["sentences"]))]
```"""


def _counts(built: BuiltStories) -> str:
    stories = [
        (
            f"`{split}`",
            f"{built.stories[split]:,}",
            f"{sum(length * count for length, count in counts.items()):,}",
            _range(counts),
        )
        for split, counts in built.lengths.items()
    ]
    text = _table("Split | Stories | Sentences | Sentences in a story", "---|---:|---:|---", stories)
    present = sorted(set().union(*built.lengths.values()))
    if len(present) == 1:
        return text
    shown = present if len(present) <= _LONGEST_TABLE else present[: _LONGEST_TABLE - 1]
    rows = [(str(length), *(f"{counts.get(length, 0):,}" for counts in built.lengths.values())) for length in shown]
    if rest := present[len(shown) :]:
        sums = (sum(counts.get(length, 0) for length in rest) for counts in built.lengths.values())
        rows.append((f"{rest[0]} to {rest[-1]}", *(f"{total:,}" for total in sums)))
    splits = " | ".join(f"`{split}`" for split in built.lengths)
    return f"{text}\n\n{_table(f'Sentences in a story | {splits}', '---:|' + '---:|' * len(built.lengths), rows)}"


def _range(counts: Mapping[int, int]) -> str:
    if len(counts) == 1:
        return str(*counts)
    mean = sum(length * count for length, count in counts.items()) / sum(counts.values())
    return f"{min(counts)} to {max(counts)}, {mean:.1f} on average"


def _columns(configuration: Configuration) -> str:
    rows = [
        (_COLUMN_NAMES.get(column, f"`{column}`"), _KINDS[kind], _COLUMNS[column])
        for column, kind in configuration.columns.items()
        if column in _COLUMNS
    ]
    table = _table("Column | Type | Meaning", "---|---|---", rows)
    return f"## Configuration `{configuration.name}`\n\n{configuration.description}\n\n{table}"


def _examples(examples: Sequence[Mapping[str, Any]], markup: CardMarkup) -> str:
    if not examples:
        return ""
    shown = []
    for number, row in enumerate(examples, 1):
        pairs = zip(row["labels"][:_LONGEST_TABLE], row["sentences"], strict=False)
        table = _table("Label | Sentence", "---:|---", [(str(label), _plain(text, markup)) for label, text in pairs])
        shown.append(f"**{_plain(row['storytitle'], markup) or f'Story {number}'}**\n\n{table}")
    return "\n\n".join(["## Examples", _ABOUT_EXAMPLES, *shown])


def _origin(built: BuiltStories) -> str:
    rows = [
        (_plain(name, built.markup), kind, f"`{split}`" if split else "none")
        for name, kind, split in built.sources[:_LONGEST_TABLE]
    ]
    if len(built.sources) > len(rows):
        rows.append((f"and {len(built.sources) - len(rows)} more", "", ""))
    table = _table("Source | Kind | Split", "---|---|---", rows)
    text = f"## Sources\n\n{table}"
    if built.rocstories:
        text += (
            "\n\nThese have the layout of ROCStories (Mostafazadeh et al. 2016): "
            f"{', '.join(_plain(name, built.markup) for name in built.rocstories[:_LONGEST_TABLE])}. "
            f"{TERMS}: register at <{HOMEPAGE}>."
        )
    return text


def _splits(built: BuiltStories) -> str:
    sentences = list(_how_it_was_split(built))
    shuffles = "; ".join(_SHUFFLES[name] for name in built.files)
    sentences.append(f"The shuffles have seed {built.seed}: {shuffles}.")
    return "## Splits and shuffles\n\n" + "\n\n".join(sentences)


def _how_it_was_split(built: BuiltStories) -> Iterator[str]:
    kept = [split for *_, split in built.sources if split]
    if kept:
        yield "Sources with splits keep them."
    if len(kept) < len(built.sources):
        yield (
            f"{'All other stories' if kept else 'All stories'} were joined and split with `Dataset.train_test_split`: "
            f"`test_size={built.test_size}`, then `test_size={built.validation_size}` of the held-out part (that is "
            f"`validation`, and the rest is `test`), both with seed {built.seed}."
        )
    if built.shared_stories:
        count = f"{built.shared_stories:,} stories are" if built.shared_stories > 1 else "1 story is"
        yield f"{count} in more than one split, so scores on the later split are too high."
    elif len(built.lengths) > 1:
        yield "No story is in more than one split."


def _rights(built: BuiltStories) -> str:
    text = _SAMPLE_RIGHTS if built.is_sample else _RIGHTS
    if built.license and not built.is_sample:
        text += f" The publisher states the licence `{built.license}`."
    if built.rocstories:
        text += f" {TERMS}."
    return f"## Rights\n\n{text}"


def _table(header: str, rule: str, rows: Sequence[Sequence[str]]) -> str:
    return "\n".join([f"| {header.rstrip()} |", f"|{rule.strip('|')}|", *(f"| {' | '.join(row)} |" for row in rows)])


def _plain(text: str, markup: CardMarkup) -> str:
    """A user's words as a cell of a table; long ones are cut off."""
    cut_off = len(text) > _LONGEST_SENTENCE
    return markup.as_text(text[:_LONGEST_SENTENCE]) + (" …" if cut_off else "")


def _size_category(stories: int) -> str:
    """The Hub's name for a size; https://huggingface.co/docs/hub/datasets-cards."""
    bounds = ["1K", "10K", "100K", "1M", "10M", "100M", "1B"]
    exponent = len(str(stories)) - 3
    if exponent <= 0:
        return "n<1K"
    return f"{bounds[exponent - 1]}<n<{bounds[exponent]}" if exponent < len(bounds) else "n>1B"
