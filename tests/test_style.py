"""The house rules that a machine can check: formatting, types, and who may import whom."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("modeling_sentence_ordering", "dataset_builder", "training", "model_card")
LONGEST_FILE = 400  # lines
# The modeling package is flat: each file is one more download and one more warning when a model is first loaded.
MOST_MODEL_FILES = 9
LONGEST_MODEL_FILE = 720
# What runs code that is in the file it reads.
UNSAFE = ("pickle.load", "pickle.loads", "joblib.load", "yaml.load", "yaml.full_load", "yaml.unsafe_load")
MACHINE_PATH = re.compile(r"(?<![\w.-])/(?:work|root)/\w|/home/\w+/|/Users/\w+/|\b[A-Z]:\\\\?Users")


def project_files() -> list[Path]:
    """Everything that is or would be committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted(path for name in names if name and (path := ROOT / name).is_file())


def modules(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"{package} is empty"
    return found


def imported_modules(module: Path) -> Iterator[str]:
    """Every absolute import, wherever in the file it stands."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def imported_packages(module: Path) -> Iterator[str]:
    """The first part of every absolute import."""
    return (name.partition(".")[0] for name in imported_modules(module))


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(["ruff", "check", "."], id="ruff check"),
        pytest.param(["ruff", "format", "--check", "."], id="ruff format"),
        pytest.param(["mypy"], id="mypy"),
    ],
)
def test_checker_finds_nothing(check: list[str]) -> None:
    result = python("-m", *check)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("module", modules("modeling_sentence_ordering"), ids=lambda path: path.name)
def test_the_model_package_is_flat_and_stands_alone(module: Path) -> None:
    """What travels with a model imports only what every reader of the model has, in the form that the Hub follows."""
    assert module.parent.name == "modeling_sentence_ordering"
    assert set(imported_packages(module)) <= sys.stdlib_module_names | {"torch", "transformers"}
    tree = ast.parse(module.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level > 0:
            followed = node.level == 1 and node.module is not None and "." not in node.module
            assert followed, f"line {node.lineno}: only `from .x import y` is followed when the code is copied"
    for block in (node for node in ast.walk(tree) if isinstance(node, ast.Try)):
        hidden = [node.lineno for node in ast.walk(block) if isinstance(node, ast.ImportFrom) and node.level > 0]
        assert not hidden, f"line {hidden}: imports inside of try are ignored when the code is copied"


@pytest.mark.parametrize(
    ("package", "above"),
    [
        ("model_card", {"training"}),
        ("dataset_builder", {"modeling_sentence_ordering", "model_card", "training"}),
    ],
)
def test_imports_point_one_way(package: str, above: set[str]) -> None:
    wrong = [f"{module.name} imports {name}" for module in modules(package) for name in imported_packages(module)
             if name in above]  # fmt: skip
    assert not wrong


def test_of_the_data_set_a_model_card_knows_only_how_files_are_read_and_written() -> None:
    imported = {name for module in modules("model_card") for name in imported_modules(module)
                if name.startswith("dataset_builder")}  # fmt: skip
    assert imported == {"dataset_builder.bounded_yaml", "dataset_builder.errors", "dataset_builder.file_writing"}


def test_all_files_are_written_by_one_module() -> None:
    """Nothing else renames a file or makes a temporary one."""
    renaming = re.compile(
        r"\bos\.(replace|rename)\(|\.(rename|replace)\((path|target|folder)|mkstemp\(|NamedTemporaryFile\("
    )
    found = {str(module.relative_to(ROOT)) for package in PACKAGES for module in modules(package)
             if renaming.search(module.read_text(encoding="utf-8"))}  # fmt: skip
    assert found == {"dataset_builder/file_writing.py"}


def test_no_file_is_too_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
               for path in project_files() if path.suffix == ".py"}  # fmt: skip
    limit = {name: LONGEST_MODEL_FILE for name in lengths if name.startswith("modeling_sentence_ordering/")}
    assert len(limit) <= MOST_MODEL_FILES
    assert not {name: length for name, length in lengths.items() if length > limit.get(name, LONGEST_FILE)}


def test_no_path_of_a_machine_is_in_the_project() -> None:
    found = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE_PATH.search(line) or str(ROOT) + os.sep in line:
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


def test_help_loads_nothing_heavy_and_takes_less_than_half_a_second() -> None:
    """Half a second of processor time, the best of three: the machine may be busy with something else."""
    code = (
        "import atexit, sys, time\n"
        "atexit.register(lambda: print(time.process_time(), *sys.modules, file=sys.stderr))\n"
        "sys.argv = ['sentence-ordering', 'train', '--help']\n"
        "from training.commands.command_line import main\n"
        "sys.exit(main())\n"
    )
    seconds = []
    for _ in range(3):
        result = python("-c", code)
        assert result.returncode == 0, result.stderr
        assert "usage: sentence-ordering" in result.stdout
        time, *loaded = result.stderr.split()
        seconds.append(float(time))
        assert not {"torch", "transformers", "datasets", "pytorch_lightning", "poutyne", "pandas"} & set(loaded)
    assert min(seconds) < 0.5


def needed_argument(call: ast.Call) -> str | None:
    """What a call must say that could run code of a file; None for all others."""
    function = ast.unparse(call.func)
    name = function.rpartition(".")[2]
    is_auto = function.startswith("Auto") and name in ("from_pretrained", "from_config")
    takes_task = bool(call.args) and isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str)
    if is_auto or name in ("load_dataset", "load_dataset_builder") or (name == "pipeline" and takes_task):
        return "trust_remote_code"
    return "weights_only" if function == "torch.load" else None


def test_every_call_says_whether_it_runs_code_of_others() -> None:
    """Without `trust_remote_code` transformers asks on standard input, and stories on standard input answer."""
    silent, found = [], 0
    for path in project_files():
        if path.suffix != ".py" or path.is_relative_to(ROOT / "tests"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and (needed := needed_argument(node)) is not None:
                found += 1
                if needed not in {keyword.arg for keyword in node.keywords}:
                    silent.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node.func)}")
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in UNSAFE:
                silent.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node.func)}")
    assert found > 10 and not silent
