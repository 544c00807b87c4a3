"""No private name of a training framework is imported, read or overridden: the next release may rename it."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FRAMEWORKS = ("transformers", "accelerate", "pytorch_lightning", "lightning_fabric", "poutyne", "torch")
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in ("training/frameworks", "training/publishing", "examples")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "__init__.py"
)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def overridden(module: str) -> list[str]:
    """Private names of a framework's class that a class in the module has as well."""
    found = []
    for _, ours in inspect.getmembers(importlib.import_module(module), inspect.isclass):
        if ours.__module__ != module:
            continue
        theirs = [base for base in ours.__mro__ if base.__module__.split(".")[0] in FRAMEWORKS]
        names = {name for name in vars(ours) if is_private(name) and not name.startswith("_abc_")}
        found += [f"{base.__name__}.{name}" for base in theirs for name in names & vars(base).keys()]
    return found


def used(path: Path) -> list[str]:
    """Private names that are imported from a framework, or read from an object other than `self` and our own."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_of_self(node)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FRAMEWORKS:
            found += [f"{node.module}.{alias.name}" for alias in node.names if is_private(alias.name)]
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            found.append(ast.unparse(node))
    return found


def _is_of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


@pytest.mark.parametrize("module", MODULES)
def test_no_private_name_of_a_framework_is_used(module: str) -> None:
    assert overridden(module) == []
    assert used(ROOT / f"{module.replace('.', '/')}.py") == []
