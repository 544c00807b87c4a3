"""Runs frameworks × encoders × seeds by one recipe, each in its own process; can be resumed."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dataset_builder.bounded_yaml import read_yaml
from dataset_builder.file_writing import no_space, write_text
from training.frameworks.checkpoints import last_checkpoint
from training.frameworks.protocol import load_framework
from training.frameworks.training_log import TrainingFailed, read_training_log
from training.models import model_folder
from training.models.encoders import build_model
from training.recipe.file import field_value
from training.recipe.recipe import Recipe, RecipeError, shareable, with_later_fields
from training.system.console import BAD_INPUT, PROGRAM

PLAN_FILE = "plan.json"
RUNS = "runs"
# Written to a run's folder when its process has succeeded.
DONE_FILE = "run.json"
# Time for an interrupted run to finish its step and remove its temporary files.
SECONDS_TO_END = 30.0
_ROOM_FOR_A_LINE = 8192  # bytes; with less free space, a run cannot write why it failed
# Runs the command line, and exits when the parent process has ended: otherwise the run would still write to its folder
# when the comparison is started again.
_TRAIN = """
import os, sys, threading
threading.Thread(target=lambda: os.read(0, 1) or os._exit(1), daemon=True).start()
from training.commands.command_line import run_and_exit
run_and_exit()
"""
# Fields that are set for each run, so that they cannot be set for an encoder.
_NOT_SHARED = ("encoder", "framework", "seed", "output_dir", "resume_from_checkpoint", "overwrite_output_dir")


@dataclass(frozen=True)
class ComparedEncoder:
    """An encoder with its own recipe fields, such as its learning rate."""

    name: str
    fields: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> ComparedEncoder:
        """From `NAME` or `NAME,field=value,...`.

        Raises:
            RecipeError: for an unknown field, or a value that does not fit it.
        """
        name, *assignments = re.split(r",(?=\w+=)", text)
        fields = {}
        for assignment in assignments:
            key, separator, value = assignment.partition("=")
            if not separator or key in _NOT_SHARED:
                raise RecipeError(f"--encoders {text}: {assignment!r} is not FIELD=VALUE with a field of the recipe")
            try:
                fields[key] = field_value(key, read_yaml(value), "--encoders")
            except yaml.YAMLError:
                raise RecipeError(f"--encoders {text}: {value!r} is not a valid value for {key}") from None
        return cls(name, fields)


@dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison."""

    framework: str
    encoder: ComparedEncoder
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """Its folder's name."""
        encoder = self.recipe.encoder_name.replace("/", "--")
        return f"{encoder}-{self.framework}-seed{self.seed}"


def plan_runs(
    recipe: Recipe,
    frameworks: Sequence[str],
    encoders: Sequence[ComparedEncoder],
    seeds: Sequence[int],
    output_dir: Path,
) -> list[ComparedRun]:
    """The runs of a comparison, encoder by encoder.

    Args:
        recipe: what all runs share.
        frameworks: names of frameworks.
        encoders: encoders with their own fields.
        seeds: seeds.
        output_dir: folder of the comparison.

    Raises:
        RecipeError: if a run's recipe is invalid, or two runs are the same.
    """
    runs = []
    for encoder, framework, seed in itertools.product(encoders, frameworks, seeds):
        fields = {**encoder.fields, "encoder": encoder.name, "framework": framework, "seed": seed}
        run = ComparedRun(framework, encoder, seed, dataclasses.replace(recipe, **fields))
        run = dataclasses.replace(
            run, recipe=dataclasses.replace(run.recipe, output_dir=str(output_dir / RUNS / run.name))
        )
        run.recipe.check()
        runs.append(run)
    if len({run.name for run in runs}) < len(runs):
        raise RecipeError("--frameworks, --encoders or --seeds name the same run twice")
    return runs


def check_encoders(runs: Sequence[ComparedRun]) -> None:
    """Loads the encoder of every remaining run, so that a bad one fails before any training.

    Raises:
        RecipeError: if one cannot be loaded, or cannot order sentences.
        OSError: if the Hub cannot be reached.
    """
    missing = (run for run in runs if not (Path(run.recipe.output_dir) / DONE_FILE).is_file())
    for run in {run.encoder.name: run for run in missing}.values():
        build_model(run.recipe, [])


def run_comparison(
    runs: Sequence[ComparedRun], output_dir: Path, report: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Runs the remaining runs.

    Args:
        runs: all runs of the comparison.
        output_dir: its folder.
        report: called with each line of progress.

    Returns:
        For each run, in order: `encoder`, `framework`, `seed`, `seconds` (of training), `peak_memory_mb` of
        the process, `results` (its `results.json`) and `log` (rows of its training log).

    Raises:
        RecipeError: if the folder holds another comparison, or a run refuses its recipe, encoder or data.
        TrainingFailed: if a run fails; finished runs are kept.
    """
    _check_plan(runs, output_dir)
    outcomes = []
    for number, run in enumerate(runs, 1):
        folder = Path(run.recipe.output_dir)
        if not (folder / DONE_FILE).is_file():
            report(f"run {number} of {len(runs)}: {run.name}")
            began = time.perf_counter()
            memory = _run_in_process(run, folder, report)
            # The time of the whole process; the training alone is measured within it.
            model_folder.write_json(
                folder / DONE_FILE,
                {"peak_memory_mb": memory, "process_seconds": round(time.perf_counter() - began, 1)},
            )
        outcomes.append(_outcome(run, folder))
    return outcomes


def _check_plan(runs: Sequence[ComparedRun], output_dir: Path) -> None:
    plan = {run.name: shareable(run.recipe) for run in runs}
    path = output_dir / PLAN_FILE
    if path.is_file():
        old = json.loads(path.read_text(encoding="utf-8"))
        changed = [
            name
            for name in plan
            if name in old and with_later_fields(old[name]) != with_later_fields(_plain(plan[name]))
        ]
        if changed:
            raise RecipeError(
                f"{output_dir} holds a comparison by another recipe (run {changed[0]} differs): choose another "
                "--output_dir, or give the recipe that it was started with"
            )
        plan = old | plan
    elif output_dir.exists() and any(output_dir.iterdir()):
        raise RecipeError(f"--output_dir {output_dir} is not empty and holds no comparison: choose another")
    output_dir.mkdir(parents=True, exist_ok=True)
    model_folder.write_json(path, plan)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _run_in_process(run: ComparedRun, folder: Path, report: Callable[[str], None]) -> float:
    """Trains in a new process, from the last checkpoint if there is one; its peak memory in MiB."""
    values = dataclasses.asdict(run.recipe)
    if last_checkpoint(load_framework(run.framework), folder / model_folder.CHECKPOINTS, report) is not None:
        values["resume_from_checkpoint"] = "last"
    elif folder.exists():
        shutil.rmtree(folder)
    recipe_file = folder.parent / f".{run.name}.yaml"
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_text(recipe_file, yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    log_file = folder.parent / f"{run.name}.log"
    with open(log_file, "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            # -P: do not import a training.py of the working directory.
            [sys.executable, "-P", "-c", _TRAIN, "train", "--config", str(recipe_file)],
            stdin=subprocess.PIPE,  # closes when this process ends
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,  # receives Ctrl-C from this process only
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            _end(process)
            raise
    assert process.stdin is not None
    process.stdin.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    recipe_file.unlink()
    if process.returncode != 0:
        lines = log_file.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        if not last and shutil.disk_usage(log_file.parent).free < _ROOM_FOR_A_LINE:
            raise no_space(log_file)
        last = last or "it said nothing"
        last = last.removeprefix(f"{PROGRAM}: ")
        refused = process.returncode == BAD_INPUT
        kind = RecipeError if refused else TrainingFailed
        raise kind(f"the run {run.name} {'was refused' if refused else 'failed'}: {last} (all of it in {log_file})")
    return round(usage.ru_maxrss / 1024, 1)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupts a run, so that it removes its temporary files, and kills it if it does not end."""
    process.send_signal(signal.SIGINT)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)
    finally:
        process.kill()
        process.wait()


def _outcome(run: ComparedRun, folder: Path) -> dict[str, Any]:
    done = json.loads((folder / DONE_FILE).read_text(encoding="utf-8"))
    results = json.loads((folder / model_folder.RESULTS_FILE).read_text(encoding="utf-8"))
    return {
        "encoder": run.recipe.encoder_name,
        "framework": run.framework,
        "seed": run.seed,
        "seconds": results["training"]["seconds"],
        **done,
        "results": results,
        "log": read_training_log(folder / model_folder.LOG_FILE),
    }
