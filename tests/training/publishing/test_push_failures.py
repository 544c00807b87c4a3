"""Pushes of a model that go wrong on purpose: the repository is the old one or the new one, and a line says which."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file

from tests.hub_server import Hub

ROOT = Path(__file__).parents[3]
# Runs `sentence-ordering` for each line of standard input, and prints what came of it: starting a process takes longer.
SEVERAL = """
import contextlib, io, json, os, sys
from training.commands.command_line import main
for line in sys.stdin:
    os.environ["HF_TOKEN"], arguments = json.loads(line)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


class Commands:
    """`sentence-ordering`, again and again in one process for which the server is the Hub."""

    def __init__(self, hub: Hub, folder: Path, **variables: str) -> None:
        self.token = hub.token
        path = os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])
        quick = {"OMP_NUM_THREADS": "1", "SENTENCE_ORDERING_RETRY_SECONDS": "0", "PYTHONPATH": path}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SEVERAL],
            env=hub.environment(folder) | quick | variables,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> Commands:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, and standard error without notes."""
        self.begin(*arguments)
        return self.end()

    def begin(self, *arguments: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([self.token, arguments]) + "\n")
        self.process.stdin.flush()

    def end(self) -> tuple[int, str, str]:
        assert self.process.stdout is not None
        code, out, err = json.loads(self.process.stdout.readline())
        # The client notes that the Hub has no official task of this name.
        lines = [line for line in err.splitlines() if line.startswith("sentence-ordering:") and ": note:" not in line]
        return code, out, "\n".join(lines)


def content(hub: Hub, repo_id: str) -> dict[str, bytes]:
    files = hub.repo_files(repo_id)
    return {name: files[name] for name in files if name not in (".gitattributes", "README.md")}


@pytest.fixture(scope="module")
def two_models(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model, and the same with other weights and one file more."""
    from training.models.model_folder import save_model
    from training.models.trained_model import load_trained_model

    old = Path(trained.folder)
    new = tmp_path_factory.mktemp("new") / "model"
    shutil.copytree(old, new, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    model, tokenizer = load_trained_model(str(old))
    model.head.bias.data += 1.0
    save_model(model, tokenizer, new)
    (new / "note.txt").write_text("new")
    return old, new


How = int | Literal["drop", "lose reply"]
# What goes wrong, how often, and whether the push comes through. A data set is pushed by the same code: all the other
# requests go wrong in the tests of `build --push_to_hub`.
FAILURES: list[tuple[str, str, How, int, bool]] = [
    ("PUT", "", "drop", 100, False),
    ("POST", "/commit/", "lose reply", 1, True),
]


@pytest.mark.slow
def test_every_failure_leaves_the_old_repository_or_the_new_one_and_says_so(
    hub: Hub, two_models: tuple[Path, Path], tmp_path: Path
) -> None:
    target = f"{hub.user}/model"
    now, then = two_models
    with Commands(hub, tmp_path) as command:
        assert command("push", "--model", str(now), "--repo_id", target)[0] == 0
        for method, path, how, times, succeeds in FAILURES:
            now, then = then, now
            push, case = ("push", "--model", str(now), "--repo_id", target), f"{method} {path} {how}"
            before = content(hub, target)
            failure = hub.fail(method, path, how, times)
            code, out, err = command(*push)
            failure.times = 0
            assert failure.met, case
            assert hub.token not in out + err
            if succeeds:
                assert (code, err) == (0, ""), case
            else:
                assert code == 1 and len(err.splitlines()) == 1 and "is unchanged" in err, (case, err)
                assert content(hub, target) == before, case
                assert command(*push)[0] == 0, case
            weights = (now / "model.safetensors").read_bytes()
            assert content(hub, target)["model.safetensors"] == weights != before["model.safetensors"], case


@pytest.mark.slow
def test_an_interrupted_push_leaves_the_repository_as_it_was(
    hub: Hub, two_models: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = two_models
    target = f"{hub.user}/model"
    with Commands(hub, tmp_path, SENTENCE_ORDERING_RETRY_SECONDS="600") as command:
        assert command("push", "--model", str(old), "--repo_id", target)[0] == 0
        before = content(hub, target)
        failure = hub.fail("POST", "/commit/", 500)
        command.begin("push", "--model", str(new), "--repo_id", target)
        while not failure.met:
            time.sleep(0.05)
        time.sleep(0.5)
        command.process.send_signal(signal.SIGINT)
        code, _, err = command.end()
        assert code == 130 and len(err.splitlines()) == 1
        assert "is unchanged" in err and content(hub, target) == before
        assert command("push", "--model", str(new), "--repo_id", target)[0] == 0
    assert content(hub, target)["note.txt"] == b"new"


@pytest.mark.slow
def test_whoever_may_not_push_learns_it_before_anything_is_trained(hub: Hub, trained: Any, tmp_path: Path) -> None:
    train = ["train", "--encoder", "cnn", "--data", str(trained.home / "stories.jsonl"), "--output_dir", "out"]
    own = f"{hub.user}/model"
    cases: list[tuple[str, str, list[str], int, str]] = [
        ("", own, [], 1, "hf auth login"),
        ("hf_wrong", own, [], 1, "cannot push"),
        (hub.read_only_token, own, [], 1, "read-only"),
        (hub.stranger_token, own, [], 1, "(mallory)"),
        (hub.token, "not/an/id", [], 2, "'not/an/id'"),
        (hub.token, own, ["--revision", "a branch"], 2, "--revision 'a branch'"),
        (hub.token, own, ["--revision", "dev", "--create_pr"], 2, "leave out --revision dev"),
        (hub.token, f"{hub.user}/public", ["--private"], 2, "is a public repository"),
    ]
    folder = tmp_path / "model"
    shutil.copytree(trained.folder, folder, ignore=shutil.ignore_patterns("README.md", "checkpoints"))
    with Commands(hub, tmp_path) as command:
        # From a folder without a card: the Hub has one, by which it knows the task.
        assert command("push", "--model", f"{folder}/", "--repo_id", f"{hub.user}/public")[0] == 0
        card = hub.repo_files(f"{hub.user}/public")["README.md"].decode()
        assert "pipeline_tag: sentence-ordering" in card and f'model="{hub.user}/public"' in card
        assert not (folder / "README.md").exists()
        for command.token, target, flags, code, words in cases:
            refused = command(*train, "--push_to_hub", target, *flags)
            assert refused[0] == code and words in refused[2] and len(refused[2].splitlines()) == 1, refused
            assert "wrong" not in refused[2]
        assert not (tmp_path / "out").exists()
        code, _, err = command(*train, "--private")
        assert code == 2 and "--push_to_hub" in err
        # But anybody may ask for a change of what they can see, and of nothing else.
        command.token = hub.stranger_token
        push = ("push", "--model", str(trained.folder), "--create_pr", "--repo_id")
        code, out, err = command(*push, f"{hub.user}/public")
        assert code == 0 and "discussions/1" in out, err
    with Commands(hub, tmp_path, HF_HUB_OFFLINE="1", SENTENCE_ORDERING_RETRY_SECONDS="600") as command:
        code, _, err = command("push", "--model", str(trained.folder), "--repo_id", own)
        assert code == 1 and "offline" in err and len(err.splitlines()) == 1


@pytest.mark.slow
def test_a_training_whose_push_fails_tells_how_to_push_in_the_same_way(hub: Hub, home: Path, tmp_path: Path) -> None:
    """Above all as privately."""
    train = ["train", "--encoder", "cnn", "--data", str(home / "stories.jsonl"), "--max_steps", "1", "--bf16", "false"]
    with Commands(hub, tmp_path) as command:
        failure = hub.fail("POST", "/api/repos/create", 500, 100)
        flags = ("--private", "--commit_message", "Two words", "--revision", "dev")
        code, _, err = command(*train, "--output_dir", "my out", "--push_to_hub", "secret", *flags)
        failure.times = 0
        assert code == 1 and len(err.splitlines()) == 1
        told = err.partition("is unchanged; ")[2].partition(" pushes the trained model again")[0]
        assert shlex.split(told)[0] == "sentence-ordering"
        code, _, err = command(*shlex.split(told)[1:])
        assert code == 0, err
    repository = hub.repository(f"{hub.user}/secret")
    assert repository.private and hub.commits(f"{hub.user}/secret", "dev")[0].title == "Two words"


@pytest.mark.slow
@pytest.mark.parametrize("how", [500, "drop"])
def test_a_card_that_cannot_be_downloaded_is_not_replaced(how: How, hub: Hub, tmp_path: Path) -> None:
    """A temporary error is retried; if it stays, nothing is pushed. Neither counts as a repository without a card."""
    target = f"{hub.user}/stories"
    build = ("build", "--data", "sample", "--push_to_hub", target, "--output_dir")
    edit = (
        "import sys, huggingface_hub as h; path = h.hf_hub_download(sys.argv[1], 'README.md', repo_type='dataset'); "
        "card = open(path, encoding='utf-8').read().replace('# Shuffled', '# My words, shuffled').encode(); "
        "h.upload_file(path_or_fileobj=card, path_in_repo='README.md', repo_id=sys.argv[1], repo_type='dataset')"
    )
    with Commands(hub, tmp_path) as command:
        assert command(*build, "first")[0] == 0
        subprocess.run([sys.executable, "-c", edit, target], env=hub.environment(tmp_path), cwd=tmp_path, check=True)
        for folder, times in (("second", 1), ("third", 10**6)):
            failure = hub.fail("HEAD", "README.md", how, times)
            code, _, err = command(*build, folder, "--data_seed", "7")
            failure.times = failure.met
            assert failure.met and code == (times > 1), err
            card = hub.repo_files(target, repo_type="dataset")["README.md"].decode()
            assert "# My words, shuffled" in card and "seed 7" in card
        assert "is unchanged" in err and len(err.splitlines()) == 1


@pytest.mark.slow
def test_a_folder_that_makes_no_repository_is_refused_and_the_hub_keeps_what_it_has(
    hub: Hub, two_models: tuple[Path, Path], tmp_path: Path
) -> None:
    target, folder = f"{hub.user}/model", tmp_path / "model"
    shutil.copytree(two_models[1], folder)
    card = (folder / "README.md").read_text(encoding="utf-8")
    with Commands(hub, tmp_path) as command:
        assert command("push", "--model", str(two_models[1]), "--repo_id", target)[0] == 0
        before = hub.repo_files(target)
        (folder / "README.md").write_text(card.replace("license: unknown", "license: mine"), encoding="utf-8")
        code, _, err = command("push", "--model", str(folder), "--repo_id", target)
        assert code == 2 and "license" in err and "mine" in err and len(err.splitlines()) == 1
        # Pickled weights are not pushed: alone, they would be missing there.
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save(weights, folder / "pytorch_model.bin")
        code, _, err = command("push", "--model", str(folder), "--repo_id", target)
        assert code == 2 and f"{folder} has no weights" in err and len(err.splitlines()) == 1
        assert err.count(tempfile.gettempdir()) == err.count(str(folder)) * str(folder).count(tempfile.gettempdir())
    assert hub.repo_files(target) == before
