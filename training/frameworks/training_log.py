"""The log of a training run, as CSV and for TensorBoard; the same in every framework."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dataset_builder.file_writing import errors_about, new_file
from training.evaluation.metrics import LOGGED_METRICS
from training.system.errors import CommandFailed

from .reporting import Reporting

COLUMNS = (
    "step",
    "epoch",
    "loss",
    "learning_rate",
    "grad_norm",
    *(f"eval_{name}" for name in LOGGED_METRICS),
)


class TrainingFailed(CommandFailed):
    """Training that cannot go on for a reason outside of its input; the message is one line."""


class TrainingLog:
    """Losses and evaluations of a training run.

    Args:
        path: the CSV, or None. Each row is written at once, so that a killed run leaves a complete log.
        tensorboard_folder: folder of TensorBoard's event files, or None.
        report: called with one line after each evaluation.
        reporting: experiment trackers, or None.
        on_evaluation: called with the step and the metrics after each evaluation. An exception that it raises ends
            the training.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        tensorboard_folder: str | os.PathLike[str] | None = None,
        report: Callable[[str], None] | None = None,
        reporting: Reporting | None = None,
        on_evaluation: Callable[[int, Mapping[str, float]], None] | None = None,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.rows: list[dict[str, float]] = []
        self._report = report
        self._reporting = reporting
        self._on_evaluation = on_evaluation
        self._tensorboard_folder = tensorboard_folder
        self._first_step: int | None = None
        self._writer: Any = None
        self._rewrite()

    def continue_from(self, rows: list[dict[str, float]], step: int) -> None:
        """Continues the log of an interrupted run with its rows up to the step of the checkpoint."""
        self.rows = [row for row in rows if row["step"] <= step]
        self._first_step = step + 1
        self._rewrite()

    def training(self, step: int, epoch: float, loss: float, learning_rate: float, grad_norm: float | None) -> None:
        """Records the mean training loss since the last entry.

        Args:
            step: optimizer steps so far.
            epoch: epochs so far, with a fraction.
            loss: mean over the steps since the last entry.
            learning_rate: of the last step.
            grad_norm: norm of the last step's gradient before clipping.

        Raises:
            TrainingFailed: if the loss is not a finite number.
        """
        row = {"step": step, "epoch": epoch, "loss": loss, "learning_rate": learning_rate}
        if grad_norm is not None:
            row["grad_norm"] = grad_norm
        self._append(row)
        if not math.isfinite(loss):
            raise TrainingFailed(
                f"the training loss is {loss} at step {step}: lower --learning_rate, or try --bf16 false; "
                "the last checkpoint is kept"
            )

    def evaluation(self, step: int, epoch: float, metrics: Mapping[str, float]) -> None:
        """Records an evaluation on the validation stories; `metrics` has all of `LOGGED_METRICS`."""
        self._append({"step": step, "epoch": epoch, **{f"eval_{name}": metrics[name] for name in LOGGED_METRICS}})
        if self._report is not None:
            self._report(
                f"epoch {epoch:.2f}, step {step}: validation tau {metrics['kendalls_tau']:.3f}, "
                f"accuracy {metrics['accuracy']:.3f}, pmr {metrics['pmr']:.3f}, loss {metrics['loss']:.3f}"
            )
        if self._on_evaluation is not None:
            self._on_evaluation(step, metrics)

    def close(self) -> None:
        """Flushes TensorBoard's log and ends the trackers' runs."""
        if self._writer is not None:
            self._writer.close()
        if self._reporting is not None:
            self._reporting.close()

    def _append(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        if self.path is not None:
            with errors_about(self.path), open(self.path, "a", newline="", encoding="utf-8") as sink:
                csv.DictWriter(sink, COLUMNS, lineterminator="\n").writerow(row)
        if self._tensorboard_folder is not None:
            self._to_tensorboard(row)
        if self._reporting is not None:
            self._reporting.log(row)

    def _to_tensorboard(self, row: Mapping[str, float]) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # Hides what an interrupted run logged after the checkpoint.
            self._writer = SummaryWriter(str(self._tensorboard_folder), purge_step=self._first_step)
        for name, value in row.items():
            if name not in ("step", "epoch"):
                group = "validation" if name.startswith("eval_") else "training"
                self._writer.add_scalar(f"{group}/{name.removeprefix('eval_')}", value, int(row["step"]))

    def _rewrite(self) -> None:
        if self.path is None:
            return
        with new_file(self.path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as sink:
            writer = csv.DictWriter(sink, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


def read_training_log(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The rows of a log, without empty values; no rows if the file does not exist."""
    if not os.path.exists(path):
        return []
    with open(path, newline="", encoding="utf-8") as source:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(source)]
    return [row for row in rows if "step" in row]
