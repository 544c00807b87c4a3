"""Made-up stories, a tiny encoder, and one model that is trained once with the command and looked at by many tests."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pytest
import transformers

from tests.modeling_sentence_ordering.small_encoders import write_encoder
from tests.training.made_up import made_up_stories, write_jsonl
from training.commands.command_line import main
from training.models.model_folder import read_json
from training.recipe.recipe import FRAMEWORKS, Recipe

transformers.utils.logging.disable_progress_bar()
datasets.disable_progress_bars()

TRAIN_FLAGS = [
    *("--encoder", "tiny-bert", "--data", "stories.jsonl", "--bf16", "false", "--num_train_epochs", "3"),
    *("--per_device_train_batch_size", "8", "--learning_rate", "2e-3", "--logging_steps", "2"),
]


@dataclass(frozen=True)
class Command:
    """What a call of `sentence-ordering` gave."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Trained:
    """A model trained by the command, in a folder `home` in which the encoder and the stories lie as well."""

    home: Path
    folder: Path
    command: Command
    results: dict[str, Any]


def run_command(*arguments: str | os.PathLike[str]) -> Command:
    """`sentence-ordering` in this process: starting another takes longer than what it does here."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([os.fspath(argument) for argument in arguments])
    return Command(code, out.getvalue(), err.getvalue())


def done_ordering(stories: int) -> str:
    """What `order` says on standard error when it is done and the answer went to standard output."""
    what = "1 story" if stories == 1 else f"{stories} stories"
    return f"sentence-ordering: ordered {what}; next: --output FILE.jsonl writes the scores as well\n"


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 60 stories, `stories.jsonl`, and the encoders `tiny-bert` and, without dropout, `calm-bert`."""
    folder = tmp_path_factory.mktemp("home")
    write_jsonl(folder / "stories.jsonl", made_up_stories(60))
    write_encoder(folder / "tiny-bert", "bert", initializer_range=0.1)
    write_encoder(
        folder / "calm-bert", "bert", initializer_range=0.1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    return folder


@pytest.fixture(scope="session")
def trained(home: Path) -> Iterator[Trained]:
    """The command's own work, with relative names as people type them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        command = run_command("train", *TRAIN_FLAGS, "--output_dir", "my-model")
    assert command.code == 0, command.err
    yield Trained(home, home / "my-model", command, read_json(home / "my-model" / "results.json"))


@pytest.fixture
def make_recipe(home: Path, tmp_path: Path) -> Any:
    """A quick recipe, resolved."""

    def make(**fields: Any) -> Recipe:
        values: dict[str, Any] = {
            "encoder": str(home / "tiny-bert"),
            "data": [str(home / "stories.jsonl")],
            "output_dir": str(tmp_path / "out"),
            "bf16": False,
            "num_train_epochs": 2,
            "per_device_train_batch_size": 8,
            "learning_rate": 2e-3,
            "logging_steps": 1,
            "eval_on_start": False,
        }
        recipe = Recipe(**{**values, **fields})
        recipe.check()
        return recipe.resolved()

    return make


@pytest.fixture(params=FRAMEWORKS)
def recipe_for(
    request: pytest.FixtureRequest, make_recipe: Callable[..., Recipe], tmp_path: Path
) -> Callable[..., Recipe]:
    """Recipes for one framework after the other, each in a folder of its own."""
    count = iter(range(100))

    def make(**fields: Any) -> Recipe:
        return make_recipe(framework=request.param, output_dir=str(tmp_path / f"run-{next(count)}"), **fields)

    return make
