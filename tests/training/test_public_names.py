"""What users import: from the three packages directly, and nothing heavy before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import training

ROOT = Path(__file__).parents[2]
PACKAGES = ("dataset_builder", "modeling_sentence_ordering", "training")


def test_importing_training_loads_no_framework() -> None:
    code = (
        "import sys, training; "
        "print({name.partition('.')[0] for name in sys.modules} & "
        "{'torch', 'transformers', 'pytorch_lightning', 'poutyne', 'datasets', 'numpy'})"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize("name", training.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert callable(getattr(training, name))
    assert name in dir(training)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Trainers'"):
        training.Trainers  # noqa: B018
    with pytest.raises(ImportError, match="Trainers"):
        exec("from training import Trainers")


@pytest.mark.parametrize("path", ["examples/with_trainer.py"])
def test_an_example_imports_from_the_packages_directly(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert [name for name in modules if name.startswith(PACKAGES) and name not in PACKAGES] == []
