"""Orders large inputs in shards, with several processes and continuing after an interruption.

A shard is a fixed number of input records, in their order. It is done when its file exists, which gets its name only
when it is complete. Processes therefore need no communication: shard k belongs to process k mod the number of
processes, and the same command continues an interrupted run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

from dataset_builder import BadRecord, Story, UserError
from dataset_builder.file_writing import UNFINISHED
from modeling_sentence_ordering import SentenceOrderingModel
from training.models.model_folder import read_json, write_json
from training.system.processes import Processes

from .answers import write_file
from .onnx_model import OnnxModel
from .ordering import OrderedStory

SHARD_SIZE = 10_000
FORMATS = ("jsonl", "parquet")
PLAN = "order.json"


def open_shards(folder: Path, plan: Mapping[str, Any]) -> None:
    """Creates the folder for the shards with its plan, or checks that an existing one has the same plan.

    Args:
        folder: for the shards.
        plan: from `shard_plan`.

    Raises:
        UserError: the folder has other files, or shards of another plan.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file, but shards need a folder")
    folder.mkdir(parents=True, exist_ok=True)
    # Listed once and without hidden files: another process may be writing the same plan now.
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if PLAN not in names:
        if names:
            raise UserError(f"--output {folder} is not empty and holds no shards: choose another folder")
        write_json(folder / PLAN, dict(plan))  # each process may write it
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
    """All that the content of the shards depends on: files by name and size, the model by a hash of its head.

    An exported model is identified by a hash of its file.
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
    optional: Sequence[str] = (),
    processes: Processes = Processes(),  # noqa: B008 - frozen
) -> Iterator[tuple[Path, int, bool]]:
    """Writes the missing shards of this process. At most one shard is in memory.

    Args:
        records: the whole input; records of other shards are skipped.
        order: gives one answer for each record of a shard, in order.
        folder: see `open_shards`.
        shard_size: records per shard; the last shard may have fewer.
        output_format: `"jsonl"` or `"parquet"`.
        optional: see `write_file`.
        processes: decides which shards belong to this process.

    Yields:
        For each of its shards the file, the number of records, and whether the file existed before.
    """
    records = iter(records)
    for index in count():
        shard = list(islice(records, shard_size))
        if not shard:
            return
        if index % processes.world_size != processes.rank:
            continue
        path = folder / f"part-{index:05d}.{output_format}"
        exists = path.exists()
        if not exists:
            for stale in folder.glob(f".{path.name}.{UNFINISHED}-*"):  # of a killed process
                stale.unlink(missing_ok=True)
            write_file(order(shard), str(path), optional)
        yield path, len(shard), exists
