"""Which files of a folder go to the Hub, and which of an earlier push have to leave."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from model_card.card import CARD
from training.models import repository

from .checks import check_files

# Where the model lies in a Space that has it with it.
MODEL_FOLDER = "model"
# What a training run keeps for itself, in whichever folder it lies: checkpoints and the state of optimizers, logs that
# carry the machine's name or its folders, settings of the person, and pickled files, which no loader should open.
KEPT_BACK = (
    ".*", "*.env", "__pycache__", "*.unfinished*", "*.tmp", "*.log",
    repository.CHECKPOINTS, "checkpoint-*", "trainer_state.json",
    repository.TENSORBOARD, "runs", "lightning_logs", "wandb", "mlruns", "events.out.tfevents*",
    "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.npz",
)  # fmt: skip
# What stands beside a model and is about its weights: of others it would tell something false.
_ABOUT_THE_MODEL = (
    repository.RESULTS_FILE,
    repository.RECIPE_FILE,
    repository.LOG_FILE,
    repository.CURVES_FILE,
    repository.HEATMAP_FILE,
    repository.STORY_HASHES_FILE,
)


CommitOperation = CommitOperationAdd | CommitOperationDelete


@contextmanager
def copy_to_push(folder: Path) -> Iterator[Path]:
    """A copy of what is to be pushed and of nothing else, in which the card may be changed; the rest are links.

    Raises:
        ValueError: if there is something in the folder that must not leave this machine, see `check_files`.
    """
    check_files(folder, KEPT_BACK)
    with tempfile.TemporaryDirectory() as parent:
        copy = Path(parent) / "repository"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(*KEPT_BACK), copy_function=_link_or_copy)
        yield copy


def _link_or_copy(source: str, target: str) -> None:
    """A symbolic link, but for the card: what is changed in the copy must not change in the folder."""
    if os.path.basename(source) == CARD:
        shutil.copyfile(source, target)
    else:
        os.symlink(os.path.realpath(source), target)


def operations(folder: Path, present: Iterable[str], stale: Sequence[str]) -> list[CommitOperation]:
    """What a commit does that makes a folder of a repository: everything is added, and what is stale deleted.

    Args:
        folder: everything in it is uploaded.
        present: the files that the repository has.
        stale: patterns of files that go unless they are in the folder, see `stale_files`.
    """
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    gone = [name for name in present if name not in files and any(_matches(name, pattern) for pattern in stale)]
    return [
        *(CommitOperationDelete(path_in_repo=name) for name in gone),
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()),
    ]


def _matches(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) and name.count("/") <= pattern.count("/")


def stale_files(repo_id: str, repo_type: str) -> list[str]:
    """Patterns of what an earlier push may have left and a loader would take, or a reader believe.

    Weights and tokenizer files of another model, and what is told of it; of a data set Parquet and a loading script;
    of a Space the whole model that lay in it.
    """
    if repo_type == "dataset":
        return ["*.parquet", "*/*.parquet", "*/*/*.parquet", f"{repo_id.rpartition('/')[2]}.py"]
    if repo_type == "space":
        return [f"{MODEL_FOLDER}/*"]
    # Only here: data sets are pushed without torch.
    from modeling_sentence_ordering.repository_sentence_ordering import STALE_WEIGHTS, TOKENIZER_FILES

    return [*STALE_WEIGHTS, *TOKENIZER_FILES, *_ABOUT_THE_MODEL]
