"""The loaders of `StoryDataModule`. They are not `DataLoader`s, whose sampler Lightning would replace."""

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
    """Training batches that resume at a checkpoint, also within an epoch."""

    def __init__(self, loader: StoryLoader) -> None:
        assert isinstance(loader.batch_sampler, BatchShare)
        self.batch_sampler = loader.batch_sampler
        self._loader = loader
        self._yielded = 0
        self._epoch = 0
        self._position = {"epoch": 0, "batches": 0}

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Any]:
        """The rest of a resumed epoch, or all of another one.

        Lazy, because Lightning makes an iterator before it sets the epoch, and a second one if the resumed epoch has no
        batch left.
        """
        self._epoch = self.batch_sampler.sampler.epoch
        resumed = self._epoch == self._position["epoch"]
        self._yielded = self.batch_sampler.first = self._position["batches"] if resumed else 0
        self._position = {"epoch": 0, "batches": 0}
        for batch in self._loader:
            self._yielded += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch and the number of batches that were yielded."""
        return {"epoch": self._epoch, "batches": self._yielded}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Sets the position of the next iteration, unless `set_epoch` sets another epoch."""
        self._position = state
        self._epoch, self._yielded = state["epoch"], state["batches"]
        if self.batch_sampler.sampler.epoch == 0:
            self.batch_sampler.set_epoch(state["epoch"])


class FixedLoader:
    """Batches for evaluation.

    Args:
        loader: this process's batches.
        counting: number of batches that count, see `evaluation_share`. The labels of the others are padding.
    """

    def __init__(self, loader: DataLoader[Any], counting: int) -> None:
        self._loader = loader
        self._counting = counting

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self._loader):
            if number >= self._counting:
                batch["labels"] = torch.full_like(batch["labels"], LABEL_PADDING)
            yield batch


class ShownStories(TorchDataset[dict[str, Any]]):
    """Stories in the data set's configuration `shuffled`: `storyid` and the shuffled `sentences`."""

    def __init__(self, stories: TokenizedStories) -> None:
        self.stories = stories

    def __len__(self) -> int:
        return len(self.stories)

    def __getitem__(self, index: int) -> dict[str, Any]:
        story = self.stories.stories[int(index)]
        labels = self.stories.dataset_labels(index)
        return {"storyid": story["storyid"], "sentences": [story["sentences"][label] for label in labels]}


def collate_sentences(rows: Sequence[dict[str, Any]]) -> dict[str, list[list[str]]]:
    """A batch for `SentenceOrderingModule.predict_step`."""
    return {"sentences": [list(row["sentences"]) for row in rows]}
