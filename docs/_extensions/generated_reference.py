"""Reference pages from the code: a marker in a page's source is replaced when the page is read.

`<!-- reference: PACKAGE -->` becomes an autodoc directive for each name in the package's `__all__`.
`<!-- commands -->` becomes a section for each command, with its `--help`.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from typing import Any

from sphinx.application import Sphinx

MARKER = re.compile(r"^<!-- (?:reference: (?P<package>\w+)|(?P<commands>commands)) -->$", re.MULTILINE)
WIDTH = "100"  # of the help texts, in characters


def public_names(package: str) -> str:
    """MyST with an autodoc directive for each public name of a package."""
    module = importlib.import_module(package)
    parts = []
    for name in sorted(module.__all__, key=str.lower):
        value = getattr(module, name)
        kind = "class" if inspect.isclass(value) else "function" if callable(value) else "data"
        if kind == "class" and issubclass(value, BaseException):
            kind = "exception"
        options = "\n   :members:\n   :show-inheritance:" if kind == "class" else ""
        options += "\n   :no-value:" if kind == "data" else ""
        parts.append(f"## {name}\n\n```{{eval-rst}}\n.. auto{kind}:: {package}.{name}{options}\n```")
    return "\n\n".join(parts)


def command_help() -> str:
    """MyST with the help of each command, as `sentence-ordering COMMAND --help` prints it."""
    from training.commands.command_line import COMMANDS

    os.environ["COLUMNS"] = WIDTH
    parts = []
    for name, (module, summary) in COMMANDS.items():
        text = importlib.import_module(module).command_parser().format_help()
        parts.append(f"## {name}\n\n{summary}\n\n```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts)


def expand(app: Sphinx, page: str, source: list[str]) -> None:
    """Replaces the markers of a page."""
    source[0] = MARKER.sub(
        lambda found: public_names(found["package"]) if found["package"] else command_help(), source[0]
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", expand)
    return {"parallel_read_safe": True}
