"""Reference pages from the code: a marker in a page's source is replaced when the page is read.

`<!-- reference: PACKAGE -->` becomes an autodoc directive for each name in the package's `__all__`.
`<!-- commands -->` becomes a section for each command, with its `--help`.

Docstrings are written for editors, in Google style with Markdown in places. `to_rst` turns the Markdown into
reStructuredText before Sphinx reads them.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from typing import Any

from sphinx.application import Sphinx

MARKER = re.compile(r"^<!-- (?:reference: (?P<package>\w+)|(?P<commands>commands)) -->$", re.MULTILINE)
NO_BREAK = "\u00a0"
WIDTH = "100"  # of the help texts, in characters


def public_names(package: str) -> str:
    """MyST with an autodoc directive for each public name of a package."""
    module = importlib.import_module(package)
    parts = []
    for name in sorted(module.__all__, key=str.lower):
        value = getattr(module, name)
        if inspect.isclass(value):
            directive = "autoexception" if issubclass(value, BaseException) else "autoclass"
            options = "\n   :members:\n   :show-inheritance:"
        elif callable(value):
            directive, options = "autofunction", ""
        else:
            directive, options = "py:data", f"\n   :value: {', '.join(map(repr, value))}"
        parts.append(f"## {name}\n\n```{{eval-rst}}\n.. {directive}:: {package}.{name}{options}\n```")
    return "\n\n".join(parts)


def command_help() -> str:
    """MyST with the help of each command, as `sentence-ordering COMMAND --help` prints it."""
    from training.commands.command_line import COMMANDS, program_parser

    os.environ["COLUMNS"] = WIDTH
    parts = []
    for name, parser in program_parser()[1].items():
        text = parser.format_help()
        parts.append(f"## {name}\n\n{COMMANDS[name].SUMMARY}\n\n```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts)


def to_rst(_app: Sphinx, _what: str, _name: str, _value: Any, _options: Any, lines: list[str]) -> None:
    """Rewrites a docstring, in place: fenced and indented code, references, starred arguments, what is returned.

    The text below `Returns:` may contain a colon. Napoleon would take what is before it for a type.
    """
    text = "\n".join(lines)
    text = re.sub(
        r"^```python\n(.*?)^```$",
        lambda code: ".. code-block:: python\n\n" + re.sub(r"^", "    ", code[1], flags=re.MULTILINE),
        text,
        flags=re.DOTALL | re.MULTILINE,
    )
    text = re.sub(r"^(?![ .-])(.*[^:\n])\n\n(?=    \S)", r"\1\n\n::\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"\[(`\w+`)\]", r"\1", text)
    text = re.sub(r"^( +)\*(\w+), \*\*(\w+):", r"\1\\*\2, \\*\\*\3:", text, flags=re.MULTILINE)
    text = re.sub(r"^Returns:\n(?=    )", ":returns:\n", text, flags=re.MULTILINE)
    lines[:] = text.splitlines()


def expand(_app: Sphinx, _page: str, source: list[str]) -> None:
    """Replaces the markers of a page, and keeps intervals on one line."""
    text = MARKER.sub(lambda found: public_names(found["package"]) if found["package"] else command_help(), source[0])
    text = re.sub(r"\[(-?[\d.]+), (-?[\d.]+)\]", f"[\\1,{NO_BREAK}\\2]", text)
    source[0] = text.replace(" ± ", f"{NO_BREAK}±{NO_BREAK}")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", expand)
    app.connect("autodoc-process-docstring", to_rst, priority=100)  # before napoleon
    return {"parallel_read_safe": True}
