"""Hyperparameter search over recipe fields with Optuna; can be resumed, and prunes by validation metrics."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from dataset_builder.bounded_yaml import read_yaml
from dataset_builder.file_writing import new_file, write_text
from model_card.plots import COLORS, GRID, QUIET
from training.evaluation.metrics import GREATER_IS_BETTER
from training.frameworks.training_log import TrainingFailed
from training.models import model_folder
from training.recipe.file import field_value
from training.recipe.recipe import Recipe, RecipeError, shareable

from .run_recipe import run_recipe

TRIALS_LOG, TRIALS_FOLDER, TRIALS_PLOT = "trials.log", "trials", "trials.png"
_STUDY = "sentence-ordering"
_RANGE_KEYS = {"low", "high", "log", "step"}

Space = Mapping[str, Callable[[Trial], Any]]


def read_space(path: str | os.PathLike[str]) -> Space:
    """The search space of a YAML file: recipe fields, each with a list of choices or a range.

    A range is a mapping with `low` and `high`, and `log: true` or `step`. It has integers if the field has.

    Returns:
        For each field a function that suggests its value in a trial.

    Raises:
        RecipeError: if the file cannot be read, or a field cannot be searched like this.
    """
    try:
        values = read_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read --space {path}: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"--space {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not values:
        raise RecipeError(f"--space {path} must map recipe fields to choices or ranges")
    return {name: _suggestion(f"--space {path}", name, wanted) for name, wanted in values.items()}


def _suggestion(path: str, name: str, wanted: Any) -> Callable[[Trial], Any]:
    if isinstance(wanted, list) and wanted:
        choices = [field_value(name, value, path) for value in wanted]
        return lambda trial: trial.suggest_categorical(name, choices)
    if not isinstance(wanted, dict) or not {"low", "high"} <= set(wanted) <= _RANGE_KEYS:
        raise RecipeError(f"{path}: {name} must be a list of choices, or a mapping with low and high")
    low, high = (field_value(name, wanted[end], path) for end in ("low", "high"))
    if isinstance(low, bool) or not isinstance(low, (int, float)):
        raise RecipeError(f"{path}: {name} is not a number: give a list of choices")
    if not low <= high:
        raise RecipeError(f"{path}: {name}: low {low} is above high {high}")
    whole, log = isinstance(low, int), bool(wanted.get("log", False))
    options = {"log": log} if log else {"step": wanted.get("step", 1 if whole else None)}
    if whole:
        return lambda trial: trial.suggest_int(name, int(low), int(high), **options)
    return lambda trial: trial.suggest_float(name, low, high, **options)


def search(
    recipe: Recipe, space: Space, *, n_trials: int, report: Callable[[str], None] = print
) -> tuple[Recipe, list[FrozenTrial]]:
    """Runs trials and writes the best recipe to `recipe.yaml` in the output folder.

    The first trial is the recipe itself. A trial is pruned at an evaluation if it is worse than the median of the
    trials before it. When it is started again, the search continues and repeats an interrupted trial.

    Args:
        recipe: the fields that are not searched; `output_dir` is the folder of the search, and `metric_for_best_model`
            is optimized.
        space: see `read_space`.
        n_trials: number of finished trials, including pruned and failed ones.
        report: called with one line after each trial.

    Returns:
        The best recipe, and all finished trials.

    Raises:
        RecipeError: if the recipe is invalid, or the folder has a search with another recipe or metric.
    """
    folder = Path(recipe.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    study = _open_study(folder, recipe, space)
    for interrupted in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(interrupted.number, state=TrialState.FAIL)
        if interrupted.params:
            study.enqueue_trial(interrupted.params)
    while len(_finished(study)) < n_trials:
        study.optimize(lambda trial: _run_trial(trial, recipe, space), n_trials=1, catch=(TrainingFailed, RecipeError))
        report(_line(study, study.trials[-1]))
        _write_results(study, recipe, folder)
    if not study.get_trials(states=[TrialState.COMPLETE]):
        raise RecipeError(f"none of {n_trials} trials was completed: try other ranges")
    return _best_recipe(study, recipe), _finished(study)


def _open_study(folder: Path, recipe: Recipe, space: Space) -> optuna.Study:
    """The study in the folder, new or continued."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings = {"recipe": shareable(recipe), "space": sorted(space)}
    path = folder / TRIALS_LOG
    if not path.exists() and any(not name.name.startswith(".") for name in folder.iterdir()):
        raise RecipeError(f"--output_dir {folder} is not empty and holds no search: choose another folder")
    study = optuna.create_study(
        study_name=_STUDY,
        storage=JournalStorage(JournalFileBackend(str(path))),
        load_if_exists=True,
        direction="maximize" if GREATER_IS_BETTER[recipe.metric_for_best_model] else "minimize",
        sampler=optuna.samplers.TPESampler(seed=recipe.seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
    )
    before = study.user_attrs.get("settings")
    if before is None:
        study.set_user_attr("settings", settings)
    elif before != settings:
        raise RecipeError(f"--output_dir {folder} holds a search by another recipe or space: choose another folder")
    return study


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    """Complete, pruned and failed trials, but not interrupted ones."""
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state in ended or "error" in trial.user_attrs]


def _run_trial(trial: Trial, recipe: Recipe, space: Space) -> float:
    """Trains one recipe; returns the metric on the validation stories."""
    metric = recipe.metric_for_best_model
    has_baseline = any("baseline" in other.user_attrs for other in _finished(trial.study))
    if has_baseline:
        values = {name: suggest(trial) for name, suggest in space.items()}
    else:
        trial.set_user_attr("baseline", True)
        values = {}
    folder = Path(recipe.output_dir) / TRIALS_FOLDER / f"{trial.number:04}"
    tried = dataclasses.replace(
        recipe, **values, output_dir=str(folder), overwrite_output_dir=True, eval_on_start=False, report_to=["none"]
    )
    evaluations = iter(range(1, 2**31))

    def prune(_: int, metrics: Mapping[str, float]) -> None:
        trial.report(metrics[metric], next(evaluations))
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        results = run_recipe(tried, report=lambda _: None, on_evaluation=prune)
        if "validation" not in results:
            raise RecipeError("a search needs validation stories: --validation_data, or data that is split")
        return float(results["validation"][metric])
    except (TrainingFailed, RecipeError) as error:
        trial.set_user_attr("error", str(error))
        raise
    finally:
        _keep_records(folder)


def _keep_records(folder: Path) -> None:
    """Removes the weights and checkpoints of a trial and keeps its results and log."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name not in (model_folder.RESULTS_FILE, model_folder.LOG_FILE, model_folder.RECIPE_FILE):
            path.unlink(missing_ok=True)


def _best_recipe(study: optuna.Study, recipe: Recipe) -> Recipe:
    return dataclasses.replace(recipe, **study.best_trial.params)


def _write_results(study: optuna.Study, recipe: Recipe, folder: Path) -> None:
    """`recipe.yaml` of the best trial, and the plot of all trials."""
    if study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
        text = yaml.safe_dump(shareable(_best_recipe(study, recipe)), sort_keys=False, allow_unicode=True)
        write_text(folder / model_folder.RECIPE_FILE, text)
        _plot(study, recipe.metric_for_best_model, folder / TRIALS_PLOT)


def _plot(study: optuna.Study, metric: str, path: Path) -> None:
    """The metric of each trial, and the best so far."""
    figure = Figure(figsize=(8, 4.5), dpi=150)
    axes = figure.add_subplot()
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    pruned = [t for t in study.get_trials(deepcopy=False, states=[TrialState.PRUNED]) if t.intermediate_values]
    better = max if GREATER_IS_BETTER[metric] else min
    values = [trial.value for trial in complete if trial.value is not None]
    best = [better(values[: count + 1]) for count in range(len(values))]
    axes.plot([t.number for t in complete], values, "o", color=COLORS[0], label="complete")
    last = [t.intermediate_values[max(t.intermediate_values)] for t in pruned]
    axes.plot([t.number for t in pruned], last, "x", color=QUIET, label="pruned, at its last evaluation")
    axes.step([t.number for t in complete], best, where="post", color=COLORS[1], label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel(f"{metric} on the validation stories")
    axes.grid(color=GRID)
    axes.legend()
    figure.tight_layout()
    with new_file(path) as unfinished, open(unfinished, "wb") as file:
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})


def _line(study: optuna.Study, trial: FrozenTrial) -> str:
    """One trial in one line."""
    tried = "the recipe itself" if "baseline" in trial.user_attrs else str(trial.params)
    if trial.state == TrialState.COMPLETE:
        return f"trial {trial.number}: {trial.value:.4f} (best {study.best_value:.4f}) with {tried}"
    reason = trial.user_attrs.get("error", "")
    return f"trial {trial.number}: {trial.state.name.lower()}{': ' + reason if reason else ''} with {tried}"
