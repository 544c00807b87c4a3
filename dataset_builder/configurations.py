"""The two configurations of the data set, "shuffled" and "guide": their columns, their rows, and ROCStories itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from .splitting import Portion
from .story import ROC_SENTENCES, BadRecord, Story, story_hash

if TYPE_CHECKING:
    from datasets import Features

GUIDE_BATCH = 1000
HOMEPAGE = "https://cs.rochester.edu/nlp/rocstories/"
TERMS = "ROCStories asks its users to register with its authors and not to pass the stories on"
CITATION = """\
@inproceedings{mostafazadeh-etal-2016-corpus,
    title = "A Corpus and Cloze Evaluation for Deeper Understanding of Commonsense Stories",
    author = "Mostafazadeh, Nasrin and Chambers, Nathanael and He, Xiaodong and Parikh, Devi and Batra, Dhruv and
      Vanderwende, Lucy and Kohli, Pushmeet and Allen, James",
    booktitle = "Proceedings of NAACL-HLT 2016",
    year = "2016",
    url = "https://aclanthology.org/N16-1098",
    doi = "10.18653/v1/N16-1098",
    pages = "839--849"
}
"""


@dataclass(frozen=True)
class Configuration:
    """One layout of the rows.

    Attributes:
        name: the name that `load_dataset` takes.
        description: one sentence, for cards.
        columns: names and kinds of the columns: "text", "texts" or "numbers".
        row: makes a row from the story's fields, its 0-based position in file order and the seed.
        sentences: how many sentences every story has to have, or None.
    """

    name: str
    description: str
    columns: Mapping[str, str]
    row: Callable[[Mapping[str, Any], int, int], dict[str, Any]]
    sentences: int | None = None

    @property
    def features(self) -> Features:
        """The columns as features of `datasets` 3 to 5."""
        from datasets import Features, Sequence, Value

        kinds = {"text": Value("string"), "texts": Sequence(Value("string")), "numbers": Sequence(Value("int64"))}
        return Features({column: kinds[kind] for column, kind in self.columns.items()})

    def check(self, story: Story) -> None:
        """Raise BadRecord if the configuration needs another number of sentences."""
        if self.sentences not in (None, len(story.sentences)):
            reason = f"{len(story.sentences)} sentences, but the configuration '{self.name}' needs {self.sentences}"
            raise BadRecord(story.file, story.row, f"{reason}; use 'shuffled'")

    def rows_of_portion(self, portion: Portion, seed: int) -> Iterator[dict[str, Any]]:
        """The rows of a portion of a split, in its order."""
        stories = portion.stories.remove_columns("text_hash").select(portion.rows)
        for story, position in zip(stories, portion.rows.tolist(), strict=True):
            yield self.row(story, position, seed)

    def rows_of_stories(self, stories: Iterable[Story], seed: int) -> Iterator[dict[str, Any]]:
        """The rows of stories that come in file order."""
        for position, story in enumerate(stories):
            self.check(story)
            fields = {"storyid": story.storyid, "storytitle": story.title, "sentences": story.sentences}
            yield self.row(fields, position, seed)


def shuffled_labels(storyid: str, sentences: Sequence[str], seed: int, epoch: int = 0) -> list[int]:
    """Original indices of a story's sentences in shuffled order, see `shuffle_of_story`."""
    return shuffle_of_story(story_key(storyid, sentences), len(sentences), seed, epoch)


def story_key(storyid: str, sentences: Sequence[str]) -> str:
    """Identifies a story in `shuffle_of_story`: its id and a hash of its text."""
    return f"{storyid}/{story_hash(sentences)}"


def shuffle_of_story(key: str, num_sentences: int, seed: int, epoch: int = 0) -> list[int]:
    """The shuffle of a story in the configuration `shuffled`, in evaluation and in training.

    It depends only on the arguments: not on the story's row or split, on other stories or on the process.

    Args:
        key: from `story_key`.
        num_sentences: sentences of the story.
        seed: the seed.
        epoch: epoch of training, counted from 0. The configuration `shuffled` is epoch 0.

    Returns:
        A permutation of 0 … num_sentences - 1: the original index of each sentence in shuffled order.
    """
    labels = list(range(num_sentences))
    generator_of_story(key, seed, epoch).shuffle(labels)
    return labels


def generator_of_story(key: str, seed: int, epoch: int = 0) -> random.Random:
    """Random numbers that depend only on a story, a seed and an epoch; see `shuffle_of_story`."""
    return random.Random(f"{seed}/{key}/{epoch}" if epoch else f"{seed}/{key}")


@cache
def guide_orders(seed: int, sentences: int = 5) -> list[list[int]]:
    """The guide's shuffle of the i-th story in each 1,000: it seeded its generator anew for each batch of 1,000."""
    generator = random.Random(seed)
    orders = []
    for _ in range(GUIDE_BATCH):
        orders.append(list(range(sentences)))
        generator.shuffle(orders[-1])
    return orders


def _shuffled_row(story: Mapping[str, Any], _position: int, seed: int) -> dict[str, Any]:
    labels = shuffled_labels(story["storyid"], story["sentences"], seed)
    return {
        "storyid": story["storyid"],
        "storytitle": story["storytitle"],
        "sentences": [story["sentences"][label] for label in labels],
        "labels": labels,
    }


def _guide_row(story: Mapping[str, Any], position: int, seed: int) -> dict[str, Any]:
    targets = guide_orders(seed)[position % GUIDE_BATCH]
    return {
        **dict(zip(ROC_SENTENCES, story["sentences"], strict=True)),
        "so_targets": targets,
        "storyid": story["storyid"],
        "storytitle": story["storytitle"],
        "text": "[CLS] " + " [CLS] ".join(story["sentences"][target] for target in targets),
    }


CONFIGURATIONS = {
    "shuffled": Configuration(
        "shuffled",
        "The sentences of a story in shuffled order, and the original index of each.",
        {"storyid": "text", "storytitle": "text", "sentences": "texts", "labels": "numbers"},
        _shuffled_row,
    ),
    "guide": Configuration(
        "guide",
        "The columns of the 2021 guide, with its shuffle: seeded anew for each 1,000 rows.",
        {
            **dict.fromkeys(ROC_SENTENCES, "text"),
            "so_targets": "numbers",
            "storyid": "text",
            "storytitle": "text",
            "text": "text",
        },
        _guide_row,
        sentences=5,
    ),
}
