"""The Lightning callback where it does not push; that it does is in `test_publishing.py`, with a Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Trainer
from pytorch_lightning.demos.boring_classes import BoringModel

from training.frameworks.lightning.data import StoryDataModule
from training.frameworks.lightning.module import SentenceOrderingModule
from training.publishing.lightning import PushToHubCallback
from training.publishing.push import PushFailed


def trainer(callback: PushToHubCallback, folder: Path, **options: Any) -> Trainer:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[callback], logger=False, default_root_dir=folder, **quiet, **options
    )


def test_it_refuses_before_the_training_begins(home: Path, tmp_path: Path) -> None:
    callback = PushToHubCallback("user/model")
    with pytest.raises(ValueError, match="BoringModel"):
        trainer(callback, tmp_path).fit(BoringModel())
    module = SentenceOrderingModule.build(str(home / "tiny-bert"))
    with pytest.raises(PushFailed, match="cannot push to user/model|not logged in"):
        trainer(callback, tmp_path).fit(module, datamodule=StoryDataModule([str(home / "stories.jsonl")]))
    assert callback.pushed is None
    with pytest.raises(ValueError, match="weights"):
        PushToHubCallback("user/model", weights="newest")


def test_a_fast_dev_run_pushes_nothing(home: Path, tmp_path: Path) -> None:
    callback = PushToHubCallback("user/model")
    module = SentenceOrderingModule.build(str(home / "tiny-bert"))
    trainer(callback, tmp_path, fast_dev_run=True).fit(
        module, datamodule=StoryDataModule([str(home / "stories.jsonl")])
    )
    assert callback.pushed is None
