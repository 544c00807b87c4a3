"""Orders a folder of files with Ray Data, on this machine or a cluster: complete, and each record once.

The input is divided into parts. A worker reads a part, orders it and writes it as one file of the output folder, under
a name that depends on the part only. A file appears when it is complete, and a part that is written twice, after a
worker was lost, gives the same file. A summary is written after each file; parts that have one are not ordered again.
Ray's own reader and writer are not used: the reader refuses a file with a bad record, and the writer chooses new names
in every run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dataset_builder import UserError
from dataset_builder.file_parts import FilePart, plan_parts, read_part
from dataset_builder.file_writing import UNFINISHED
from training.models.model_folder import read_json, write_json
from training.system.errors import CommandFailed

from .answers import record, write_rows
from .order_batches import OrderStories
from .ordering import PORTION

FORMATS = ("jsonl", "parquet")
PROGRESS = "_order"
"""Folder in the output for the manifest and the summaries; readers of data sets skip names with an underscore."""
COMPLETE = "_SUCCESS"
"""Empty file in the output when all of it is there, as Hadoop and Spark write it."""
_TRIES = 5  # of a part whose worker is lost


@dataclass(frozen=True)
class Summary:
    """What was written for a part.

    Attributes:
        file: name of the file.
        size: of the file, in bytes.
        records: number of records.
        failed: number of error records.
        first_error: the first error; empty if there is none.
        truncated: number of truncated sentences.
        stories_truncated: number of their stories.
    """

    file: str
    size: int
    records: int = 0
    failed: int = 0
    first_error: str = ""
    truncated: int = 0
    stories_truncated: int = 0


class RayRun:
    """The parts of an input and the folder of their answers.

    Args:
        inputs: files of stories.
        output: the folder.
        model: digests of the model's files.
        settings: all else that decides the answers, in plain values.
        part_size: records in a part.
        output_format: one of `FORMATS`.

    Raises:
        UserError: the folder has other files, or answers to another input or with other settings.
    """

    def __init__(
        self,
        inputs: list[str],
        output: Path,
        *,
        model: Mapping[str, str],
        settings: Mapping[str, Any],
        part_size: int,
        output_format: str,
    ) -> None:
        self.output = output.absolute()
        self.settings = dict(settings)
        planned = [plan_parts(path, part_size, split_sentences=settings.get("split_sentences")) for path in inputs]
        self.parts = {
            f"part-{number:05d}.{output_format}": part
            for number, part in enumerate(part for _, parts in planned for part in parts)
        }
        names = [os.path.basename(path) for path in inputs]
        self._open(
            {
                "inputs": {name: digest for name, (digest, _) in zip(names, planned, strict=True)},
                "model": dict(model),
                **settings,
                "part_size": part_size,
                "output_format": output_format,
            }
        )

    def _open(self, manifest: dict[str, Any]) -> None:
        path = self.output / PROGRESS / "manifest.json"
        if not path.exists():
            if any(not entry.name.startswith(".") for entry in self.output.iterdir() if entry.name != PROGRESS):
                raise UserError(f"--output {self.output} has other files: choose another folder")
            path.parent.mkdir(exist_ok=True)
            write_json(path, manifest)
            return
        there = read_json(path)
        for name in manifest.keys() | there.keys():
            if there.get(name) != manifest.get(name):
                raise UserError(
                    f"--output {self.output} has answers of another run: {_difference(name, there, manifest)}; choose "
                    "another folder, or remove this one to start anew"
                )

    def summaries(self) -> list[Summary]:
        """Summaries of the parts that are written."""
        return [summary for file in self.parts if (summary := _summary(self.output, file)) is not None]

    def missing(self) -> list[dict[str, str]]:
        """The parts that are not written: name of the file, and the part as JSON."""
        written = {summary.file for summary in self.summaries()}
        parts = [(file, part) for file, part in self.parts.items() if file not in written]
        return [{"file": file, "part": json.dumps(asdict(part))} for file, part in parts]

    def order(self, model: str, workers: int, gpus: float) -> Iterator[Summary]:
        """Orders the missing parts in the Ray that is initialized; yields a summary of each.

        Args:
            model: folder of the model, which each worker loads.
            workers: maximum number of workers.
            gpus: for each worker.

        Raises:
            UserError: a file has changed, or the model cannot be loaded.
            CommandFailed: workers were lost repeatedly with one part, or a part could not be written.
        """
        import ray.data
        from ray.exceptions import RayError, RayTaskError, UserCodeException

        parts = self.missing()
        for part in parts:
            _attempts_path(self.output, part["file"]).unlink(missing_ok=True)
        workers = min(workers, len(parts))
        ordered = ray.data.from_items(parts, override_num_blocks=len(parts)).map_batches(
            OrderPart,
            fn_constructor_kwargs={"model": model, "output": str(self.output), **self.settings},
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers),
            num_cpus=1,
            num_gpus=gpus,
        )
        try:
            for row in ordered.iter_rows():
                if row["failure"]:
                    raise (UserError if row["is_input"] else CommandFailed)(row["failure"])
                yield Summary(**{name: row[name] for name in Summary.__dataclass_fields__})
        except RayError as error:
            if isinstance(error, (RayTaskError, UserCodeException)):
                raise
            raise CommandFailed(f"Ray failed: {str(error).strip().splitlines()[0]}") from error

    def close(self) -> list[Summary]:
        """Marks the output as complete; the summaries of all parts.

        Raises:
            CommandFailed: a part is missing.
        """
        if missing := self.missing():
            raise CommandFailed(f"{len(missing)} of {len(self.parts)} parts were not written; run the command again")
        for folder in (self.output, self.output / PROGRESS):
            for stale in folder.glob(f".*.{UNFINISHED}-*"):  # of lost workers
                stale.unlink(missing_ok=True)
        (self.output / COMPLETE).touch()
        return self.summaries()


class OrderPart:
    """A Ray Data worker: reads a part, orders it and writes it.

    Args:
        model: folder of the model.
        output: folder of the answers.
        split_sentences: as in `read_stories`.
        options: of `OrderStories`.
    """

    def __init__(self, model: str, output: str, split_sentences: str | None, **options: Any) -> None:
        self.output = Path(output)
        self.split_sentences = split_sentences
        self.order = OrderStories(model, **options)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """A batch of parts to their summaries, one row each; a failure is a row as well."""
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        summaries = [self._attempt(row) for row in rows]
        return {name: [summary[name] for summary in summaries] for name in summaries[0]}

    def _attempt(self, row: Mapping[str, Any]) -> dict[str, Any]:
        file = str(row["file"])
        try:
            summary = self.write(file, _part_of(str(row["part"])))
        except (UserError, CommandFailed) as error:
            return _failure(file, str(error), is_input=isinstance(error, UserError))
        except OSError as error:
            return _failure(file, f"{error.filename}: {error.strerror}" if error.strerror else str(error))
        return {**asdict(summary), "failure": "", "is_input": False}

    def write(self, file: str, part: FilePart) -> Summary:
        """Orders a part and writes it, and its summary, unless both are there."""
        if (there := _summary(self.output, file)) is not None:
            return there
        attempts = _attempts_path(self.output, file)
        with open(attempts, "ab") as stream:
            if stream.tell() >= _TRIES:
                raise CommandFailed(f"{part.name}, rows {part.rows or 'all'}: the worker was lost {_TRIES} times")
            stream.write(b".")
        counts: dict[str, Any] = {"records": 0, "failed": 0, "truncated": 0, "stories_truncated": 0, "first_error": ""}
        write_rows(self._rows(part, counts), str(self.output / file), self.order.answer_options.keys)
        summary = Summary(file, (self.output / file).stat().st_size, **counts)
        write_json(_summary_path(self.output, file), asdict(summary))
        attempts.unlink(missing_ok=True)
        return summary

    def _rows(self, part: FilePart, counts: dict[str, Any]) -> Iterator[dict[str, Any]]:
        records = read_part(part, split_sentences=self.split_sentences)
        while items := list(islice(records, PORTION)):
            for item, answer in zip(items, self.order.answers(items), strict=True):
                counts["records"] += 1
                counts["failed"] += answer.error is not None
                counts["first_error"] = counts["first_error"] or answer.error or ""
                counts["truncated"] += len(answer.truncated)
                counts["stories_truncated"] += bool(answer.truncated)
                yield {"file": os.path.basename(item.file), "row": item.row, **record(answer)}


def _failure(file: str, message: str, *, is_input: bool = False) -> dict[str, Any]:
    return {**asdict(Summary(file, 0)), "failure": message, "is_input": is_input}


def _part_of(text: str) -> FilePart:
    values: dict[str, Any] = json.loads(text)
    plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return FilePart(**plain)


def _summary_path(output: Path, file: str) -> Path:
    return output / PROGRESS / f"{file}.json"


def _attempts_path(output: Path, file: str) -> Path:
    """One byte for each worker that began the part."""
    return output / PROGRESS / f"{file}.attempts"


def _summary(output: Path, file: str) -> Summary | None:
    """The summary of a part, or None if the part is not written as it says."""
    try:
        summary = Summary(**read_json(_summary_path(output, file)))
        return summary if (output / file).stat().st_size == summary.size else None
    except FileNotFoundError:
        return None


def _difference(name: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    one, other = there.get(name), here.get(name)
    if isinstance(one, dict) and isinstance(other, dict):
        changed = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
        return f"{name} {', '.join(changed[:3])} {'differs' if len(changed) == 1 else 'differ'}"
    return f"{name} is {one} there and {other} here"
