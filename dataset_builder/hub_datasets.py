"""Data sets on the Hub, their local copies, and those of `save_to_disk`: no code is run."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

import yaml

from .bounded_yaml import read_yaml
from .errors import UserError
from .story_cache import writable_cache_folder
from .story_files import SUFFIXES, did_you_mean, special_file, supported
from .unpacking import split_compression

_CARDS = ("README.md", ".huggingface.yaml")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def check_hub_id(source: str) -> None:
    """Refuses a source that is not a file or folder here and cannot be the id of a data set either.

    Raises:
        UserError: stating what was looked for.
    """
    if (special := special_file(source)) is not None:
        raise UserError(f"{source}: {special}; these stories are read more than once: write them to a file first")
    hint = did_you_mean(source)
    if os.path.splitext(split_compression(source)[0])[1].lower() in SUFFIXES:
        raise UserError(f"{source}: no such file{hint}")
    if not _HUB_ID.fullmatch(source):
        raise UserError(
            f"{source}: no such data: it is not 'sample' or 'sample-long', there is no file ({supported()}) or folder "
            f"of this name, and a data set on the Hub is called user/name{hint}"
        )


def is_saved(folder: str) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return any(os.path.isfile(os.path.join(folder, name)) for name in ("dataset_dict.json", "state.json"))


def is_dataset(folder: str) -> bool:
    """Whether a folder has a data set card that states where its files are, as `build` writes it."""
    card = os.path.join(folder, "README.md")
    if not os.path.isfile(card):
        return False
    with open(card, encoding="utf-8", errors="replace") as file:
        return re.match(r"---\n(?:(?!---\n).*\n)*?configs:", file.read()) is not None


def load_splits(source: str, digest: str | None) -> list[tuple[str, Any]]:
    """Name and rows of each split.

    Args:
        source: a folder, or an id on the Hub.
        digest: hash of a folder's content. `datasets` identifies local files by name and time, so each content gets its
            own cache folder.

    Raises:
        UserError: the data set does not exist, or its card names files outside of it.
    """
    import datasets

    where = _location(source)
    with _not_found(source):
        if digest and is_saved(source):
            check_saved_files(source)
            loaded = datasets.load_from_disk(where)
        else:
            check_card_files(source)
            cached = {"cache_dir": os.path.join(writable_cache_folder(), digest)} if digest else {}
            loaded = datasets.load_dataset(where, trust_remote_code=False, **cached)
    return list(loaded.items()) if isinstance(loaded, dict) else [("train", loaded)]


def files_by_split(source: str) -> dict[str, list[str]]:
    """Paths or URLs of the files of each split of a data set, without reading them.

    Raises:
        UserError: as `load_splits`; or there are no files.
    """
    import datasets

    with _not_found(source):
        check_card_files(source)
        files = datasets.load_dataset_builder(_location(source), trust_remote_code=False).config.data_files
    return {str(split): [str(path) for path in paths] for split, paths in (files or {}).items()}


def _location(source: str) -> str:
    """The absolute path of a folder: `datasets` would take `parquet` or `csv` for one of its readers."""
    return os.path.abspath(source) if os.path.isdir(source) else source


@contextmanager
def _not_found(source: str) -> Iterator[None]:
    import datasets

    try:
        yield
    except datasets.exceptions.DatasetNotFoundError:
        hint = did_you_mean(source)
        raise UserError(f"{source}: no file or folder here and no data set on the Hub has this name{hint}") from None
    except datasets.exceptions.DataFilesNotFoundError:
        raise UserError(f"{source}: no file of stories in this data set") from None


def check_card_files(source: str) -> None:
    """Refuses a data set whose card names files outside of it, before any of them is opened.

    Args:
        source: a folder, or the id of a data set on the Hub.

    Raises:
        UserError: the card names an absolute path, a path that leaves the folder, or a URL.
    """
    for name in _CARDS:
        path = os.path.join(source, name) if os.path.isdir(source) else _downloaded(source, name)
        if path is not None and os.path.isfile(path):
            _check_patterns(_patterns(_configurations(path, source)), source, name)


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
            _check_patterns(names, folder, name)


def _check_patterns(patterns: Iterator[str] | list[str], source: str, name: str) -> None:
    """Raises UserError for an absolute path, a URL or a path with `..` in it, on any system."""
    for pattern in patterns:
        plain = pattern.replace("\\", "/")
        is_url = re.match(r"[A-Za-z][\w+.-]*:", plain) is not None or "::" in plain
        if is_url or plain.startswith(("/", "~")) or ".." in PurePosixPath(plain).parts:
            raise UserError(
                f"{source}: {name} names {pattern[:100]!r}, which is not a file of this data set and is not read"
            )


def _downloaded(repo_id: str, name: str) -> str | None:
    """A file of a data set on the Hub; None if the file or the data set does not exist."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    try:
        return hf_hub_download(repo_id, name, repo_type="dataset")
    except (EntryNotFoundError, RepositoryNotFoundError):
        return None


def _configurations(path: str, source: str) -> Any:
    """The value of `configs` in a card, read as `datasets` reads it."""
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
    """The file patterns in a value of `configs`, in any of its forms."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _patterns(entry, inside=inside or key in ("data_files", "data_dir"))
    elif isinstance(value, list):
        for entry in value:
            yield from _patterns(entry, inside=inside)
    elif inside and isinstance(value, str):
        yield value
