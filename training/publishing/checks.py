"""What a folder must not hold when it is pushed or exported: links out of it, secrets, and code of somebody else."""

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

# Names under which people and programs keep secrets.
SECRETS = (
    "token", "token.*", "*.token", "*[_-]token", "*[_-]token.*", "stored_tokens", "*credentials*", "*secret*", "id_*",
    "*.pem", "*.pem.*", "*.key", "*.key.*", "*.p12", "*.pfx", "*.ppk", "*.jks", "*.keystore", "*.kdbx", "*.gpg",
    "*.asc", "netrc", "_netrc", "*.htpasswd", "password*", "passwd*", "api[_-]key*", "apikey*", "private[_-]key*",
    "privkey*", "service[_-]account*", "kubeconfig*",
)  # fmt: skip
# Hidden files are not pushed, but these are refused all the same: nobody means to keep them in a model's folder.
HIDDEN_SECRETS = (".env", ".env.*", "*.env", ".netrc", ".pypirc")


def check_files(folder: Path, kept_back: tuple[str, ...]) -> None:
    """Refuses a folder with files in it that must not leave this machine.

    Args:
        folder: what is to be pushed.
        kept_back: patterns of names that are not pushed, and so not looked at.

    Raises:
        UserError: for a link that leaves the folder, a link to a folder, a device or socket, or a name that secrets
            have. The links of the Hub's cache into its `blobs` are followed.
    """
    root = folder.resolve()
    inside = [root, *([root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [])]
    ignored = shutil.ignore_patterns(*kept_back)
    for parent, folders, names in os.walk(root):
        kept = ignored(parent, [*folders, *names])
        folders[:] = sorted(name for name in folders if name not in kept)
        for name in sorted({*folders, *names}):
            path = Path(parent) / name
            shown = folder / path.relative_to(root)
            secrets = HIDDEN_SECRETS if name in kept else (*SECRETS, *HIDDEN_SECRETS)
            if any(fnmatch(name.lower(), pattern) for pattern in secrets):
                raise UserError(f"{shown} has a name that secrets have: move it out of the folder; nothing was pushed")
            if name in kept:
                continue
            if path.is_symlink():
                _check_link(path, shown, inside, ignored)
            elif not path.is_dir() and not path.is_file():
                raise UserError(f"{shown} is not a regular file: remove it from the folder; nothing was pushed")


def _check_link(path: Path, shown: Path, inside: list[Path], ignored: Callable[[str, list[str]], set[str]]) -> None:
    if path.is_dir():
        raise UserError(f"{shown} is a link to a folder: put the folder itself there; nothing was pushed")
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # up to Python 3.12 a loop is a RuntimeError
        raise UserError(f"{shown} is a link to nothing: remove it; nothing was pushed") from None
    root = inside[0]
    if target.is_relative_to(root) and ignored("", list(target.relative_to(root).parts)):
        raise UserError(f"{shown} is a link to {target.name}, which is not pushed: remove it; nothing was pushed")
    if not any(target.is_relative_to(root) for root in inside):
        raise UserError(
            f"{shown} is a link to a file outside of the folder: put a copy there if it is to be public; "
            "nothing was pushed"
        )


def check_code(folder: Path, name: Path | str, *, trusted: bool = False) -> None:
    """Refuses a model's folder that brings, or names, code of anybody else.

    Args:
        folder: the model's.
        name: what to call it in an error, if it is a copy.
        trusted: code in the folder may be anybody's; code outside of it still may not be named.

    Raises:
        UserError: with the first few places.
    """
    if named := sorted(foreign_references(folder, trusted=trusted)):
        raise UserError(
            f"{name} names code that is not this package's, which loading the model would run: remove these entries "
            f"({'; '.join(named[:3])})"
        )
    if not trusted and (unknown := foreign_code(folder)):
        raise UserError(
            f"{name} holds code that is not of this version of the package ({', '.join(unknown[:3])}), and loading the "
            "model would run it: read it, then add --trust_remote_code"
        )


def foreign_references(folder: Path, *, trusted: bool = False) -> Iterator[str]:
    """The entries of all JSON files in a folder that name other code than this package's.

    Args:
        folder: a model's.
        trusted: a module in the folder is fine as well.
    """
    from modeling_sentence_ordering.configuration_sentence_ordering import OWN_REFERENCES, references_in

    for path in folder.rglob("*.json"):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            continue  # nobody loads it
        if path.name == "adapter_config.json":
            yield f"{path.name}: the base model of an adapter"
        for reference in references_in(values):
            module = re.fullmatch(r"([\w/]+)\.\w+", reference)
            is_here = trusted and module is not None and (folder / f"{module[1]}.py").is_file()
            if reference not in OWN_REFERENCES and not is_here:
                yield f"{path.relative_to(folder).as_posix()}: {reference[:100]}"


def foreign_code(folder: Path) -> list[str]:
    """Code in a model's folder that is not, byte for byte, what this version of the package puts there.

    Args:
        folder: the model's.

    Returns:
        Paths inside of the folder: of another version, changed by someone, or of another's making altogether.
    """
    package = find_spec("modeling_sentence_ordering")  # not imported: data sets are pushed without torch
    assert package is not None and package.origin is not None
    own = Path(package.origin).parent
    known = {path.name: path.read_bytes() for path in own.glob("*.py")}
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*.py") if known.get(path.name) != path.read_bytes()
    )


def listing(folder: Path, most: int = 40) -> str:
    """Which files are in a folder, how many, and how many bytes, for the person who pushes it."""
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    lines = [f"  {name} ({size:,} bytes)" for name, size in sorted(sizes.items())[:most]]
    if len(sizes) > most:
        lines.append(f"  and {len(sizes) - most:,} more")
    files = "1 file" if len(sizes) == 1 else f"{len(sizes):,} files"
    return "\n".join([f"{files}, {sum(sizes.values()):,} bytes:", *lines])
