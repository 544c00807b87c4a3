"""The rooms of `training`: imports point down only, and no room is too large."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRAINING = ROOT / "training"
MOST_FILES = 12  # beside `__init__.py`
# From the top down. A room imports only from itself and from rooms of lower levels; rooms of one level do not import
# each other.
LEVELS = (
    ("commands",),
    ("demo",),
    ("inference", "publishing"),
    ("runs",),
    ("frameworks.trainer", "frameworks.lightning", "frameworks.poutyne"),
    ("frameworks",),
    ("evaluation",),
    ("data",),
    ("models",),
    ("recipe",),
    ("system",),
)
HEIGHT = {room: len(LEVELS) - number for number, level in enumerate(LEVELS) for room in level}


def room_of(module: str) -> str | None:
    """The innermost room of a dotted name below `training`, or None outside of all rooms."""
    parts = module.split(".")
    names = (".".join(parts[1:end]) for end in range(len(parts), 1, -1))
    return next((name for name in names if parts[0] == "training" and name in HEIGHT), None)


def imported_modules(code: str, package: str) -> Iterator[str]:
    """Every name that may be a module in the imports of a file, inside of functions too."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base += [node.module] if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def upward_imports(code: str, package: str) -> list[str]:
    own = room_of(package)
    assert own is not None, f"{package} is in none of the rooms"
    rooms = {module: room_of(module) for module in imported_modules(code, package)}
    return [module for module, room in rooms.items() if room not in (None, own) and HEIGHT[room] >= HEIGHT[own]]


def test_imports_point_down() -> None:
    wrong = {}
    for path in TRAINING.rglob("*.py"):
        if path.parent == TRAINING:
            continue
        package = ".".join(path.parent.relative_to(ROOT).parts)
        if found := upward_imports(path.read_text(encoding="utf-8"), package):
            wrong[str(path.relative_to(ROOT))] = found
    assert not wrong


@pytest.mark.parametrize(
    ("code", "package"),
    [
        ("from training.commands.order import run", "training.inference"),
        ("def f():\n    from training.commands import order", "training.frameworks.lightning"),
        ("from ..poutyne.adapters import model_loss", "training.frameworks.lightning"),
        ("from .lightning import module", "training.frameworks"),
        ("import training.runs.run_recipe", "training.system"),
    ],
)
def test_an_import_that_points_up_is_found(code: str, package: str) -> None:
    assert upward_imports(code, package)


@pytest.mark.parametrize(
    ("code", "package"),
    [
        ("from training.inference.ordering import order_stories", "training.commands"),
        ("from ..run import TrainingRun", "training.frameworks.lightning"),
        ("from . import metrics\nfrom .metrics import METRIC_NAMES\nimport torch", "training.evaluation"),
    ],
)
def test_an_import_that_points_down_is_allowed(code: str, package: str) -> None:
    assert not upward_imports(code, package)


@pytest.mark.parametrize("room", sorted(HEIGHT))
def test_a_room_has_few_files_and_a_docstring(room: str) -> None:
    folder = TRAINING / room.replace(".", "/")
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    assert len(set(folder.glob("*.py"))) - 1 <= MOST_FILES


def test_every_module_is_in_a_room() -> None:
    folders = {path.parent for path in TRAINING.rglob("*.py")} - {TRAINING}
    assert {".".join(folder.relative_to(TRAINING).parts) for folder in folders} == set(HEIGHT)
    assert {path.name for path in TRAINING.glob("*.py")} <= {"__init__.py", "__main__.py"}


def test_importing_the_package_imports_no_framework() -> None:
    code = "import sys, training; sys.exit(bool({'torch', 'pytorch_lightning', 'poutyne'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
