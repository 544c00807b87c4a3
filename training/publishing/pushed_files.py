"""Which files of a folder are pushed, and which files of an earlier push are deleted."""

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
from training.models import model_folder

from .checks import check_files

MODEL_FOLDER = "model"  # in a Space that contains its model
# Never pushed, from any subfolder: checkpoints and optimizer states, logs (they have host names and paths), hidden
# files, and pickled files, which loaders should not open.
EXCLUDED = (
    ".*", "*.env", "__pycache__", "*.unfinished*", "*.tmp", "*.log",
    model_folder.CHECKPOINTS, "checkpoint-*", "trainer_state.json",
    model_folder.TENSORBOARD, "runs", "lightning_logs", "wandb", "mlruns", "events.out.tfevents*",
    "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.npz",
)  # fmt: skip
# Describe the weights of one model, and would be wrong for another.
_ABOUT_THE_MODEL = (
    model_folder.RESULTS_FILE,
    model_folder.RECIPE_FILE,
    model_folder.LOG_FILE,
    model_folder.CURVES_FILE,
    model_folder.HEATMAP_FILE,
    model_folder.STORY_HASHES_FILE,
)


CommitOperation = CommitOperationAdd | CommitOperationDelete


@contextmanager
def copy_to_push(folder: Path) -> Iterator[Path]:
    """A temporary folder with the files to push: the card is a copy, which may be changed, the others are links.

    Raises:
        UserError: see `check_files`.
    """
    check_files(folder, EXCLUDED)
    with tempfile.TemporaryDirectory() as parent:
        copy = Path(parent) / "repository"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(*EXCLUDED), copy_function=_link_or_copy)
        yield copy


def _link_or_copy(source: str, target: str) -> None:
    if os.path.basename(source) == CARD:
        shutil.copyfile(source, target)
    else:
        os.symlink(os.path.realpath(source), target)


def operations(folder: Path, present: Iterable[str], stale: Sequence[str]) -> list[CommitOperation]:
    """The operations of the commit: all files of the folder are added, outdated ones in the repository deleted.

    `repository_sentence_ordering.upload` does the same for `push_to_hub`, without this package.

    Args:
        folder: the files to upload.
        present: files in the repository.
        stale: patterns of files to delete unless they are in the folder, see `stale_files`.
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
    """Patterns of files of an earlier push that loaders would still load, or that describe it.

    For a model: weights, tokenizer and results of another model. For a data set: Parquet files and a loading script.
    For a Space: the model in it.
    """
    if repo_type == "dataset":
        return ["*.parquet", "*/*.parquet", "*/*/*.parquet", f"{repo_id.rpartition('/')[2]}.py"]
    if repo_type == "space":
        return [f"{MODEL_FOLDER}/*"]
    # Imported here because data sets are pushed without torch.
    from modeling_sentence_ordering.repository_sentence_ordering import STALE_WEIGHTS, TOKENIZER_FILES

    return [*STALE_WEIGHTS, *TOKENIZER_FILES, *_ABOUT_THE_MODEL]
