"""The batches that `StoryDataModule` gives to Lightning.

None of these is a `DataLoader`: with several processes Lightning would replace its sampler.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from training.data.batches import BatchShare
from training.data.stories import StoryLoader, TokenizedStories
from training.evaluation.metrics import LABEL_PADDING


class ResumableLoader:
    """Training batches that resume where a checkpoint was written, also in the middle of an epoch."""

    def __init__(self, loader: StoryLoader) -> None:
        assert isinstance(loader.batch_sampler, BatchShare)
        self.batch_sampler = loader.batch_sampler
        self._loader = loader
        self._given = 0
        self._epoch = 0
        self._place = {"epoch": 0, "batches": 0}

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Any]:
        """The rest of the epoch that was resumed, all of any other.

        Nothing happens before the first batch is asked for: Lightning makes an iterator before it sets the epoch, and
        makes another if the epoch that was resumed had no batch left.
        """
        self._epoch = self.batch_sampler.sampler.epoch
        resumed = self._epoch == self._place["epoch"]
        self._given = self.batch_sampler.first = self._place["batches"] if resumed else 0
        self._place = {"epoch": 0, "batches": 0}
        for batch in self._loader:
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the number of its batches that have been given out."""
        return {"epoch": self._epoch, "batches": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Where the next iteration begins, unless `set_epoch` was called for another epoch or is called for one."""
        self._place = state
        self._epoch, self._given = state["epoch"], state["batches"]
        if self.batch_sampler.sampler.epoch == 0:
            self.batch_sampler.set_epoch(state["epoch"])


class FixedLoader:
    """Batches for evaluation.

    Args:
        loader: this process's batches.
        counting: number of batches that count, see `evaluation_share`. The others get no labels.
    """

    def __init__(self, loader: DataLoader[Any], counting: int) -> None:
        self._loader = loader
        self._counting = counting

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        """The batches."""
        for number, batch in enumerate(self._loader):
            if number >= self._counting:
                batch["labels"] = torch.full_like(batch["labels"], LABEL_PADDING)
            yield batch


class ShownStories(TorchDataset[dict[str, Any]]):
    """Stories as the data set's configuration `shuffled` has them: `storyid` and the shuffled `sentences`."""

    def __init__(self, stories: TokenizedStories) -> None:
        self.stories = stories

    def __len__(self) -> int:
        """Number of stories."""
        return len(self.stories)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One story."""
        story = self.stories.stories[int(index)]
        labels = self.stories.dataset_labels(index)
        return {"storyid": story["storyid"], "sentences": [story["sentences"][label] for label in labels]}


def collate_sentences(rows: Sequence[dict[str, Any]]) -> dict[str, list[list[str]]]:
    """The batch that `SentenceOrderingModule.predict_step` takes."""
    return {"sentences": [list(row["sentences"]) for row in rows]}
