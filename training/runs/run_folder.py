"""The output folder of a training run: checks, and the checkpoint to resume from."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from modeling_sentence_ordering.configuration_sentence_ordering import is_scratch_encoder
from training.frameworks.checkpoints import find_damage, last_checkpoint
from training.frameworks.protocol import Framework
from training.models import model_folder
from training.recipe.file import read_recipe_file
from training.recipe.recipe import Recipe, RecipeError, shareable, with_later_fields
from training.system.output_names import check_apart, check_not_overwritten
from training.system.processes import Processes
from training.system.run_lock import only_run_in

# Fields that may differ when a run is resumed, because they do not change the model.
_MAY_DIFFER = (
    "per_device_eval_batch_size",
    "dataloader_num_workers",
    "gradient_checkpointing",
    "attn_implementation",
    "torch_compile",
    "eval_on_start",
    "logging_steps",
    "save_total_limit",
)
# Fields that may be larger when a run is resumed, to train longer. The schedule is then that of the longer run.
_MAY_GROW = ("num_train_epochs", "max_steps")
# Files of a run that ended before it wrote its recipe.
_BEFORE_RECIPE = {model_folder.CHECKPOINTS, model_folder.TENSORBOARD, model_folder.RESULTS_FILE, model_folder.LOG_FILE}


def check_paths(recipe: Recipe) -> None:
    """Refuses an output folder that contains the run's input.

    Raises:
        ValueError: naming both.
    """
    encoders = [recipe.encoder] if not is_scratch_encoder(recipe.encoder) else []
    check_apart("--output_dir", recipe.output_dir, data=recipe.sources, models=encoders)
    if recipe.overwrite_output_dir and recipe.resume_from_checkpoint is None:
        check_not_overwritten("--output_dir", recipe.output_dir, [*recipe.sources, *encoders])


@contextmanager
def run_folder(recipe: Recipe) -> Iterator[None]:
    """Creates and locks the output folder, see `only_run_in`.

    Raises:
        FolderInUse: if another run is there.
        RecipeError: if it is a file.
        OSError: if it cannot be created.
    """
    folder = Path(recipe.output_dir)
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"--output_dir {folder} is a file")
    lock = only_run_in("--output_dir", folder)
    try:
        lock.__enter__()
    except OSError as error:
        message = f"--output_dir {folder} cannot be made: {error.strerror}"
        raise (RecipeError if isinstance(error, (FileExistsError, NotADirectoryError)) else OSError)(message) from None
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def checkpoint_to_resume(
    folder: Path, recipe: Recipe, framework: Framework, processes: Processes, report: Callable[[str], None]
) -> Path | None:
    """The checkpoint to resume from, or None for a new run.

    Raises:
        RecipeError: if a named checkpoint is damaged, or the folder is not empty and may not be overwritten.
    """
    wanted = recipe.resume_from_checkpoint
    if wanted is None:
        if any(folder.iterdir()) and not recipe.overwrite_output_dir:
            raise RecipeError(
                f"--output_dir {folder} is not empty: choose another, or --overwrite_output_dir to replace what is "
                "there, or --resume_from_checkpoint to go on"
            )
        return None
    if wanted != "last" and (damage := find_damage(framework, Path(wanted))) is not None:
        raise RecipeError(damage)
    _check_same_recipe(folder / model_folder.RECIPE_FILE, recipe.for_one_process(processes.world_size))
    if wanted != "last":
        return Path(wanted)
    checkpoint = last_checkpoint(framework, folder / model_folder.CHECKPOINTS, report)
    if checkpoint is None:
        _check_may_begin(folder)
        report(f"there is no whole checkpoint in {folder / model_folder.CHECKPOINTS}: the run begins")
    return checkpoint


def _check_may_begin(folder: Path) -> None:
    """Refuses to start a run in a folder with other files."""
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    others = sorted(names - _BEFORE_RECIPE)
    if others and model_folder.RECIPE_FILE not in names:
        raise RecipeError(
            f"--output_dir {folder} has no whole checkpoint to resume from, and is not the folder of a run: it holds "
            f"{others[0]}; choose another folder"
        )


def _check_same_recipe(path: Path, recipe: Recipe) -> None:
    """Refuses to resume with another recipe, which would be published with the model.

    Raises:
        RecipeError: naming the first field that differs.
    """
    if not path.exists():
        return
    before, now = with_later_fields(read_recipe_file(path)), shareable(recipe)
    for name in now | before:
        if before.get(name) != now.get(name) and name not in _MAY_DIFFER:
            if name in _MAY_GROW and now[name] > before[name] > 0:
                continue
            raise RecipeError(
                f"--resume_from_checkpoint continues with the recipe of the run, {path}: --{name} is "
                f"{before.get(name)} there and {now.get(name)} here"
            )


def check_same_stories(checkpoint: Path, digests: dict[str, str]) -> None:
    """Refuses to resume if the stories have changed.

    Raises:
        RecipeError: naming the splits that differ.
    """
    path = checkpoint.parent / model_folder.STORIES_FILE
    before = model_folder.read_json(path) if path.exists() else digests
    differ = [split for split in before | digests if before.get(split) != digests.get(split)]
    if differ:
        raise RecipeError(
            f"--resume_from_checkpoint continues with the stories of the run, but its {' and '.join(differ)} stories "
            f"are not those of {checkpoint}: the data have changed. Restore them, or begin a new run"
        )


def clear_folder(folder: Path, recipe: Recipe, resume_from: Path | None) -> None:
    """Removes the checkpoints and logs of an earlier run, once the new run is ready to start."""
    if resume_from is None:
        shutil.rmtree(folder / model_folder.TENSORBOARD, ignore_errors=True)
    if recipe.overwrite_output_dir and recipe.resume_from_checkpoint is None:
        shutil.rmtree(folder / model_folder.CHECKPOINTS, ignore_errors=True)
