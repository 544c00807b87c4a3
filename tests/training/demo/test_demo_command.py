"""`sentence-ordering demo` without a browser: what it refuses, and the Space that it writes for `push --space`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataset_builder import load_stories
from modeling_sentence_ordering import objectives_sentence_ordering
from tests.hostile.traps import set_trap
from tests.hub_server import Hub
from tests.hub_server.cards import check_card
from tests.training.conftest import Trained, run_command
from tests.training.told import assert_tells_nothing
from training.commands.demo import EXAMPLES, examples
from training.demo.space import GRADIO_VERSION, write_space

ROOT = Path(__file__).parents[3]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def front_matter(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def commands(hub: Hub, folder: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    """Commands one after another, each only if the one before went well, in one process for which this is the Hub."""
    code = (
        "import sys; from training.commands.command_line import main\n"
        "for line in sys.argv[1:]:\n"
        "    if code := main(line.split()): sys.exit(code)\n"
    )
    environment = hub.environment(folder) | {"OMP_NUM_THREADS": "1", "SENTENCE_ORDERING_RETRY_SECONDS": "0"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])
    command = [sys.executable, "-c", code, *lines]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("wrong", ["link", "secret", "code", "reference"])
def test_a_space_holds_nothing_that_push_would_refuse(wrong: str, trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.folder, tmp_path / "model", ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    if wrong == "link":
        (tmp_path / "key").write_text("private")
        (tmp_path / "model" / "notes.txt").symlink_to(tmp_path / "key")
    elif wrong == "secret":
        (tmp_path / "model" / "id_rsa").write_text("private")
    elif wrong == "code":
        (tmp_path / "model" / "extra.py").write_text("")
    else:
        set_trap("tokenizer_config.json: fast", "other", trained.folder, tmp_path / "trap")
        shutil.copy(tmp_path / "trap" / "tokenizer_config.json", tmp_path / "model")
    result = run_command("demo", "--model", tmp_path / "model", "--export", tmp_path / "space")
    assert (result.code, result.err.count("\n")) == (2, 1), result.err
    assert not (tmp_path / "space").exists()
    again = run_command("demo", "--model", tmp_path / "model", "--export", tmp_path / "space", "--trust_remote_code")
    assert again.code == (0 if wrong == "code" else 2)


def test_the_examples_are_stories_that_a_model_of_the_sample_has_not_seen() -> None:
    test = [dict(story) for story in load_stories(["sample"])["test"]]
    unseen = [{"title": story["storytitle"], "sentences": story["sentences"]} for story in test]
    assert len(examples()) == EXAMPLES and all(example in unseen for example in examples())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("demo", ["--model"]),
        ("demo --model {model} --prot 3", ["did you mean --port?"]),
        ("demo --model {model} --port 0", ["--port", "between 1 and 65535", "got 0"]),
        ("demo --model {model} --port x", ["--port", "'x'"]),
        ("demo --model {model} --export {out} --port 7860", ["--port", "--export", "leave one of them out"]),
        ("demo --model {empty} --export {out}", ["{empty}", "no config.json"]),
        ("demo --model {out}/none --export {out}", ["{out}/none", "no such folder"]),
        ("demo --model {model} --export {full}", ["--export {full}", "not a new or empty folder"]),
        ("demo --model {model} --export {full}/file", ["--export {full}/file", "not a new or empty folder"]),
        ("push --repo_id me/it", ["--model", "--space"]),
        ("push --model {model} --space {empty} --repo_id me/it", ["--space", "not allowed with", "--model"]),
        ("push --space {empty} --repo_id me/it", ["--space {empty} is not a Space", "demo --export"]),
        ("push --space {model} --repo_id me/it", ["--space {model} is not a Space"]),
        ("push --space {appless} --repo_id me/it", ["--space {appless} lacks app.py"]),
    ],
)
def test_refused(line: str, said: list[str], trained: Trained, tmp_path: Path) -> None:
    names = {name: tmp_path / name for name in ("empty", "full", "appless", "out")} | {"model": trained.folder}
    for name in ("empty", "full", "appless"):
        names[name].mkdir()
    (names["full"] / "file").write_text("a person's own")
    (names["appless"] / "README.md").write_text("---\nsdk: gradio\napp_file: app.py\n---\n")
    command = run_command(*line.format(**names).split())
    assert command.code == 2 and command.err.count("\n") == 1 and not command.out
    for words in said:
        assert words.format(**names) in command.err
    assert not names["out"].exists() and files_of(names["full"]) == {"file": b"a person's own"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["appless", "empty", "full"]


def test_without_gradio_it_says_how_to_install_it(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    command = run_command("demo", "--model", str(trained.folder))
    assert command.code == 2
    assert command.err == ("sentence-ordering: demo needs Gradio: pip install 'sentence-ordering[demo]'\n")


def test_the_page_is_tested_with_the_version_that_is_asked_for() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert extras["demo"] == [f"gradio>={GRADIO_VERSION},<7"]


def test_a_space_is_whole_and_tells_nothing_of_this_machine(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "my-space").mkdir()
    command = run_command("demo", "--model", str(trained.folder), "--export", str(tmp_path / "my-space"))
    assert command.code == 0, command.err
    assert "push --space" in command.out
    assert [path.name for path in tmp_path.iterdir()] == ["my-space"]
    files = files_of(tmp_path / "my-space")
    own = {
        "README.md",
        "app.py",
        "demo_guard.py",
        "demo_page.py",
        "demo_page.css",
        "demo_page.js",
        "examples.json",
        "metrics.py",
    }
    assert {name for name in files if "/" not in name} == own | {"requirements.txt"}
    model = {name.removeprefix("model/"): content for name, content in files.items() if name.startswith("model/")}
    assert model == {name: content for name, content in files_of(trained.folder).items() if name in model}
    assert {"config.json", "model.safetensors", "pipeline_sentence_ordering.py"} <= set(model)
    assert not any(name.startswith(("checkpoints", "tensorboard")) for name in model)
    # One formula: the Space has our own.
    assert files["metrics.py"] == Path(objectives_sentence_ordering.__file__).read_bytes()
    card = files["README.md"].decode()
    assert check_card(card, "space") == ([], [])
    assert front_matter(card)["sdk_version"] == GRADIO_VERSION and "models" not in front_matter(card)
    for line in files["requirements.txt"].decode().splitlines():
        assert re.fullmatch(r"[a-z]+==[\d.]+", line)
    for name, content in files.items():
        for secret in (str(tmp_path), str(trained.home), str(ROOT)):
            assert secret.encode() not in content, name


@pytest.mark.slow
def test_a_space_is_pushed_with_its_model_and_then_with_one_of_the_hub(
    hub: Hub, trained: Trained, tmp_path: Path
) -> None:
    model, space = f"{hub.user}/model", f"{hub.user}/its-space"
    write_space(tmp_path / "first", str(trained.folder), examples())
    pushed = commands(hub, tmp_path, f"push --space first --repo_id {space} --private")
    assert pushed.returncode == 0, pushed.stderr
    assert f"pushed {space}: {hub.endpoint}/spaces/{space}" in pushed.stdout
    assert "checking that the model loads" in pushed.stdout
    files = hub.repo_files(space, repo_type="space")
    assert_tells_nothing(files, hub, tmp_path, trained.home)
    del files[".gitattributes"]
    # The README is ours, not the one that the Hub makes with a Space; nothing is added to it or left out.
    assert files == files_of(tmp_path / "first") and hub.repository(space, "space").private
    pushed = commands(
        hub,
        tmp_path,
        f"push --model {trained.folder} --repo_id {model}",
        f"demo --model {model} --export second",
        f"push --space second --repo_id {space}",
    )
    assert pushed.returncode == 0, pushed.stderr
    files = hub.repo_files(space, repo_type="space")
    assert set(files) == {".gitattributes", *files_of(tmp_path / "second")}
    assert not any(name.startswith("model/") for name in files)
    assert front_matter(files["README.md"].decode())["models"] == [model]
    assert f'MODEL = "{model}"' in files["app.py"].decode()
    assert len(hub.commits(space, repo_type="space")) == 4


@pytest.mark.slow
def test_a_space_whose_model_does_not_load_is_not_pushed(hub: Hub, trained: Trained, tmp_path: Path) -> None:
    write_space(tmp_path / "space", str(trained.folder), examples())
    (tmp_path / "space" / "model" / "model.safetensors").write_bytes(b"cut off")
    pushed = commands(hub, tmp_path, f"push --space space --repo_id {hub.user}/space")
    assert pushed.returncode == 2 and "was not pushed" in pushed.stderr
    with pytest.raises(KeyError):
        hub.repository(f"{hub.user}/space", "space")
