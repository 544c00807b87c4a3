"""Stories as a `LightningDataModule`: what is prepared once, set up everywhere, shared out, and resumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pytest

from modeling_sentence_ordering import SentenceOrderingModel, StoryTokenizer, load_tokenizer
from tests.training.small_runs import small_run
from training.data import stories as tokenized_stories
from training.data.stories import TokenizedStories, training_loader
from training.frameworks.lightning.data import StoryDataModule
from training.frameworks.lightning.loaders import ResumableLoader
from training.recipe.recipe import Recipe


@dataclass
class StandInModule:
    """What the data module needs of the module."""

    story_tokenizer: StoryTokenizer


@dataclass
class StandInTrainer:
    """What the data module needs of Lightning's Trainer."""

    lightning_module: StandInModule
    accumulate_grad_batches: int = 2
    global_rank: int = 0
    world_size: int = 1


@pytest.fixture
def story_tokenizer(home: Path) -> StoryTokenizer:
    folder = str(home / "tiny-bert")
    return StoryTokenizer(load_tokenizer(folder), SentenceOrderingModel.from_encoder(folder).config)


@pytest.fixture
def attached(home: Path, story_tokenizer: StoryTokenizer) -> StoryDataModule:
    """A data module that a trainer is about to use: 48 stories to train on, 4 to validate and 8 to test on."""
    module = StoryDataModule([str(home / "stories.jsonl")], per_device_train_batch_size=8)
    module.trainer = StandInTrainer(StandInModule(story_tokenizer))  # type: ignore[assignment]
    return module


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many stories each tokenizing that did not come out of the cache had."""
    counts: list[int] = []
    tokenize = tokenized_stories.StoryTokenizer.tokenize_stories

    def count(self: StoryTokenizer, stories: Any, **options: Any) -> Any:
        counts.append(len(stories))
        return tokenize(self, stories, **options)

    with monkeypatch.context() as patch:
        patch.setattr(tokenized_stories.StoryTokenizer, "tokenize_stories", count)
        yield counts


def test_every_argument_is_a_field_of_the_recipe_and_has_its_default() -> None:
    recipe = Recipe(data=["sample"])
    module = StoryDataModule(["sample"])
    assert {name: getattr(recipe, name) for name in module.hparams} == dict(module.hparams)
    assert module.recipe == recipe


def test_prepare_data_leaves_no_trace_and_setup_tokenizes_nothing_again(
    attached: StoryDataModule, mapped: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning prepares in one process, for each of its stages anew, and sets up in all of them."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    before = dict(vars(attached))
    attached.prepare_data()
    assert vars(attached) == before and attached.splits == {}
    assert len(mapped) == 3
    attached.prepare_data()
    for stage, splits in [("fit", {"train", "validation"}), ("test", {"train", "validation", "test"})]:
        attached.setup(stage)
        assert set(attached.splits) == splits
    assert len(mapped) == 3
    there = dict(attached.splits)
    attached.setup("validate")
    assert attached.splits == there
    assert {name: len(split) for name, split in there.items()} == {"train": 48, "validation": 4, "test": 8}


def test_another_module_gets_its_own_ids(attached: StoryDataModule, home: Path) -> None:
    attached.setup("fit")
    folder = str(home / "calm-bert")
    other = StoryTokenizer(load_tokenizer(folder), SentenceOrderingModel.from_encoder(folder).config)
    attached.trainer = StandInTrainer(StandInModule(other))  # type: ignore[assignment]
    attached.setup("fit")
    assert all(split.story_tokenizer is other for split in attached.splits.values())


def test_a_checkpoint_that_was_only_tested_does_not_shorten_the_next_training(attached: StoryDataModule) -> None:
    attached.load_state_dict({"epoch": 0, "batches": 2})
    attached.setup("fit")
    assert len(list(attached.train_dataloader())) == 6


def test_what_is_missing_is_named(home: Path, tmp_path: Path) -> None:
    module = StoryDataModule([str(home / "stories.jsonl")])
    with pytest.raises(ValueError, match="need a tokenizer"):
        module.prepare_data()
    run = small_run(tmp_path, home / "tiny-bert", "lightning")
    assert isinstance(run.training, TokenizedStories)
    given_splits = StoryDataModule.from_stories({"train": run.training}, run.recipe)
    with pytest.raises(ValueError, match="no test stories.* train"):
        given_splits.predict_dataloader()
    assert given_splits.val_dataloader() == []


def test_predicts_in_the_order_of_the_stories(attached: StoryDataModule) -> None:
    attached.setup("predict")
    batches = list(attached.predict_dataloader())
    shown = [story for batch in batches for story in batch["sentences"]]
    test = attached.splits["test"]
    assert [sorted(story) for story in shown] == [sorted(story) for story in test.stories["sentences"]]
    assert shown[3] == [test.stories[3]["sentences"][label] for label in test.dataset_labels(3)]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_goes_on_in_the_epoch_that_it_was_in(home: Path, tmp_path: Path, workers: int) -> None:
    run = small_run(tmp_path, home / "tiny-bert", "lightning", dataloader_num_workers=workers)

    def loader(epoch: int) -> ResumableLoader:
        made = ResumableLoader(training_loader(run.training, run.recipe))
        made.batch_sampler.sampler.set_epoch(epoch)
        return made

    def ids(batches: Iterator[Any]) -> list[Any]:
        return [batch["input_ids"].tolist() for batch in batches]

    interrupted = loader(1)
    batches = iter(interrupted)
    next(batches), next(batches), next(batches)
    state = interrupted.state_dict()
    assert state == {"epoch": 1, "batches": 3}

    resumed = loader(0)
    resumed.load_state_dict(state)
    rest = iter(resumed)  # before Lightning says which epoch it is
    resumed.batch_sampler.sampler.set_epoch(1)
    assert ids(rest) == ids(iter(loader(1)))[3:]
    assert resumed.state_dict() == {"epoch": 1, "batches": 12} == {"epoch": 1, "batches": len(resumed)}
    resumed.batch_sampler.sampler.set_epoch(2)
    assert ids(iter(resumed)) == ids(iter(loader(2)))

    elsewhere = loader(2)
    elsewhere.load_state_dict(state)
    assert ids(iter(elsewhere)) == ids(iter(loader(2)))

    alone = loader(0)
    alone.load_state_dict(state)  # and nobody says which epoch it is
    assert ids(iter(alone)) == ids(iter(loader(1)))[state["batches"] :]
    assert ids(iter(alone)) == ids(iter(loader(2)))
