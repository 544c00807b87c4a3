"""Orders more stories than one file should hold: in shards, by as many processes as there are, again where it stopped.

A shard is so many records of the input, in its order. Whether it is done shows by its file being there, which takes
its name only when it is complete. So processes need to know nothing of each other (shard k belongs to process k mod
the number of processes), and the same command goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

from dataset_builder import BadRecord, Story, UserError
from dataset_builder.file_writing import UNFINISHED
from modeling_sentence_ordering import SentenceOrderingModel
from training.models.repository import read_json, write_json
from training.system.processes import Processes

from .answers import write_file
from .onnx_model import OnnxModel
from .ordering import OrderedStory

SHARD_SIZE = 10_000
FORMATS = ("jsonl", "parquet")
PLAN = "order.json"


def open_shards(folder: Path, plan: Mapping[str, Any]) -> None:
    """Makes the folder of the shards, with the plan by which they are made, or finds it made by the same plan.

    Args:
        folder: where the shards are to be.
        plan: whatever decides what is in them, in plain values.

    Raises:
        UserError: if something else is in the folder, or shards by another plan.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file, where a folder of shards is to be written")
    folder.mkdir(parents=True, exist_ok=True)
    # Looked at once, and not at what is hidden: another process may be writing the same plan at this moment.
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if PLAN not in names:
        if names:
            raise UserError(f"--output {folder} is not empty and holds no shards: choose another folder")
        write_json(folder / PLAN, dict(plan))  # all processes write it, and any of them may be the last
        return
    there = read_json(folder / PLAN)
    for name in plan:
        if there.get(name) != plan[name]:
            raise UserError(
                f"--output {folder} holds shards of another run: {name} is {_shown(there.get(name))} there and "
                f"{_shown(plan[name])} here; choose another folder, or remove this one"
            )


def _shown(value: Any) -> str:
    return str(value) if len(str(value)) <= 80 else f"{str(value)[:77]}…"


def shard_plan(
    inputs: list[str], model_name: str, model: SentenceOrderingModel | OnnxModel, num_permutations: int, shard_size: int
) -> dict[str, Any]:
    """What decides the answers of each shard; files are told by name and size, the model by its head, too.

    One that ONNX Runtime runs is told by its file.
    """
    if isinstance(model, OnnxModel):
        head = model.path.read_bytes()
    else:
        head = b"".join(parameter.detach().cpu().float().numpy().tobytes() for parameter in model.head.parameters())
    return {
        "inputs": [[os.path.basename(path), os.path.getsize(path)] for path in inputs],
        "model": os.path.basename(os.path.normpath(model_name)),
        "head": hashlib.sha256(head).hexdigest()[:16],
        "num_permutations": num_permutations,
        "shard_size": shard_size,
    }


def order_in_shards(
    records: Iterable[Story | BadRecord],
    order: Callable[[Iterable[Story | BadRecord]], Iterable[OrderedStory]],
    folder: Path,
    *,
    shard_size: int = SHARD_SIZE,
    output_format: str = "jsonl",
    processes: Processes = Processes(),  # noqa: B008 - frozen
) -> Iterator[tuple[Path, int, bool]]:
    """Writes this process's shards that are missing, in constant memory.

    Args:
        records: the whole input; what belongs to other shards is read and left.
        order: answers each record of a shard, in its order.
        folder: of the shards, see `open_shards`.
        shard_size: records of a shard, the last one has what is left.
        output_format: `"jsonl"` or `"parquet"`.
        processes: which shards are this process's.

    Yields:
        For each of its shards the file, its records, and whether it was there already.
    """
    records = iter(records)
    for index in count():
        shard = islice(records, shard_size)
        first = next(shard, None)
        if first is None:
            return
        path = folder / f"part-{index:05d}.{output_format}"
        mine, there = index % processes.world_size == processes.rank, path.exists()
        counted = _Counted(chain([first], shard))
        if mine and not there:
            for stale in folder.glob(f".{path.name}.{UNFINISHED}-*"):  # of a process that was killed
                stale.unlink(missing_ok=True)
            write_file(order(counted), str(path))
        deque(counted, maxlen=0)
        if mine:
            yield path, counted.number, there


class _Counted:
    """Passes records on and counts them."""

    def __init__(self, records: Iterable[Story | BadRecord]) -> None:
        self._records = iter(records)
        self.number = 0

    def __iter__(self) -> Iterator[Story | BadRecord]:
        return self

    def __next__(self) -> Story | BadRecord:
        record = next(self._records)
        self.number += 1
        return record
