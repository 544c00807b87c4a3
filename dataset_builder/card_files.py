"""The card of a data set may say where its files are: only files of the data set itself are read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import yaml

from .bounded_yaml import read_yaml
from .errors import UserError

_CARDS = ("README.md", ".huggingface.yaml")


def check_card_files(source: str) -> None:
    """Refuses a data set whose card names files outside of it, before any of them is looked for.

    Args:
        source: a folder, or the id of a data set on the Hub.

    Raises:
        UserError: if the card names an absolute path, a path that leaves the folder, or a URL.
    """
    for name in _CARDS:
        path = os.path.join(source, name) if os.path.isdir(source) else _downloaded(source, name)
        if path is None or not os.path.isfile(path):
            continue
        for pattern in _patterns(_configurations(path, source)):
            if _leaves(pattern):
                raise UserError(
                    f"{source}: {name} names {pattern[:100]!r}, which is not a file of this data set: it is not read"
                )


def _downloaded(repo_id: str, name: str) -> str | None:
    """A file of a data set on the Hub; None if there is none, or no such data set, which `datasets` explains better."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    try:
        return hf_hub_download(repo_id, name, repo_type="dataset")
    except (EntryNotFoundError, RepositoryNotFoundError):
        return None


def _configurations(path: str, source: str) -> Any:
    """What a card says under `configs`, read as `datasets` reads it."""
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if not path.endswith(".yaml"):
            block = REGEX_YAML_BLOCK.search(text)
            text = block.group(2) if block else ""
        metadata = read_yaml(text)
    except (yaml.YAMLError, ValueError):
        raise UserError(f"{source}: the metadata in {os.path.basename(path)} is damaged") from None
    return metadata.get("configs") if isinstance(metadata, dict) else None


def _patterns(value: Any, *, inside: bool = False) -> Iterator[str]:
    """The patterns of files in a value of `configs`, in whichever of its forms."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _patterns(entry, inside=inside or key in ("data_files", "data_dir"))
    elif isinstance(value, list):
        for entry in value:
            yield from _patterns(entry, inside=inside)
    elif inside and isinstance(value, str):
        yield value


def _leaves(pattern: str) -> bool:
    """Whether a pattern is an absolute path, a URL or has `..` in it, on any system."""
    plain = pattern.replace("\\", "/")
    is_url = re.match(r"[A-Za-z][\w+.-]*:", plain) is not None or "::" in plain
    return is_url or plain.startswith(("/", "~")) or ".." in PurePosixPath(plain).parts


def check_saved_files(folder: str) -> None:
    """Refuses a data set of `save_to_disk` that names files or splits outside of it.

    Raises:
        UserError: as `check_card_files`; also for a damaged file.
    """
    for parent, _, _ in os.walk(folder):
        for name, key in (("dataset_dict.json", "splits"), ("state.json", "_data_files")):
            path = os.path.join(parent, name)
            if not os.path.isfile(path):
                continue
            try:
                with open(path, encoding="utf-8") as file:
                    entries = json.load(file)[key]
                names = [str(entry["filename"] if isinstance(entry, dict) else entry) for entry in entries]
            except (ValueError, LookupError, TypeError, RecursionError):
                raise UserError(f"{folder}: {name} is damaged") from None
            for pattern in names:
                if _leaves(pattern):
                    raise UserError(
                        f"{folder}: {name} names {pattern[:100]!r}, which is not a file of this data set: it is "
                        "not read"
                    )
