"""Pushing: to a Hub on this machine, with the real client, and used from there by people who have none of our code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling_sentence_ordering import SentenceOrderingPipeline, StoryTokenizer
from tests.hostile.traps import ANSWERS, set_trap
from tests.hub_server import Hub
from tests.training.conftest import TRAIN_FLAGS
from tests.training.strangers import STORIES, stranger
from tests.training.told import assert_tells_nothing
from training.frameworks.protocol import FRAMEWORKS
from training.models.trained_model import load_trained_model

ROOT = Path(__file__).parents[3]
USER = "quirinus-of-the-tests"
TRANSFORMERS = [
    "this",
    pytest.param("old_transformers_python", marks=pytest.mark.slow),
    pytest.param("last4_transformers_python", marks=pytest.mark.slow),
]


def python_of(version: str, request: pytest.FixtureRequest) -> str:
    return sys.executable if version == "this" else str(request.getfixturevalue(version))


def command(hub: Hub, folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """`sentence-ordering` in a process of its own, in a folder of its own, for which this is the Hub."""
    environment = hub.environment(folder, **options) | {
        "OMP_NUM_THREADS": "1",
        "SENTENCE_ORDERING_RETRY_SECONDS": "0",
        "HOME": f"/home/{USER}",
        "USER": USER,
        "LOGNAME": USER,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]]),
    }
    line = [sys.executable, "-m", "training.commands.command_line", *arguments]
    return subprocess.run(line, env=environment, cwd=folder, capture_output=True, text=True)


def assert_same(logits: list[list[float]], others: list[list[float]], within: float = 1e-6) -> None:
    for now, then in zip(logits, others, strict=True):
        assert now == pytest.approx(then, abs=within)


def says(folder: Path) -> list[list[float]]:
    """What the model in a folder says of the stories, by our own code."""
    model, tokenizer = load_trained_model(str(folder))
    encoding = StoryTokenizer(tokenizer, model.config)
    scores = []
    for story in STORIES:
        inputs = encoding.collate([encoding.assemble(encoding.tokenize(story))])
        with torch.no_grad():
            scores.append(model(**inputs).logits[0].tolist())
    return scores


@pytest.mark.parametrize(
    "framework",
    [name if name == "trainer" else pytest.param(name, marks=pytest.mark.slow) for name in FRAMEWORKS],
)
def test_a_model_that_is_pushed_after_training_is_the_one_that_was_trained(
    framework: str, hub: Hub, home: Path, tmp_path: Path
) -> None:
    """Loaded by its id, where our packages are not: the scores are equal bit for bit."""
    flags = [str(home / flag) if (home / flag).exists() else flag for flag in TRAIN_FLAGS]
    target = f"{hub.organization}/{framework}"
    pushed = command(
        hub, tmp_path, "train", "--framework", framework, *flags, "--output_dir", "out", "--max_steps", "6",
        *("--push_to_hub", target, "--private", "--commit_message", "From the tests"),
    )  # fmt: skip
    assert pushed.returncode == 0, pushed.stderr
    assert f"pushed {target}" in pushed.stdout
    assert [commit.title for commit in hub.commits(target)] == ["From the tests", "initial commit"]
    assert hub.repository(target).private
    (loaded,) = stranger(hub, tmp_path, {"load": target})
    before = says(tmp_path / "out")
    assert loaded["logits"] == before
    model, tokenizer = load_trained_model(str(tmp_path / "out"))
    order = SentenceOrderingPipeline(model=model, tokenizer=tokenizer)
    assert loaded["answers"] == [order(story) for story in STORIES]
    assert_tells_nothing(hub.repo_files(target), hub, USER, tmp_path, home)


def test_a_push_is_complete_and_tells_nothing_of_this_machine(hub: Hub, trained: Any, tmp_path: Path) -> None:
    target = f"{hub.user}/model"
    pushed = command(hub, tmp_path, "push", "--model", str(trained.folder), "--repo_id", "model")
    assert pushed.returncode == 0, pushed.stderr
    files = hub.repo_files(target)
    assert {"config.json", "model.safetensors", "tokenizer.json", "handler.py", "README.md", "results.json"} <= set(
        files
    )
    assert {"recipe.yaml", "training_log.csv", "loss_curves.png", "training_stories.txt"} <= set(files)
    assert not any(name.startswith(("checkpoints", "tensorboard", ".unfinished")) for name in files)
    assert_tells_nothing(files, hub, USER, trained.home)
    for output in (pushed.stdout, pushed.stderr):
        assert hub.token not in output


@pytest.mark.parametrize("version", TRANSFORMERS)
def test_whoever_finds_a_model_trains_it_and_pushes_it_and_the_next_one_has_it_whole(
    version: str, hub: Hub, trained: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """By plain Trainer code that knows nothing of our package; the first repository is gone by then."""
    python = python_of(version, request)
    first, second, third = (f"{hub.user}/{name}" for name in ("first", "second", "third"))
    pushed = command(hub, tmp_path, "push", "--model", str(trained.folder), "--repo_id", first)
    assert pushed.returncode == 0, pushed.stderr
    steps: list[dict[str, Any]] = [
        {"load": first},
        {"fine_tune": first, "steps": 5, "push": "model", "to": second},
        {"fine_tune": first, "steps": 3, "push": "trainer", "to": third},
    ]
    found, tuned, trainer_tuned = stranger(hub, tmp_path, *steps, python=python)
    assert_same(found["logits"], says(trained.folder))
    stranger(hub, tmp_path, {"delete": first})
    again, by_trainer = stranger(hub, tmp_path, {"load": second}, {"load": third}, python=python)
    assert_same(again["logits"], tuned["logits"])
    assert_same(by_trainer["logits"], trainer_tuned["logits"])
    for trained_further in (tuned, trainer_tuned):
        assert trained_further["logits"][0] != pytest.approx(found["logits"][0], abs=1e-3)
    files = hub.repo_files(second)
    assert f"base_model: {first}" in files["README.md"].decode() and "optimizer.pt" not in files
    assert hub.repo_files(second, "a-branch")["model.safetensors"] == files["model.safetensors"]
    # And by people on the newest version.
    (newest,) = stranger(hub, tmp_path, {"load": second})
    assert_same(newest["logits"], tuned["logits"])


@pytest.mark.slow
def test_the_weights_are_always_the_last_that_were_pushed(hub: Hub, trained: Any, tmp_path: Path) -> None:
    """In shards over one file, and in one file over shards."""
    target = f"{hub.user}/model"
    assert command(hub, tmp_path, "push", "--model", str(trained.folder), "--repo_id", target).returncode == 0
    for shards, gone in [("10KB", "model.safetensors"), ("1GB", "model.safetensors.index.json")]:
        tune = {"fine_tune": target, "steps": 2, "push": "model", "to": target, "shards": shards}
        (tuned,) = stranger(hub, tmp_path, tune)
        assert gone not in hub.repo_files(target)
        (loaded,) = stranger(hub, tmp_path, {"load": target})
        assert_same(loaded["logits"], tuned["logits"])
        card = hub.repo_files(target)["README.md"].decode()
        assert card.count("results below are of earlier weights") == 1 and "\nmodel-index:" not in card
    assert command(hub, tmp_path, "push", "--model", str(trained.folder), "--repo_id", target).returncode == 0
    card = hub.repo_files(target)["README.md"].decode()
    assert "earlier weights" not in card and "\nmodel-index:" in card


@pytest.mark.slow
def test_training_goes_on_with_a_model_from_the_hub(hub: Hub, trained: Any, tmp_path: Path) -> None:
    first, second = f"{hub.user}/first", f"{hub.user}/second"
    assert command(hub, tmp_path, "push", "--model", str(trained.folder), "--repo_id", first).returncode == 0
    data = ("--data", str(trained.home / "stories.jsonl"), "--bf16", "false", "--max_steps", "1")
    flags = (*data, "--learning_rate", "1e-9", "--output_dir", "out", "--per_device_train_batch_size", "8")
    went_on = command(hub, tmp_path, "train", "--encoder", first, *flags, "--push_to_hub", second)
    assert went_on.returncode == 0, went_on.stderr
    (loaded,) = stranger(hub, tmp_path, {"load": second})
    assert_same(loaded["logits"], says(trained.folder), within=1e-4)  # one step of nearly nothing, head included
    assert json.loads(hub.repo_files(second)["config.json"])["base_model"] == first


@pytest.mark.slow
def test_lightning_and_poutyne_push_from_python(
    hub: Hub, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each the best state of its run, whole, with a card that says what was measured."""
    # For both processes: by default the last digit of MKL's products depends on where in memory the weights are.
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    targets = {f"{hub.user}/by-lightning": "PyTorch Lightning", f"{hub.organization}/by-poutyne": "Poutyne"}
    client = Path(__file__).parents[1] / "clients" / "push_from_python.py"
    path = os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])
    done = subprocess.run(
        [
            sys.executable,
            str(client),
            str(home / "tiny-bert"),
            str(home / "stories.jsonl"),
            *targets,
            json.dumps(STORIES),
        ],
        env=hub.environment(tmp_path) | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    best = printed["best"]
    assert hub.repository(f"{hub.user}/by-lightning").private
    loaded = stranger(hub, tmp_path, *({"load": target} for target in targets))
    for target, answers in zip(targets, loaded, strict=True):
        card = hub.repo_files(target)["README.md"].decode()
        assert targets[target] in card and f"{best[target]:.3f}" in card and f'model="{target}"' in card
        assert answers["answers"] == printed["answers"][target]
        assert_tells_nothing(hub.repo_files(target), hub, USER, tmp_path, home)


@pytest.mark.slow
def test_a_branch_and_a_pull_request(hub: Hub, trained: Any, tmp_path: Path) -> None:
    target = f"{hub.user}/model"
    arguments = ("push", "--model", str(trained.folder), "--repo_id", target)
    assert command(hub, tmp_path, *arguments, "--revision", "second-try").returncode == 0
    assert set(hub.repo_files(target)) == {".gitattributes"}
    assert "model.safetensors" in hub.repo_files(target, "second-try")
    asked = command(hub, tmp_path, *arguments, "--create_pr")
    assert asked.returncode == 0 and "discussions/1" in asked.stdout
    assert set(hub.repo_files(target)) == {".gitattributes"}
    assert "model.safetensors" in hub.repo_files(target, "refs/pr/1")


@pytest.mark.slow
def test_what_a_person_wrote_into_the_card_stays(hub: Hub, trained: Any, tmp_path: Path) -> None:
    target = f"{hub.user}/model"
    arguments = ("push", "--model", str(trained.folder), "--repo_id", target)
    assert command(hub, tmp_path, *arguments).returncode == 0
    card = hub.repo_files(target)["README.md"].decode()
    edited = card.replace("license: unknown", "license: mit", 1) + "\nA person's own words.\n"
    write_card(hub, tmp_path, target, edited)
    assert command(hub, tmp_path, *arguments).returncode == 0
    now = hub.repo_files(target)["README.md"].decode()
    assert "A person's own words." in now and "license: mit" in now and f'model="{target}"' in now
    # But what somebody writes into the card in the folder is meant to be pushed.
    folder = tmp_path / "model"
    shutil.copytree(trained.folder, folder, ignore=shutil.ignore_patterns("checkpoints"))
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nWritten here.\n")
    assert command(hub, tmp_path, "push", "--model", str(folder), "--repo_id", target).returncode == 0
    assert "Written here." in hub.repo_files(target)["README.md"].decode()


def write_card(hub: Hub, folder: Path, repo_id: str, text: str) -> None:
    (folder / "edited.md").write_text(text)
    code = (
        "import sys, huggingface_hub as h; "
        "h.HfApi().upload_file(path_or_fileobj='edited.md', path_in_repo='README.md', repo_id=sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, repo_id], env=hub.environment(folder), cwd=folder, check=True)


def test_code_of_another_is_not_run_before_it_is_trusted(hub: Hub, trained: Any, tmp_path: Path) -> None:
    shutil.copytree(trained.folder, tmp_path / "model")
    with open(tmp_path / "model" / "modeling_sentence_ordering.py", "a", encoding="utf-8") as code:
        code.write("\nimport os, huggingface_hub\n")
        code.write(
            f"open({str(tmp_path / 'it_ran')!r}, 'w').write(f'{{huggingface_hub.get_token()}} {{os.environ}}')\n"
        )
    push = ["push", "--model", "model", "--repo_id", f"{hub.user}/theirs"]
    refused = command(hub, tmp_path, *push)
    assert refused.returncode == 2 and not (tmp_path / "it_ran").exists()
    assert "(modeling_sentence_ordering.py)" in refused.stderr and "--trust_remote_code" in refused.stderr
    with pytest.raises(KeyError):
        hub.repository(f"{hub.user}/theirs")
    pushed = command(hub, tmp_path, *push, "--trust_remote_code")
    assert pushed.returncode == 0, pushed.stderr
    ran = (tmp_path / "it_ran").read_text()
    assert ran.startswith("None ") and hub.token not in ran  # it is run without the token
    assert "config.json (" in pushed.stdout and " bytes:\n" in pushed.stdout


@pytest.mark.slow
@pytest.mark.parametrize("trap", ["tokenizer_config.json: fast", "backbone_config: dict", "config.json: dict"])
def test_a_model_on_the_hub_runs_no_code_here(trap: str, hub: Hub, trained: Any, tmp_path: Path) -> None:
    """Of whichever repository it names."""
    mark = set_trap(trap, "own", trained.folder, tmp_path / "evil")
    code = "import sys, huggingface_hub as h; h.create_repo(sys.argv[1]); "
    code += "h.upload_folder(repo_id=sys.argv[1], folder_path='evil')"
    environment = hub.environment(tmp_path)
    name = f"{hub.user}/evil"
    subprocess.run([sys.executable, "-c", code, name], env=environment, cwd=tmp_path, check=True)
    for arguments in (["order", "--model", name], ["demo", "--export", "space", "--model", name]):
        line = [sys.executable, "-m", "training.commands.command_line", *arguments]
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])
        done = subprocess.run(line, env=environment, cwd=tmp_path, input=f"It rained.\n{ANSWERS}", text=True)
        assert done.returncode in (0, 2) and not mark.exists()


PUSH_AND_CHANGE_CODE = r"""
import sys
from huggingface_hub import CommitOperationAdd, HfApi
folder, repo_id, trace = sys.argv[1:]
api = HfApi()
api.create_repo(repo_id)
api.upload_folder(folder_path=folder, repo_id=repo_id, ignore_patterns=["checkpoints/*", "tensorboard/*"])
later = []
for name in ("configuration", "modeling", "pipeline"):
    with open(f"{folder}/{name}_sentence_ordering.py", encoding="utf-8") as file:
        code = f"{file.read()}\nopen({trace!r}, 'a').write({name!r})\n"
    later.append(CommitOperationAdd(f"{name}_sentence_ordering.py", code.encode()))
print(api.list_repo_commits(repo_id)[0].commit_id)
api.create_commit(repo_id, later, commit_message="other code")
"""


@pytest.mark.slow
def test_who_pins_a_commit_runs_the_code_of_that_commit(hub: Hub, trained: Any, tmp_path: Path) -> None:
    """The whole of it: of config, model and pipeline, none is taken from what was pushed later."""
    target, trace = f"{hub.user}/model", tmp_path / "it_ran"
    done = subprocess.run(
        [sys.executable, "-c", PUSH_AND_CHANGE_CODE, str(trained.folder), target, str(trace)],
        env=hub.environment(tmp_path), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (pinned,) = stranger(hub, tmp_path, {"load": target, "revision": done.stdout.strip()})
    assert pinned["logits"] == says(trained.folder)
    assert not trace.exists()
    stranger(hub, tmp_path, {"load": target})
    assert all(name in trace.read_text() for name in ("configuration", "modeling", "pipeline"))
