"""Any of our sources of stories as a `LightningDataModule`, right under several processes and after resuming."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from modeling_sentence_ordering import StoryTokenizer
from training.data.batches import BatchShare, evaluation_share
from training.data.recipe_stories import open_stories, stories_digest
from training.data.stories import (
    EvaluationStories,
    StoryCollator,
    StoryLoader,
    TokenizedStories,
    evaluation_loader,
    training_loader,
)
from training.data.streaming import StreamedStories
from training.evaluation.metrics import LABEL_PADDING
from training.recipe.recipe import Recipe
from training.system.processes import Processes

# The splits that each of Lightning's stages reads.
_SPLITS = {
    "fit": ("train", "validation"),
    "validate": ("validation",),
    "test": ("test",),
    "predict": ("test",),
}


class StoryDataModule(LightningDataModule):
    """Stories to train, validate and test on. The tokenizer is that of the module they are used with.

    The arguments are fields of the `Recipe`, and mean what they mean there.

    Args:
        data: sources, as `sentence-ordering train --data` takes them.
        validation_data: stories to validate on; then all of `data` is trained on.
        streaming: read `data`, which are then Parquet files, while they are trained on.
        shuffle_buffer_size: stories among which one is shuffled then.
        per_device_train_batch_size: stories in one forward pass of training, on each device.
        per_device_train_batch_tokens: tokens of such a pass, instead of a number of stories.
        per_device_eval_batch_size: stories in one forward pass of evaluation, on each device.
        shuffle_sentences: `"fresh"` or `"fixed"`.
        consistency: with more than 0, a training batch shows each story in two shuffles, for the consistency term.
        train_sampling_strategy: `"group_by_length"` or `"random"`.
        dataloader_num_workers: processes that prepare batches.
        seed: decides the order of stories and the shuffles of sentences.
        data_seed: seed of the split and of the evaluation's shuffles.
        test_size: share held out where the data bring no splits.
        validation_size: share of that which is for validation.

    Attributes:
        splits: the tokenized stories of each split that `setup` was asked for, but for those that are streamed.
    """

    def __init__(
        self,
        data: list[str],
        *,
        validation_data: list[str] | None = None,
        streaming: bool = False,
        shuffle_buffer_size: int = 10_000,
        per_device_train_batch_size: int = 16,
        per_device_train_batch_tokens: int | None = None,
        per_device_eval_batch_size: int = 64,
        shuffle_sentences: str = "fresh",
        consistency: float = 0.0,
        train_sampling_strategy: str = "group_by_length",
        dataloader_num_workers: int = 0,
        seed: int = 42,
        data_seed: int = 42,
        test_size: float = 0.2,
        validation_size: float = 0.3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.splits: dict[str, TokenizedStories] = {}
        self._streamed: StreamedStories | None = None
        self._loads = True
        self._story_tokenizer: StoryTokenizer | None = None
        self._training_loader: ResumableLoader | None = None
        self._place: dict[str, Any] = {}
        self._digest: str | None = None

    @classmethod
    def around(
        cls, splits: Mapping[str, TokenizedStories], recipe: Recipe, streamed: StreamedStories | None = None
    ) -> StoryDataModule:
        """Stories that are tokenized already, or streamed to be trained on, in batches as the recipe says."""
        module = cls(**{name: getattr(recipe, name) for name in inspect.signature(cls).parameters})
        module.splits = dict(splits)
        module._streamed = streamed
        module._loads = False
        return module

    @property
    def recipe(self) -> Recipe:
        """What this module knows of the recipe, the rest at its defaults."""
        return Recipe(**self.hparams)

    def prepare_data(self) -> None:
        """Downloads, reads and tokenizes into the cache; called in one process, it leaves no trace on `self`."""
        if self._loads:
            story_tokenizer = self._tokenizer_of_module()
            open_stories(self.recipe).tokenized(story_tokenizer, self.hparams["data_seed"])

    def setup(self, stage: str | None = None) -> None:
        """The splits that a stage needs, from the cache; called in every process."""
        self._place, self._digest = {}, None
        if not self._loads:
            return
        if self._story_tokenizer is not self._tokenizer_of_module():
            self._story_tokenizer, self.splits = self._tokenizer_of_module(), {}  # another model has other ids
        wanted = {split for name, splits in _SPLITS.items() if stage in (None, name) for split in splits}
        missing = wanted - self.splits.keys()
        if missing:
            stories, data_seed = open_stories(self.recipe), self.hparams["data_seed"]
            self.splits |= stories.tokenized(self._story_tokenizer, data_seed, missing)
            if stories.stream is not None:
                self._streamed = StreamedStories(stories.stream, self._story_tokenizer)

    def training_sentences(self) -> Iterator[list[str]]:
        """The sentences of each training story; nothing is read before the first is asked for."""
        yield from open_stories(self.recipe).sentences

    def train_dataloader(self) -> ResumableLoader:
        """This process's share of the recipe's batches, from where a checkpoint was written on.

        Raises:
            ValueError: if the checkpoint was written in training on other stories.
        """
        if self._place.get("stories", self._digest_of_training_stories) != self._digest_of_training_stories:
            raise ValueError("the checkpoint was written in training on other stories: the data have changed")
        trainer = self._attached_trainer()
        recipe = dataclasses.replace(self.recipe, gradient_accumulation_steps=trainer.accumulate_grad_batches)
        stories = self._split("train") if self._streamed is None else self._streamed
        self._training_loader = ResumableLoader(training_loader(stories, recipe, self._processes))
        if self._place:
            self._training_loader.load_state_dict(self._place)
            self._place = {}
        return self._training_loader

    def val_dataloader(self) -> FixedLoader | list[Any]:
        """This process's share of the validation stories; nothing where there are none."""
        return self._evaluation_share("validation") if "validation" in self.splits else []

    def test_dataloader(self) -> FixedLoader:
        """This process's share of the test stories."""
        return self._evaluation_share("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """The test stories in their own order, so that the predictions come out in it, too."""
        stories = self._split("test")
        return DataLoader(
            EvaluationStories(stories),
            batch_size=self.hparams["per_device_eval_batch_size"],
            collate_fn=StoryCollator(stories.story_tokenizer),
            num_workers=self.hparams["dataloader_num_workers"],
        )

    def state_dict(self) -> dict[str, Any]:
        """Where training stands in its epoch.

        The loader is asked for it by Lightning as well, but what it answered is not read again if anything, such as
        the learning rate's schedule, has asked how long training takes before the loops are restored.
        """
        if self._training_loader is None:
            return {}
        place = {**self._training_loader.state_dict(), "processes": self._processes.world_size}
        return {**place, "stories": self._digest_of_training_stories}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Where the next training loader is to begin.

        Raises:
            ValueError: if that is a place in the share of another number of processes.
        """
        written, now = state_dict.get("processes", 1), self._processes.world_size
        if state_dict and written != now:
            raise ValueError(f"the checkpoint was written by {written} processes: it goes on with as many, not {now}")
        self._place = state_dict

    @property
    def _digest_of_training_stories(self) -> str:
        if self._digest is None:
            streamed = self._streamed
            self._digest = streamed.stream.digest() if streamed else stories_digest(self._split("train").stories)
        return self._digest

    def _evaluation_share(self, split: str) -> FixedLoader:
        stories, batch_size = self._split(split), self.hparams["per_device_eval_batch_size"]
        loader = evaluation_loader(stories, batch_size, self.hparams["dataloader_num_workers"], self._processes)
        return FixedLoader(loader, evaluation_share(stories.lengths, batch_size, self._processes)[1])

    @property
    def _processes(self) -> Processes:
        trainer = self._attached_trainer()
        return Processes(trainer.global_rank, trainer.world_size)

    def _split(self, name: str) -> TokenizedStories:
        if name not in self.splits:
            there = ", ".join(self.splits) or "none"
            raise ValueError(f"the data have no {name} stories; there is {there}")
        return self.splits[name]

    def _attached_trainer(self) -> Any:
        if self.trainer is None:
            raise ValueError("a StoryDataModule is used by a Trainer: trainer.fit(module, datamodule=stories)")
        return self.trainer

    def _tokenizer_of_module(self) -> StoryTokenizer:
        return self._attached_trainer().lightning_module.story_tokenizer


class ResumableLoader:
    """Training batches that go on where a checkpoint was written, in the middle of an epoch, too.

    No `DataLoader` itself: Lightning would put a sampler of its own into it under several processes.
    """

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

        Nothing happens before the first batch is asked for: Lightning makes an iterator before it says which epoch
        it is, and makes another if the epoch that was resumed had no batch left.
        """
        self._epoch = self.batch_sampler.sampler.epoch
        resumed = self._epoch == self._place["epoch"]
        self._given = self.batch_sampler.first = self._place["batches"] if resumed else 0
        self._place = {"epoch": 0, "batches": 0}
        for batch in self._loader:
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, and how many of its batches have been given out."""
        return {"epoch": self._epoch, "batches": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Where the next iteration begins, unless `set_epoch` has said or says that it is another epoch."""
        self._place = state
        self._epoch, self._given = state["epoch"], state["batches"]
        if self.batch_sampler.sampler.epoch == 0:
            self.batch_sampler.set_epoch(state["epoch"])


class FixedLoader:
    """Batches for evaluation; no `DataLoader`, for the reason that `ResumableLoader` has.

    Args:
        loader: this process's batches.
        counting: how many of them count, see `evaluation_share`. Sentences of the others have no labels.
    """

    def __init__(self, loader: DataLoader[Any], counting: int) -> None:
        self._loader = loader
        self._counting = counting

    def __len__(self) -> int:
        """Batches."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        """The batches."""
        for place, batch in enumerate(self._loader):
            if place >= self._counting:
                batch["labels"] = torch.full_like(batch["labels"], LABEL_PADDING)
            yield batch
