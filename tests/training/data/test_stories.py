"""From stories to batches: shuffles, labels, workers, and the tokens that are made only once."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from dataset_builder import build_dataset, load_all, read_stories
from modeling_sentence_ordering import SentenceOrderingModel, StoryTokenizer, load_tokenizer
from modeling_sentence_ordering.tokenization_sentence_ordering import arrangement
from tests.training.made_up import made_up_stories, write_jsonl
from training.data.batches import Draw, evaluation_batches
from training.data.stories import (
    EvaluationStories,
    StoryCollator,
    TokenizedStories,
    TrainingStories,
    evaluation_loader,
    training_loader,
)
from training.recipe.recipe import Recipe

MakeRecipe = Callable[..., Recipe]


@pytest.fixture(scope="module")
def story_tokenizer(home: Path) -> StoryTokenizer:
    encoder = str(home / "tiny-bert")
    return StoryTokenizer(load_tokenizer(encoder), SentenceOrderingModel.from_encoder(encoder).config)


@pytest.fixture(scope="module")
def stories(home: Path) -> Dataset:
    return load_all([str(home / "stories.jsonl")])


@pytest.fixture(scope="module")
def tokenized(stories: Dataset, story_tokenizer: StoryTokenizer) -> TokenizedStories:
    return TokenizedStories(stories, story_tokenizer)


def batches_of(loader: Any, epoch: int = 0) -> list[dict[str, torch.Tensor]]:
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(epoch)
    return list(loader)


def assert_same(some: list[dict[str, torch.Tensor]], others: list[dict[str, torch.Tensor]]) -> None:
    assert [set(batch) for batch in some] == [set(batch) for batch in others]
    for batch, other in zip(some, others, strict=True):
        for key in batch:
            assert torch.equal(batch[key], other[key]), key


def test_ids_and_lengths_are_those_of_the_story_tokenizer(
    tokenized: TokenizedStories, stories: Dataset, story_tokenizer: StoryTokenizer
) -> None:
    assert len(tokenized) == len(stories) == 60
    for index, story in enumerate(stories):
        ids = story_tokenizer.tokenize(story["sentences"])
        assert tokenized.sentence_ids(index) == ids
        assert tokenized.num_sentences[index] == len(story["sentences"])
        assert tokenized.lengths[index] == len(story_tokenizer.assemble(ids).input_ids)


def test_a_selection_of_stories_has_its_own_ids(stories: Dataset, story_tokenizer: StoryTokenizer) -> None:
    """A split is a selection of rows of a larger table, and not in its order."""
    rows = [40, 3, 17]
    tokenized = TokenizedStories(stories.select(rows), story_tokenizer)
    for index, row in enumerate(rows):
        assert tokenized.sentence_ids(index) == story_tokenizer.tokenize(stories[row]["sentences"])


def test_the_length_of_a_story_that_is_cut_off_is_what_the_encoder_reads(
    stories: Dataset, story_tokenizer: StoryTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story_tokenizer, "max_input_tokens", 25)
    assert TokenizedStories(stories, story_tokenizer).lengths.max() == 25


@pytest.mark.parametrize("fresh", [True, False])
def test_a_shuffle_is_a_permutation_and_its_labels_say_where_each_sentence_came_from(
    fresh: bool, tokenized: TokenizedStories
) -> None:
    training = TrainingStories(tokenized, fresh=fresh)
    for index in range(len(tokenized)):
        story = training[Draw(index, 1, 4.0)]
        true = tokenized.sentence_ids(index)
        assert sorted(story.labels) == list(range(len(true)))
        assert story.sentence_ids == [true[label] for label in story.labels]
        assert story.num_stories == 4.0


def labels_by_epoch(tokenized: TokenizedStories, **options: Any) -> list[list[list[int]]]:
    training = TrainingStories(tokenized, **options)
    return [[training[Draw(index, epoch, 1.0)].labels for index in range(len(tokenized))] for epoch in range(3)]


def test_fresh_shuffles_differ_from_epoch_to_epoch_and_fixed_ones_do_not(tokenized: TokenizedStories) -> None:
    fresh = labels_by_epoch(tokenized)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        same = sum(a == b for a, b in zip(fresh[one], fresh[other], strict=True))
        assert same < 0.25 * len(tokenized)  # a story of three sentences has six orders
    fixed = labels_by_epoch(tokenized, fresh=False)
    of_data_set = [tokenized.dataset_labels(index) for index in range(len(tokenized))]
    assert fixed[0] == fixed[1] == fixed[2] == of_data_set == fresh[0]
    assert labels_by_epoch(tokenized) == fresh
    assert labels_by_epoch(tokenized, seed=43)[0] != fresh[0]
    # Stories of the same length are shuffled each in a way of their own.
    assert len({tuple(labels) for labels in fresh[0] if len(labels) == 5}) > 5


def test_every_order_of_a_story_is_as_likely_as_any_other(tokenized: TokenizedStories) -> None:
    index = int((tokenized.num_sentences == 3).argmax())
    training = TrainingStories(tokenized)
    counts = Counter(tuple(training[Draw(index, epoch, 1.0)].labels) for epoch in range(1200))
    assert len(counts) == 6
    assert min(counts.values()) > 140  # of 200 expected; less is four standard deviations off


def test_the_shuffle_of_the_data_set_is_what_build_writes(
    home: Path, tokenized: TokenizedStories, tmp_path: Path
) -> None:
    for seed in (42, 7):
        build_dataset([str(home / "stories.jsonl")], tmp_path / f"built-{seed}", seed=seed)
        some = TokenizedStories(tokenized.stories, tokenized.story_tokenizer, seed)
        index_of = {story["storyid"]: index for index, story in enumerate(some.stories)}
        files = (tmp_path / f"built-{seed}" / "shuffled").glob("*.parquet")
        rows = [row for path in files for row in Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))]
        assert len(rows) == len(some)
        assert all(some.dataset_labels(index_of[row["storyid"]]) == row["labels"] for row in rows)


def test_a_story_is_evaluated_in_the_arrangement_of_its_texts(tokenized: TokenizedStories) -> None:
    evaluated = EvaluationStories(tokenized)
    for index, story in enumerate(tokenized.stories):
        shown, ids = evaluated[index], tokenized.sentence_ids(index)
        assert shown.labels == arrangement(story["sentences"], 0)
        assert shown.sentence_ids == [ids[label] for label in shown.labels]
        assert shown.num_stories is None


def test_the_order_of_identical_sentences_does_not_tell_the_true_one(story_tokenizer: StoryTokenizer) -> None:
    rows = [{"storyid": f"{number}", "sentences": ["Ok.", f"No {number}.", "Ok."]} for number in range(40)]
    tokenized = TokenizedStories(rows, story_tokenizer)
    places = [tokenized.evaluation_labels(index) for index in range(40)]
    first = sum(labels.index(0) < labels.index(2) for labels in places)
    assert 8 < first < 32


def test_the_collator_pads_as_the_story_tokenizer_does(
    tokenized: TokenizedStories, story_tokenizer: StoryTokenizer
) -> None:
    evaluated = EvaluationStories(tokenized)
    shown = [evaluated[index] for index in (3, 1, 8)]
    expected = story_tokenizer.collate(
        [story_tokenizer.assemble(story.sentence_ids) for story in shown], [story.labels for story in shown]
    )
    assert_same([StoryCollator(story_tokenizer)(shown)], [expected])
    weighted = [dataclasses.replace(story, num_stories=2.5) for story in shown]
    assert_same([StoryCollator(story_tokenizer)(weighted)], [{**expected, "num_stories": torch.tensor(2.5)}])


def test_the_training_loader_follows_the_recipe(tokenized: TokenizedStories, make_recipe: MakeRecipe) -> None:
    fields = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}
    loader = training_loader(tokenized, make_recipe(**fields))
    batches = batches_of(loader)
    assert len(batches) == len(loader) == 16  # 60 stories are 7 steps of 8 and one of 4
    assert [len(batch["labels"]) for batch in batches] == [4] * 14 + [2] * 2
    assert [float(batch["num_stories"]) for batch in batches] == [4.0] * 14 + [2.0] * 2
    seen = [tuple(row[row != -100].tolist()) for batch in batches for row in batch["labels"]]
    assert Counter(map(len, seen)) == Counter(tokenized.num_sentences.tolist())
    other = training_loader(tokenized, make_recipe(**fields, seed=1))
    assert not torch.equal(batches_of(other)[0]["input_ids"], batches[0]["input_ids"])


@pytest.mark.parametrize("shuffle", ["fresh", "fixed"])
def test_the_recipe_says_whether_shuffles_are_fresh(
    shuffle: str, tokenized: TokenizedStories, make_recipe: MakeRecipe
) -> None:
    loader = training_loader(tokenized, make_recipe(shuffle_sentences=shuffle))

    def shown(epoch: int) -> set[tuple[int, ...]]:
        return {tuple(row[row != 0].tolist()) for batch in batches_of(loader, epoch) for row in batch["input_ids"]}

    assert (shown(0) == shown(1)) is (shuffle == "fixed")


def test_workers_give_the_same_batches_and_leave_the_global_generator_alone(
    tokenized: TokenizedStories, make_recipe: MakeRecipe
) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    alone = batches_of(training_loader(tokenized, make_recipe()), epoch=1)
    helped = batches_of(training_loader(tokenized, make_recipe(dataloader_num_workers=2)), epoch=1)
    assert_same(alone, helped)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_evaluation_loader_shows_every_story_once_in_the_batches_announced(tokenized: TokenizedStories) -> None:
    evaluated = EvaluationStories(tokenized)
    batches = batches_of(evaluation_loader(tokenized, 7))
    for indices, batch in zip(evaluation_batches(tokenized.lengths, 7), batches, strict=True):
        assert_same([batch], [StoryCollator(tokenized.story_tokenizer)([evaluated[i] for i in indices])])
    helped = batches_of(evaluation_loader(tokenized, 7, num_workers=1))
    assert_same(batches, helped)


def test_stories_are_tokenized_once_for_all_processes(
    tmp_path: Path, home: Path, story_tokenizer: StoryTokenizer
) -> None:
    path = write_jsonl(tmp_path / "stories.jsonl", made_up_stories(20, seed=9))
    first = TokenizedStories(load_all([str(path)]).select([4, 2, 9]), story_tokenizer)
    code = (
        "import sys\n"
        "from dataset_builder import load_all\n"
        "from modeling_sentence_ordering import SentenceOrderingModel, StoryTokenizer, load_tokenizer\n"
        "from training.data.stories import TokenizedStories\n"
        "encoder, path = sys.argv[1:]\n"
        "tokenizer = load_tokenizer(encoder)\n"
        "tokenizer('used before')\n"
        "story_tokenizer = StoryTokenizer(tokenizer, SentenceOrderingModel.from_encoder(encoder).config)\n"
        "story_tokenizer.tokenize = None\n"
        "print(TokenizedStories(load_all([path]).select([4, 2, 9]), story_tokenizer).sentence_ids(1))\n"
    )
    command = [sys.executable, "-c", code, str(home / "tiny-bert"), str(path)]
    root = str(Path(__file__).parents[3])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ["PYTHONPATH"]])}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(first.sentence_ids(1))


def test_other_stories_or_another_tokenizer_are_tokenized_anew(
    tmp_path: Path, home: Path, stories: Dataset, tokenized: TokenizedStories
) -> None:
    encoder = str(home / "calm-bert")
    tokenizer = load_tokenizer(encoder)
    tokenizer.add_tokens(["and the"])  # where there were at least two
    config = SentenceOrderingModel.from_encoder(encoder).config
    config.backbone_config.vocab_size += 1
    grown = TokenizedStories(stories, StoryTokenizer(tokenizer, config))
    assert any(grown.sentence_ids(i) != tokenized.sentence_ids(i) for i in range(len(tokenized)))

    path = tmp_path / "stories.jsonl"
    for seed in (1, 2):
        write_jsonl(path, made_up_stories(3, seed=seed))
        os.utime(path, (seed, seed))  # a clock may tick slower than this test
        some = TokenizedStories(load_all([str(path)]), tokenized.story_tokenizer)
        expected = [tokenized.story_tokenizer.tokenize(story.sentences) for story in read_stories(path)]
        assert [some.sentence_ids(index) for index in range(3)] == expected


def test_shuffled_rows_are_put_in_order_by_their_labels(
    home: Path, stories: Dataset, tokenized: TokenizedStories, tmp_path: Path
) -> None:
    """The rows that `build` and the loading script give, which are shuffled, mean the stories that they came from."""
    build_dataset([str(home / "stories.jsonl")], tmp_path / "built")
    rows = Dataset.from_parquet(str(next((tmp_path / "built" / "shuffled").glob("train*"))), cache_dir=str(tmp_path))
    found = TokenizedStories(rows, tokenized.story_tokenizer)
    where = {story["storyid"]: index for index, story in enumerate(stories)}
    assert [found.sentence_ids(index) for index in range(len(rows))] == [
        tokenized.sentence_ids(where[row["storyid"]]) for row in rows
    ]
    as_dicts = TokenizedStories(rows.to_list(), tokenized.story_tokenizer)
    assert as_dicts.sentence_ids(3) == found.sentence_ids(3)
    with pytest.raises(ValueError, match="not a permutation"):
        TokenizedStories([{"sentences": ["a", "b"], "labels": [1, 1]}], tokenized.story_tokenizer)


def shown_in(loader: Any) -> list[list[list[int]]]:
    return [batch["input_ids"].tolist() for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("tokens", [None, 200])
def test_a_fresh_iteration_is_a_new_epoch(
    workers: int, tokens: int | None, tokenized: TokenizedStories, make_recipe: MakeRecipe
) -> None:
    fields = {"dataloader_num_workers": workers, "per_device_train_batch_tokens": tokens}
    loader = training_loader(tokenized, make_recipe(**fields))
    again = training_loader(tokenized, make_recipe(**fields))
    epochs = [shown_in(loader) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    for epoch in (2, 0, 1):
        again.set_epoch(epoch)
        assert shown_in(again) == epochs[epoch]
    assert shown_in(again) == epochs[2], "the next one follows from the epoch that was set"
    next(iter(again))  # one that is not finished counts as well
    again_from = training_loader(tokenized, make_recipe(**fields))
    again_from.set_epoch(4)
    assert shown_in(again) == shown_in(again_from)


def test_accelerate_iterates_over_the_same_epochs(tokenized: TokenizedStories, make_recipe: MakeRecipe) -> None:
    from accelerate import Accelerator

    plain = training_loader(tokenized, make_recipe())
    expected = [shown_in(plain) for _ in range(3)]
    wrapped = Accelerator(cpu=True).prepare_data_loader(training_loader(tokenized, make_recipe()))
    assert [shown_in(wrapped) for _ in range(3)] == expected
