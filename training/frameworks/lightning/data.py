"""Stories as a `LightningDataModule`, from sources or data sets; supports several processes and resuming."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset, DatasetDict
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import rank_zero_info
from torch.utils.data import DataLoader

from dataset_builder import UserError, stories_of_rows, story_columns
from modeling_sentence_ordering import (
    DataCollatorForSentenceOrdering,
    SentenceOrderingConfig,
    StoryTokenizer,
)
from training.data.batches import evaluation_share
from training.data.long_texts import describe_long_texts
from training.data.recipe_stories import open_stories, stories_digest, tokenized_split
from training.data.stories import TokenizedStories, evaluation_loader, sentences_of, training_loader
from training.data.streaming import StreamedStories
from training.evaluation.copies import Copies, copies_in_loader
from training.recipe.recipe import Recipe
from training.recipe.settings import settings_of
from training.system.processes import Processes

from .loaders import FixedLoader, ResumableLoader, ShownStories, collate_sentences

# The splits of each of Lightning's stages.
_SPLITS = {
    "fit": ("train", "validation"),
    "validate": ("validation",),
    "test": ("test",),
    "predict": ("test",),
}


class StoryDataModule(LightningDataModule):
    """Stories to train, validate, test and predict on.

    The keyword arguments are fields of the `Recipe` with the same meaning.

    Args:
        data: one of
            - sources as `sentence-ordering train --data` takes them, such as `"sample"` or a list of files;
            - a `DatasetDict` with some of the splits `train`, `validation`, `test` and `predict`;
            - a `Dataset`: the training stories for `fit`, or the stories to order for `predict`.
            A data set has the column `sentences`, and optionally `labels`, the original index of each sentence.
            Without labels the sentences are in their true order. For `predict` the order does not matter; the stories
            are those of the split `predict`, or of `test`.
        tokenizer: the model's tokenizer, or `model.data_collator(tokenizer)`, which also has the encoder's
            limit. Not needed with a `Trainer`, which has the module's.
        validation_data: sources to validate on; then all of `data` is used for training.
        split_sentences: language of prose to split into sentences, such as `"en"`.
        passage_sentences: fewest and most sentences of the passages that long texts are trained and evaluated on.
        streaming: read `data`, which must be Parquet files, during training.
        shuffle_buffer_size: stories in the shuffle buffer of a stream.
        per_device_train_batch_size: stories in one forward pass of training, on each device.
        per_device_train_batch_tokens: most tokens of a batch, instead of a number of stories.
        per_device_eval_batch_size: stories in one forward pass of evaluation, on each device.
        shuffle_sentences: `"fresh"` or `"fixed"`.
        consistency: if above 0, a training batch has each story in two shuffles, for the consistency term.
        train_sampling_strategy: `"group_by_length"` or `"random"`.
        dataloader_num_workers: worker processes of the data loader.
        seed: seed of the order of stories and of the shuffles of sentences.
        data_seed: seed of the split and of the shuffles in evaluation.
        test_size: fraction held out if the data have no splits.
        validation_size: fraction of the held-out stories for validation.

    Attributes:
        splits: the tokenized stories of each split that `setup` has loaded, except a streamed one.
    """

    def __init__(
        self,
        data: Any,
        tokenizer: Any = None,
        *,
        validation_data: list[str] | None = None,
        split_sentences: str | None = None,
        passage_sentences: Sequence[int] | None = None,
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
        passage_sentences = settings_of(Recipe)["passage_sentences"].parse(passage_sentences)
        self.given = given_splits(data)
        if self.given is None:
            data = [data] if isinstance(data, str) else list(data)
            self.save_hyperparameters(ignore=["tokenizer"])
        else:
            self.save_hyperparameters(ignore=["data", "tokenizer"])
        self.tokenizer = tokenizer
        self.splits: dict[str, TokenizedStories] = {}
        self._found: list[str] = []
        self._streamed: StreamedStories | None = None
        self._loads = True
        self._story_tokenizer: StoryTokenizer | None = None
        self._training_loader: ResumableLoader | None = None
        self._position: dict[str, Any] = {}
        self._digest: str | None = None

    @classmethod
    def from_stories(
        cls, splits: Mapping[str, TokenizedStories], recipe: Recipe, streamed: StreamedStories | None = None
    ) -> StoryDataModule:
        """A data module for stories that are tokenized or streamed, with the recipe's batches."""
        fields = [name for name in inspect.signature(cls).parameters if name != "tokenizer"]
        module = cls(**{name: getattr(recipe, name) for name in fields})
        module.splits = dict(splits)
        module._streamed = streamed
        module._loads = False
        return module

    @property
    def recipe(self) -> Recipe:
        """The recipe with the fields of this module; the others have their defaults."""
        return Recipe(**self.hparams)

    def prepare_data(self) -> None:
        """Downloads, reads and tokenizes into the cache. Called in one process; it sets nothing on `self`."""
        if self._loads and self.given is None:
            open_stories(self.recipe).tokenized(self._tokenizer_in_use(), self.hparams["data_seed"])

    def setup(self, stage: str | None = None) -> None:
        """Loads the splits of a stage from the cache. Called in every process."""
        self._position, self._digest = {}, None
        if not self._loads or (self.given is not None and stage == "predict"):
            return
        story_tokenizer = self._tokenizer_in_use()
        if self._story_tokenizer is not story_tokenizer:
            self._story_tokenizer, self.splits = story_tokenizer, {}  # another tokenizer
        wanted = {split for name, splits in _SPLITS.items() if stage in (None, name) for split in splits}
        missing = wanted - self.splits.keys()
        data_seed = self.hparams["data_seed"]
        if self.given is not None:
            for name in missing & self.given.keys():
                sizes = self.hparams["passage_sentences"]
                self.splits[name] = tokenized_split(name, self.given[name], story_tokenizer, data_seed, sizes)
        elif missing:
            stories = open_stories(self.recipe)
            self.splits |= stories.tokenized(story_tokenizer, data_seed, missing)
            self._found = list(stories.splits)
            if stories.stream is not None:
                self._streamed = StreamedStories(stories.stream, story_tokenizer)

    def training_sentences(self) -> Iterator[list[str]]:
        """The sentences of each training story, read lazily."""
        if self.given is None:
            yield from open_stories(self.recipe).sentences
        elif "train" in self.given:
            yield from sentences_of(stories_of_rows(self.given["train"]))

    def train_dataloader(self) -> ResumableLoader:
        """This process's share of the training batches, from the checkpoint on if one was loaded.

        Raises:
            UserError: if the checkpoint is from training on other stories.
        """
        if self._position.get("stories", self._digest_of_training_stories) != self._digest_of_training_stories:
            raise UserError("the checkpoint is from training on other stories: the data have changed")
        batches_per_step = 1 if self.trainer is None else self.trainer.accumulate_grad_batches
        recipe = dataclasses.replace(self.recipe, gradient_accumulation_steps=batches_per_step)
        stories = self._split("train") if self._streamed is None else self._streamed
        if self._loads and (line := describe_long_texts(stories, recipe)) is not None:
            rank_zero_info(line)
        self._training_loader = ResumableLoader(training_loader(stories, recipe, self._processes))
        if self._position:
            self._training_loader.load_state_dict(self._position)
            self._position = {}
        return self._training_loader

    def val_dataloader(self) -> FixedLoader | list[Any]:
        """This process's share of the validation stories; empty if there are none."""
        return self._evaluation_share("validation") if "validation" in self.splits else []

    def test_dataloader(self) -> FixedLoader:
        """This process's share of the test stories."""
        return self._evaluation_share("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """The stories to order, in batches `{"sentences": [...]}`."""
        return DataLoader(
            self.shown_stories(),
            batch_size=self.hparams["per_device_eval_batch_size"],
            collate_fn=collate_sentences,
            num_workers=self.hparams["dataloader_num_workers"],
        )

    def shown_stories(self) -> Any:
        """The stories that `predict` orders: indexable rows with `sentences`."""
        if self.given is None:
            return ShownStories(self._split("test"))
        only = list(self.given) if len(self.given) == 1 else []
        for name in ("predict", "test", *only):
            if name in self.given:
                return self.given[name]
        raise UserError(f"the data have no split 'predict' or 'test'; they have {', '.join(self.given)}")

    def state_dict(self) -> dict[str, Any]:
        """The position of training in its epoch.

        Lightning saves the state of the loader too, but does not restore it if the number of steps was read before, as
        for the learning-rate schedule.
        """
        if self._training_loader is None:
            return {}
        position = {**self._training_loader.state_dict(), "processes": self._processes.world_size}
        return {**position, "stories": self._digest_of_training_stories}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Sets the position at which the next training loader begins.

        Raises:
            UserError: if the checkpoint is from another number of processes.
        """
        written, now = state_dict.get("processes", 1), self._processes.world_size
        if state_dict and written != now:
            raise UserError(f"the checkpoint was written by {written} processes: resume it with as many, not {now}")
        self._position = state_dict

    @property
    def _digest_of_training_stories(self) -> str:
        if self._digest is None:
            streamed = self._streamed
            self._digest = streamed.stream.digest() if streamed else stories_digest(self._split("train").stories)
        return self._digest

    def copies(self, split: str) -> Copies:
        """The stories of a split with identical sentences, in the order of its loader."""
        return copies_in_loader(self._split(split), self.hparams["per_device_eval_batch_size"])

    def _evaluation_share(self, split: str) -> FixedLoader:
        stories, batch_size = self._split(split), self.hparams["per_device_eval_batch_size"]
        loader = evaluation_loader(stories, batch_size, self.hparams["dataloader_num_workers"], self._processes)
        return FixedLoader(loader, evaluation_share(stories.lengths, batch_size, self._processes)[1])

    @property
    def _processes(self) -> Processes:
        trainer = self.trainer
        return Processes() if trainer is None else Processes(trainer.global_rank, trainer.world_size)

    def _split(self, name: str) -> TokenizedStories:
        if name not in self.splits:
            sources = "the data have" if self.given is not None else f"{', '.join(self.hparams['data'])}:"
            found = self.given or self._found or self.splits
            raise UserError(f"{sources} no {name} stories (found: {', '.join(found) or 'none'})")
        return self.splits[name]

    def _tokenizer_in_use(self) -> StoryTokenizer:
        """The module's, or without a `Trainer` the one given here."""
        module = None if self.trainer is None else self.trainer.lightning_module
        if module is not None:
            return module.story_tokenizer  # type: ignore[return-value]
        if self._story_tokenizer is None and self.tokenizer is None:
            raise UserError(
                "without a Trainer the stories need a tokenizer: StoryDataModule(data, model.data_collator(tokenizer))"
            )
        return self._story_tokenizer or as_story_tokenizer(self.tokenizer)


def given_splits(data: Any) -> dict[str, Dataset] | None:
    """The splits of loaded data; None for sources.

    Raises:
        UserError: if they have no stories.
    """
    if isinstance(data, Dataset):
        data = {"train": data}
    elif isinstance(data, str) or not isinstance(data, (DatasetDict, Mapping)):
        if not isinstance(data, (str, list, tuple)):
            raise UserError(
                f"data is a source, a list of sources, a Dataset or a DatasetDict, not {type(data).__name__}"
            )
        return None
    for name, rows in data.items():
        story_columns(rows.column_names, name)
    return dict(data)


def as_story_tokenizer(tokenizer: Any) -> StoryTokenizer:
    """A `StoryTokenizer` from a collator, or from a tokenizer with the marker."""
    if isinstance(tokenizer, StoryTokenizer):
        return tokenizer
    if isinstance(tokenizer, DataCollatorForSentenceOrdering):
        return StoryTokenizer(tokenizer.tokenizer, tokenizer.config)
    separator, longest = tokenizer.sep_token_id, tokenizer.model_max_length
    config = SentenceOrderingConfig(
        marker_token_id=tokenizer.cls_token_id,
        separator_token_id=None if separator == tokenizer.cls_token_id else separator,
        max_input_tokens=longest if longest < 10**9 else None,  # transformers' placeholder for no limit is 10**30
    )
    return StoryTokenizer(tokenizer, config)
