"""A run is resumed with the stories that it was trained on, whatever the framework and the encoder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pytorch_lightning import Trainer

from tests.training.conftest import run_command
from tests.training.made_up import made_up_stories, write_jsonl
from training.frameworks.lightning.data import StoryDataModule
from training.frameworks.lightning.module import SentenceOrderingModule
from training.recipe.recipe import FRAMEWORKS


def write_parquet(path: Path, stories: list[list[str]]) -> Path:
    pq.write_table(pa.table({"sentences": stories}), path)
    return path


FLAGS = ["--max_steps", "3", "--per_device_train_batch_size", "8", "--eval_strategy", "steps", "--eval_steps", "2"]
FLAGS += ["--eval_on_start", "no", "--bf16", "no"]
SMALL = ["--encoder_config", '{"embedding_dim": 8, "hidden_size": 8}', "--vocab_size", "200"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("encoder", ["tiny-bert", "rnn"])
def test_other_stories_under_the_same_name_are_refused(
    framework: str, encoder: str, home: Path, tmp_path: Path
) -> None:
    data, out = tmp_path / "stories.jsonl", tmp_path / "out"

    def write(seed: int) -> None:
        write_jsonl(data, made_up_stories(40, seed=seed))
        os.utime(data, (1, 1))

    flags: list[Any] = ["train", "--data", data, "--framework", framework, "--output_dir", out, *FLAGS]
    flags += ["--encoder", str(home / encoder)] if encoder == "tiny-bert" else ["--encoder", encoder, *SMALL]
    write(1)
    first = run_command(*flags)
    assert first.code == 0, first.err
    weights = (out / "model.safetensors").read_bytes()
    write(2)
    refused = run_command(*flags, "--resume_from_checkpoint")
    assert refused.code == 2
    assert "train" in refused.err and "data have changed" in refused.err and refused.err.count("\n") == 1
    assert (out / "model.safetensors").read_bytes() == weights
    write(1)
    resumed = run_command(*flags, "--resume_from_checkpoint")
    assert resumed.code == 0, resumed.err


def test_other_validation_stories_and_streamed_ones_are_refused(home: Path, tmp_path: Path) -> None:
    data, validation, out = tmp_path / "train.parquet", tmp_path / "validation.jsonl", tmp_path / "out"

    def write(training_seed: int, validation_seed: int) -> None:
        write_parquet(data, made_up_stories(40, seed=training_seed))
        write_jsonl(validation, made_up_stories(10, seed=validation_seed))

    flags: list[Any] = [
        "train",
        "--data",
        data,
        "--streaming",
        "--validation_data",
        validation,
        "--output_dir",
        out,
        *FLAGS,
    ]
    flags += ["--encoder", str(home / "tiny-bert")]
    write(1, 2)
    first = run_command(*flags)
    assert first.code == 0, first.err
    for seeds, named in (((1, 3), "validation"), ((3, 2), "train")):
        write(*seeds)
        refused = run_command(*flags, "--resume_from_checkpoint")
        assert refused.code == 2
        assert f"its {named} stories" in refused.err


def test_the_data_module_of_lightning_refuses_other_stories(home: Path, tmp_path: Path) -> None:
    def fit(seed: int, **options: Any) -> Trainer:
        write_jsonl(tmp_path / "stories.jsonl", made_up_stories(40, seed=seed))
        module = SentenceOrderingModule.build(str(home / "tiny-bert"))
        quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, **quiet)
        trainer.fit(module, datamodule=StoryDataModule([str(tmp_path / "stories.jsonl")]), **options)
        return trainer

    checkpoint = tmp_path / "place.ckpt"
    fit(1).save_checkpoint(checkpoint)
    with pytest.raises(ValueError, match="other stories"):
        fit(2, ckpt_path=checkpoint, weights_only=False)
    fit(1, ckpt_path=checkpoint, weights_only=False)
