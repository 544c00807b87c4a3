"""Refuses folders with files that must not be pushed or exported: outgoing links, secrets and foreign code."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

from dataset_builder import UserError

# File names under which people and programs keep secrets.
SECRETS = (
    "token", "token.*", "*.token", "*[_-]token", "*[_-]token.*", "stored_tokens", "*credentials*", "*secret*", "id_*",
    "*.pem", "*.pem.*", "*.key", "*.key.*", "*.p12", "*.pfx", "*.ppk", "*.jks", "*.keystore", "*.kdbx", "*.gpg",
    "*.asc", "netrc", "_netrc", "*.htpasswd", "password*", "passwd*", "api[_-]key*", "apikey*", "private[_-]key*",
    "privkey*", "service[_-]account*", "kubeconfig*",
)  # fmt: skip
# Hidden files are never pushed; these are refused to warn the user.
HIDDEN_SECRETS = (".env", ".env.*", "*.env", ".netrc", ".pypirc")


def check_files(folder: Path, excluded: tuple[str, ...]) -> None:
    """Refuses a folder with files that must not leave this machine.

    Args:
        folder: what is to be pushed.
        excluded: name patterns of files that are not pushed and therefore not checked.

    Raises:
        UserError: a link out of the folder (except into `blobs` of the Hub's cache), a link to a folder, a device or
            socket, or a file name that is typical of secrets.
    """
    root = folder.resolve()
    roots = [root, *([root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [])]
    ignored = shutil.ignore_patterns(*excluded)
    for parent, folders, names in os.walk(root):
        skipped = ignored(parent, [*folders, *names])
        folders[:] = sorted(name for name in folders if name not in skipped)
        for name in sorted({*folders, *names}):
            path = Path(parent) / name
            shown = folder / path.relative_to(root)
            secrets = HIDDEN_SECRETS if name in skipped else (*SECRETS, *HIDDEN_SECRETS)
            if any(fnmatch(name.lower(), pattern) for pattern in secrets):
                raise UserError(f"{shown} is named like a secret: move it out of the folder; nothing was pushed")
            if name in skipped:
                continue
            if path.is_symlink():
                _check_link(path, shown, roots, ignored)
            elif not path.is_dir() and not path.is_file():
                raise UserError(f"{shown} is not a regular file: remove it from the folder; nothing was pushed")


def _check_link(path: Path, shown: Path, roots: list[Path], ignored: Callable[[str, list[str]], set[str]]) -> None:
    if path.is_dir():
        raise UserError(f"{shown} is a link to a folder: replace it by the folder; nothing was pushed")
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # up to Python 3.12 a loop is a RuntimeError
        raise UserError(f"{shown} is a link to a missing file: remove it; nothing was pushed") from None
    if target.is_relative_to(roots[0]) and ignored("", list(target.relative_to(roots[0]).parts)):
        raise UserError(f"{shown} is a link to {target.name}, which is not pushed: remove it; nothing was pushed")
    if not any(target.is_relative_to(root) for root in roots):
        raise UserError(
            f"{shown} is a link to a file outside the folder: replace it by a copy if it is to be public; nothing was "
            "pushed"
        )


def check_code(folder: Path, name: Path | str, *, trusted: bool = False) -> None:
    """Refuses a model's folder that contains or references code that is not this package's.

    Args:
        folder: the model's folder, or a copy of it.
        name: what to call it in an error message.
        trusted: allow any code in the folder; references to code outside it are refused all the same.

    Raises:
        UserError: naming the first three files or references.
    """
    if references := sorted(foreign_references(folder, trusted=trusted)):
        raise UserError(
            f"{name} references code that is not this package's, which loading the model would run: remove these "
            f"entries ({'; '.join(references[:3])})"
        )
    if not trusted and (files := foreign_code(folder)):
        raise UserError(
            f"{name} contains code that is not of this version of the package ({', '.join(files[:3])}), and loading "
            "the model would run it: read it, then add --trust_remote_code"
        )


def foreign_references(folder: Path, *, trusted: bool = False) -> Iterator[str]:
    """Entries of all JSON files in a folder that reference code that is not this package's.

    Args:
        folder: the model's folder.
        trusted: references to modules in the folder are allowed.
    """
    from modeling_sentence_ordering.configuration_sentence_ordering import OWN_REFERENCES, references_in

    for path in folder.rglob("*.json"):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            continue  # no loader can read it
        if path.name == "adapter_config.json":
            yield f"{path.name}: the base model of an adapter"
        for reference in references_in(values):
            module = re.fullmatch(r"([\w/]+)\.\w+", reference)
            in_folder = trusted and module is not None and (folder / f"{module[1]}.py").is_file()
            if reference not in OWN_REFERENCES and not in_folder:
                yield f"{path.relative_to(folder).as_posix()}: {reference[:100]}"


def foreign_code(folder: Path) -> list[str]:
    """Relative paths of the Python files that differ, in any byte, from this version of the package."""
    package = find_spec("modeling_sentence_ordering")  # not imported: data sets are pushed without torch
    assert package is not None and package.origin is not None
    own = {path.name: path.read_bytes() for path in Path(package.origin).parent.glob("*.py")}
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*.py") if own.get(path.name) != path.read_bytes()
    )


def listing(folder: Path, most: int = 40) -> str:
    """Number and bytes of the files in a folder, then the first `most` of them, one a line."""
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    lines = [f"  {name} ({size:,} bytes)" for name, size in sorted(sizes.items())[:most]]
    if len(sizes) > most:
        lines.append(f"  and {len(sizes) - most:,} more")
    files = "1 file" if len(sizes) == 1 else f"{len(sizes):,} files"
    return "\n".join([f"{files}, {sum(sizes.values()):,} bytes:", *lines])
