"""Training on passages: the same weights in every framework, from a table or a stream, also after a kill."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pytorch_lightning import Trainer

from dataset_builder import load_all, story_hash
from modeling_sentence_ordering import SentenceOrderingModel, load_tokenizer
from tests.training.conftest import run_command
from tests.training.framework_runs import WatchedRun, assert_same_weights, resume, train
from tests.training.made_up import made_up_stories, write_jsonl
from training import SentenceOrderingModule, StoryDataModule
from training.data.stories import drawn_stories, training_sampler
from training.models.model_folder import read_json, read_story_hashes
from training.recipe.recipe import FRAMEWORKS, Recipe

MakeRecipe = Callable[..., Recipe]


def long_texts(count: int, seed: int = 0) -> list[list[str]]:
    stories = made_up_stories(5 * count, seed=seed)
    return [sum(stories[start : start + 5], []) for start in range(0, len(stories), 5)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """7 texts of some 22 sentences as Parquet, and 4 to validate on."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "train").mkdir()
    for number, texts in enumerate([long_texts(4), long_texts(3, seed=1)]):
        pq.write_table(pa.table({"sentences": texts}), folder / "train" / f"{number}.parquet", row_group_size=3)
    write_jsonl(folder / "validation.jsonl", long_texts(4, seed=2))
    return folder


@pytest.fixture
def passage_recipe(make_recipe: MakeRecipe, data: Path, tmp_path: Path) -> MakeRecipe:
    """Steps of two batches of 4 passages."""
    count = iter(range(100))

    def make(**fields: Any) -> Recipe:
        values: dict[str, Any] = {
            "data": [str(data / "train")],
            "validation_data": [str(data / "validation.jsonl")],
            "passage_sentences": [3, 6],
            "max_input_tokens": 90,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "shuffle_buffer_size": 24,
            "max_steps": 10,
            "eval_strategy": "steps",
            "eval_steps": 4,
            "load_best_model_at_end": False,
            "output_dir": str(tmp_path / f"run-{next(count)}"),
        }
        return make_recipe(**{**values, **fields})

    return make


@pytest.mark.parametrize("streaming", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_framework_gives_the_same_weights_also_after_a_kill(streaming: bool, passage_recipe: MakeRecipe) -> None:
    reference: WatchedRun | None = None
    for framework in FRAMEWORKS:
        whole = train(passage_recipe(framework=framework, streaming=streaming))
        recipe = passage_recipe(framework=framework, streaming=streaming)
        resumed = resume(recipe, train(recipe, killed_after=9))
        reference = reference or whole
        for run in (whole, resumed):
            assert_same_weights(run, reference)
            assert run.log.rows == reference.log.rows
    assert reference is not None
    steps = training_sampler(reference.training, reference.recipe).steps_per_epoch
    assert steps < 8 < 2 * steps, "step 8, from which it goes on, is within the second epoch"
    assert steps == -(-len(drawn_stories(reference.training, reference.recipe)) // 8)
    assert reference.log.losses[-1]["epoch"] == pytest.approx(10 / steps)
    assert reference.splits["validation"].num_sentences.max() <= 6


def test_the_command_trains_and_evaluates_on_passages(data: Path, home: Path, tmp_path: Path) -> None:
    flags: list[Any] = ["--encoder", home / "tiny-bert", "--data", data / "train", "--output_dir", tmp_path / "out"]
    flags += ["--validation_data", data / "validation.jsonl", "--max_input_tokens", "90", "--bf16", "false"]
    flags += ["--max_steps", "4", "--streaming", "--passage_sentences", "3", "6"]
    done = run_command("train", *flags)
    assert done.code == 0, done.err
    results = read_json(tmp_path / "out" / "results.json")
    texts = load_all([str(data / "train")])["sentences"]
    assert read_story_hashes(tmp_path / "out" / "training_stories.txt") <= {story_hash(text) for text in texts}
    assert results["training"]["stories"] <= 7 < results["training"]["passages_per_epoch"]
    model = SentenceOrderingModel.from_pretrained(tmp_path / "out")
    assert model.config.passage_sentences == [3, 6]
    found = {}
    for name, more in [("passages", []), ("whole", ["--whole_texts"])]:
        judged: list[Any] = ["--model", tmp_path / "out", "--data", data / "validation.jsonl", "--split", "all", *more]
        evaluated = run_command("evaluate", *judged, "--output_json", tmp_path / f"{name}.json")
        assert evaluated.code == 0, evaluated.err
        found[name] = read_json(tmp_path / f"{name}.json")
    assert found["passages"]["stories"] == results["validation"]["stories"] > found["whole"]["stories"] == 4
    assert found["passages"]["kendalls_tau"] == pytest.approx(results["validation"]["kendalls_tau"])


def test_the_data_module_draws_passages_from_a_data_set(data: Path, home: Path, tmp_path: Path) -> None:
    texts = load_all([str(data / "validation.jsonl")])
    encoder = str(home / "tiny-bert")
    model = SentenceOrderingModel.from_encoder(encoder, max_input_tokens=90)
    module = SentenceOrderingModule(model, load_tokenizer(encoder))
    stories = StoryDataModule({"train": texts, "validation": texts}, passage_sentences=(3, 6))
    trainer = Trainer(max_steps=3, accelerator="cpu", logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path)  # fmt: skip
    trainer.fit(module, stories)
    assert dataclasses.asdict(stories.recipe)["passage_sentences"] == [3, 6]
    batch = next(iter(stories.train_dataloader()))
    assert batch["labels"].shape[1] <= 6 and torch.all(batch["marker_positions"][:, 0] == 0)
    assert stories.splits["validation"].num_sentences.max() <= 6 < texts.num_rows * 6
