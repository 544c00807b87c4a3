"""Finds the checkpoint that a run can go on from: the newest one that is whole."""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .protocol import Framework

# What Trainer leaves out without a word when it goes on, if it is not there.
_NEEDED = ("optimizer", "scheduler", "rng_state")


def newest_whole(framework: Framework, folder: Path, report: Callable[[str], None]) -> Path | None:
    """The newest checkpoint of a run that is whole, or None.

    Newer ones are renamed, so that they do not count as checkpoints that a run keeps.

    Args:
        framework: the run's.
        folder: its checkpoints.
        report: called with a line for each that is damaged.
    """
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=_number, reverse=True):
        if _number(checkpoint) < 0:
            continue
        wrong = what_is_wrong(framework, checkpoint)
        if wrong is None:
            return checkpoint
        aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
        if aside.is_dir():
            shutil.rmtree(aside)
        shutil.move(checkpoint, aside)
        report(f"{wrong}; it is kept as {aside.name}, and the newest whole checkpoint before it is taken")
    return None


def what_is_wrong(framework: Framework, checkpoint: Path) -> str | None:
    """Why a run cannot go on from a checkpoint, in words; None for one that is whole."""
    try:
        framework.checkpoint_step(checkpoint)
    except ValueError as error:
        return str(error)
    part = damaged_part(checkpoint)
    return None if part is None else f"{checkpoint} is damaged: {part}"


def damaged_part(checkpoint: Path) -> str | None:
    """The first file of a checkpoint that is missing or does not hold what was written, or None.

    Files of torch are archives with checksums. Safetensors have none: of those only the length is checked.
    """
    if checkpoint.is_dir() and (checkpoint / "trainer_state.json").exists():
        for name in _NEEDED:
            if not any(checkpoint.glob(f"{name}*")):
                return f"{name} is missing"
    for path in [checkpoint] if checkpoint.is_file() else sorted(checkpoint.rglob("*")):
        if path.is_file() and not _is_whole(path):
            return path.name
    return None


def _is_whole(path: Path) -> bool:
    try:
        if path.suffix in (".pt", ".pth", ".bin", ".ckpt"):
            with zipfile.ZipFile(path) as archive:
                return archive.testzip() is None
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as tensors:
                return bool(tensors.keys())
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error, SafetensorError):
        return False
    return True


def _number(checkpoint: Path) -> int:
    number = checkpoint.name.removesuffix(".ckpt").removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else -1
