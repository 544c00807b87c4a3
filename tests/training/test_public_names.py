"""What users import: from the three packages directly, and nothing heavy before it is needed."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import pytest

import dataset_builder
import model_card
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


@pytest.mark.parametrize("package", [dataset_builder, model_card, training])
def test_packages_have_the_installed_version(package: ModuleType) -> None:
    assert package.__version__ == version("sentence-ordering")


@pytest.mark.parametrize("package", [dataset_builder, model_card, training])
def test_code_that_is_not_installed_has_no_version(package: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", not_installed)
    assert not hasattr(package, "__version__")


@pytest.mark.parametrize("package", [*PACKAGES, "model_card"])
def test_type_hints_are_installed_with_each_package(package: str) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "py.typed" in settings["tool"]["setuptools"]["package-data"][package]
    assert (ROOT / package / "py.typed").is_file()


def shown_code() -> dict[str, str]:
    """Python that users copy: the examples, the notebook, and the blocks of README.md and docs/ that import ours."""
    code = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.py")}
    notebook = json.loads((ROOT / "examples" / "sentence_ordering.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    code["notebook"] = "\n".join(line for cell in cells for line in cell.splitlines() if line[:1] not in ("%", "!"))
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        if any(re.search(rf"^(?:from|import) {package}\b", block, re.M) for block in blocks for package in PACKAGES):
            code[page.name] = "\n".join(blocks)
    return code


@pytest.mark.parametrize(("place", "code"), shown_code().items(), ids=shown_code())
def test_what_users_copy_imports_from_the_packages_directly(place: str, code: str) -> None:
    tree = ast.parse(code)
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    ours = [name for name in modules if name.partition(".")[0] in PACKAGES]
    assert ours, f"{place} imports nothing of ours"
    assert [name for name in ours if name not in PACKAGES] == []
