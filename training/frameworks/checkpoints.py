"""Which checkpoint a run resumes from: the newest one whose files are complete."""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .protocol import Framework

# Trainer resumes without these files and does not report that they are missing.
_NEEDED = ("optimizer", "scheduler", "rng_state")


def last_checkpoint(framework: Framework, folder: Path, log: Callable[[str], None] = print) -> Path | None:
    """The newest complete checkpoint in a folder, or None.

    Newer damaged checkpoints are renamed to `damaged-…`, so that they do not count towards `--save_total_limit`.

    Args:
        framework: the framework that wrote them.
        folder: the folder of checkpoints. It need not exist.
        log: called with one line for each damaged checkpoint.
    """
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=_step_in_name, reverse=True):
        if _step_in_name(checkpoint) < 0:
            continue
        damage = find_damage(framework, checkpoint)
        if damage is None:
            return checkpoint
        renamed = checkpoint.with_name(f"damaged-{checkpoint.name}")
        if renamed.is_dir():
            shutil.rmtree(renamed)
        shutil.move(checkpoint, renamed)
        log(f"{damage}; renamed to {renamed.name}, trying the checkpoint before it")
    return None


def find_damage(framework: Framework, checkpoint: Path) -> str | None:
    """Why a run cannot resume from a checkpoint; None for a complete one."""
    try:
        framework.checkpoint_step(checkpoint)
    except ValueError as error:
        return str(error)
    part = damaged_part(checkpoint)
    return None if part is None else f"{checkpoint} is damaged: {part}"


def damaged_part(checkpoint: Path) -> str | None:
    """The first file of a checkpoint that is missing or damaged, or None.

    Files written by torch are zip archives with checksums. Safetensors files have none: only their length is checked.
    """
    if checkpoint.is_dir() and (checkpoint / "trainer_state.json").exists():
        for name in _NEEDED:
            if not any(checkpoint.glob(f"{name}*")):
                return f"{name} is missing"
    for path in [checkpoint] if checkpoint.is_file() else sorted(checkpoint.rglob("*")):
        if path.is_file() and not _is_complete(path):
            return path.name
    return None


def _is_complete(path: Path) -> bool:
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


def _step_in_name(checkpoint: Path) -> int:
    step = checkpoint.name.removesuffix(".ckpt").removeprefix("checkpoint-")
    return int(step) if step.isdecimal() else -1
