"""What is kept of the stories that a model was trained on: how many, how long, and by which hashes they are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset

from training.data.stories import TokenizedStories, training_sampler
from training.data.streaming import StreamBatchSampler, StreamedStories
from training.models import repository
from training.recipe.recipe import Recipe

# Of a stream: for more, the file of hashes would be larger than many a model, and too large for memory in the end.
MOST_HASHES = 1_000_000
_LOOKED_AT = 10_000  # how many are read for their lengths then


@dataclass(frozen=True)
class TrainedOn:
    """The stories that a run has drawn.

    Attributes:
        stories: how many; of a table, all that are in it.
        sentences: the fewest and the most sentences of one; of a stream too long for hashes, of its first ones.
        hashed: whether the model's folder has their hashes.
    """

    stories: int
    sentences: tuple[int, int]
    hashed: bool = True


def record_table(folder: Path, table: Dataset, stories: TokenizedStories) -> TrainedOn:
    """Writes the hashes of all stories of a table."""
    repository.write_story_hashes(folder, table)
    return TrainedOn(len(stories), (int(stories.num_sentences.min()), int(stories.num_sentences.max())))


def record_stream(folder: Path, stories: StreamedStories, recipe: Recipe, steps: int) -> TrainedOn:
    """Writes the hashes of those stories of a stream that so many steps drew, unless they are more than `MOST_HASHES`.

    They are read once more: what a run that was resumed drew before it was interrupted, it has never seen. `recipe` is
    that of one process.
    """
    sampler = training_sampler(stories, recipe).sampler
    assert isinstance(sampler, StreamBatchSampler)
    drawn = sampler.stories_in(steps)
    lengths: set[int] = set()

    def records() -> Iterator[dict[str, Any]]:
        for story in sampler.drawn(steps):
            lengths.add(len(story.sentences))
            yield {"sentences": story.sentences}

    hashed = drawn <= MOST_HASHES
    if hashed:
        repository.write_story_hashes(folder, records())
    else:
        (folder / repository.STORY_HASHES_FILE).unlink(missing_ok=True)  # those of an earlier model
        for _ in islice(records(), _LOOKED_AT):
            pass
    return TrainedOn(drawn, (min(lengths), max(lengths)), hashed)
