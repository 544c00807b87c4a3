"""What goes to the Hub of a folder, and what leaves the repository in the same commit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from modeling_sentence_ordering import repository_sentence_ordering
from modeling_sentence_ordering.configuration_sentence_ordering import AUTO_MAP, CUSTOM_PIPELINES
from training.publishing.checks import check_code, listing
from training.publishing.clean_process import clean_environment
from training.publishing.pushed_files import copy_to_push, operations, stale_files

MODEL = ["README.md", "config.json", "model.safetensors", "results.json", "tokenizer.json", "notes/more.md"]
OWN = [
    *(".cache", ".git/config", "notes/.cache", "notes/__pycache__/x.pyc", "training.log"),
    *("checkpoints/step-5/model.safetensors", "checkpoint-5/model.safetensors", "trainer_state.json"),
    *("optimizer.pt", "rng_state.pth", "scheduler.pt", "notes/optimizer.pt", "training_args.bin", "best.ckpt", "x.pkl"),
    *("events.out.tfevents.1.machine", "tensorboard/a", "runs/a", "lightning_logs/version_0/hparams.yaml", "wandb/a"),
    *("README.md.unfinished", ".unfinished-abc/model.safetensors", "config.json.tmp"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in [*MODEL, *OWN]:
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "model"


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_a_run_keeps_for_itself_stays_back_wherever_it_lies(folder: Path) -> None:
    with copy_to_push(folder) as copy:
        assert names(copy) == set(MODEL)
        assert (copy / "config.json").read_text() == "config.json"
        (copy / "README.md").write_text("renewed")
    assert (folder / "README.md").read_text() == "README.md"
    assert names(folder) == {*MODEL, *OWN}


def test_links_of_the_hubs_cache_are_followed(folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--user--name" / "snapshots" / "abc"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    (tmp_path / "models--user--name" / "blobs").mkdir()
    (snapshot / "model.safetensors").rename(tmp_path / "models--user--name" / "blobs" / "123")
    (snapshot / "model.safetensors").symlink_to("../../blobs/123")
    (tmp_path / "link").symlink_to(snapshot)
    with copy_to_push(tmp_path / "link") as copy:
        assert names(copy) == set(MODEL)
        assert (copy / "model.safetensors").read_text() == "model.safetensors"


@pytest.mark.parametrize("target", ["secret", "secret/key", "blobs/key", "."])
@pytest.mark.parametrize("name", ["notes.txt", "README.md", "notes/picture.png", "link"])
def test_a_link_that_leaves_the_folder_is_refused(name: str, target: str, folder: Path, tmp_path: Path) -> None:
    for place in ("secret", "blobs"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "key").write_text("private")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / target)
    with pytest.raises(ValueError, match="is a link to") as error, copy_to_push(folder):
        pass
    assert name in str(error.value) and "\n" not in str(error.value)


def test_a_link_to_a_link_and_a_link_into_the_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "again.json").symlink_to("config.json")
    with copy_to_push(folder) as copy:
        assert (copy / "again.json").read_text() == "config.json"
    (tmp_path / "key").write_text("private")
    (folder / ".hidden").symlink_to(tmp_path / "key")
    (folder / "again.txt").symlink_to(".hidden")
    with pytest.raises(ValueError, match="outside the folder"), copy_to_push(folder):
        pass


@pytest.mark.parametrize("name", ["token", "server.pem", "id_rsa", "id_ed25519.pub", "credentials.json", "Secrets.yaml",
    "notes/CREDENTIALS", "keys/private.key", "stored_tokens", ".env", ".env.local", "prod.env",
    "notes/.netrc", "hf_token.txt", "my-token", "client_secret.json", "aws_credentials", "server.key.txt",
    "api_key.txt", "password.txt", "private_key", "service-account.json", "netrc"])  # fmt: skip
def test_a_file_that_looks_like_a_secret_is_refused(name: str, folder: Path) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("private")
    with pytest.raises(ValueError, match="like a secret") as error, copy_to_push(folder):
        pass
    assert name in str(error.value)


@pytest.mark.parametrize("target", [".git/config", "train.log", "nothing", "link"])
def test_a_link_to_what_stays_behind_is_refused(target: str, folder: Path) -> None:
    (folder / ".git").mkdir(exist_ok=True)
    for name in (".git/config", "train.log"):
        (folder / name).write_text("private")
    (folder / "link").symlink_to(target)
    with pytest.raises(ValueError, match="link is a link to"), copy_to_push(folder):
        pass


def test_what_is_no_file_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(ValueError, match="pipe is not a regular file"), copy_to_push(folder):
        pass


def test_the_person_is_told_what_goes(folder: Path) -> None:
    with copy_to_push(folder) as copy:
        told = listing(copy)
    assert told.splitlines()[0] == f"{len(MODEL)} files, {sum(map(len, MODEL))} bytes:"
    assert {line.split()[0] for line in told.splitlines()[1:]} == set(MODEL)
    assert listing(folder, most=2).splitlines()[-1] == f"  and {len(MODEL) + len(OWN) - 2} more"


REFERENCES: dict[str, Any] = {
    "other repository": {"auto_map": {"AutoModel": "somebody/evil--evil.Evil"}},
    "own name elsewhere": {"auto_map": {"AutoModel": f"somebody/evil--{AUTO_MAP['AutoModel']}"}},
    "list": {"auto_map": [None, "somebody/evil--evil.Evil"]},
    "string": {"auto_map": "somebody/evil--evil.Evil"},
    "nested": {"a": [{"b": {"auto_map": {"AutoConfig": "somebody/evil--evil.Evil"}}}]},
    "pipeline": {"custom_pipelines": {"other": {"impl": "somebody/evil--evil.Evil", "pt": ["AutoModel"]}}},
    "outside": {"auto_map": {"AutoModel": "/elsewhere--evil.Evil"}},
    "kernel": {"attn_implementation": {"text_config": "somebody/evil"}},
    "adapter": {"base_model_name_or_path": "somebody/evil"},
}


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "processor_config.json", "deep/er/some.json"])
@pytest.mark.parametrize("reference", REFERENCES)
def test_code_outside_of_the_folder_is_refused(reference: str, file: str, trusted: bool, tmp_path: Path) -> None:
    """And so even where the person has read the code in the folder and trusts it."""
    path = tmp_path / (file if reference != "adapter" else "adapter_config.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(REFERENCES[reference]))
    with pytest.raises(ValueError, match=path.name) as error:
        check_code(tmp_path, "my-model", trusted=trusted)
    assert str(error.value).startswith("my-model ") and "\n" not in str(error.value)


def test_code_in_the_folder_is_a_matter_of_trust(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": {**AUTO_MAP, "AutoTokenizer": ["mine.Tok", None]}}))
    (tmp_path / "mine.py").write_text("class Tok: pass")
    check_code(tmp_path, "my-model", trusted=True)
    with pytest.raises(ValueError, match="mine.Tok"):
        check_code(tmp_path, "my-model")
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": AUTO_MAP, "custom_pipelines": CUSTOM_PIPELINES}))
    with pytest.raises(ValueError, match="mine.py"):
        check_code(tmp_path, "my-model")
    (tmp_path / "mine.py").unlink()
    check_code(tmp_path, "my-model")


def test_what_push_to_hub_of_a_model_uploads_is_checked_as_well(tmp_path: Path) -> None:
    """By the code that travels with the model, where this package is not."""
    upload_one = cast(Any, repository_sentence_ordering)._check_file
    for number, (name, values) in enumerate(REFERENCES.items()):
        if name != "adapter":
            path = tmp_path / f"{number}.json"
            path.write_text(json.dumps(values))
            with pytest.raises(ValueError, match="foreign code"):
                upload_one(path)
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": AUTO_MAP, "custom_pipelines": CUSTOM_PIPELINES}))
    upload_one(tmp_path / "config.json")
    (tmp_path / "vocab.txt").symlink_to(tmp_path / "config.json")
    with pytest.raises(ValueError, match="is a link"):
        upload_one(tmp_path / "vocab.txt")


def test_the_clean_process_gets_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither from the environment nor from the person's folder."""
    for name in (
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "MY_PASSWORD",
        "HTTPS_PROXY",
        "WANDB_API_KEY",
    ):
        monkeypatch.setenv(name, "very-secret")
    monkeypatch.setenv("HOME", "/home/somebody")
    environment = clean_environment(str(tmp_path))
    assert "very-secret" not in environment.values() and environment["HOME"] == str(tmp_path)
    code = "import huggingface_hub, os; print(huggingface_hub.get_token(), os.path.expanduser('~'))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", str(tmp_path)]


@pytest.mark.parametrize(
    ("repo_type", "present", "gone"),
    [
        ("model", ["model-00001-of-00002.safetensors", "model.safetensors.index.json"], True),
        ("model", ["onnx/model.onnx", "onnx/model_quantized.onnx", "onnx/model.onnx.data"], True),
        ("model", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"], True),
        ("model", ["special_tokens_map.json", "vocab.txt", "added_tokens.json", "spiece.model"], True),
        ("model", ["recipe.yaml", "training_stories.txt", "loss_curves.png", "position_heatmap.png"], True),
        ("model", [".gitattributes", "LICENSE", "model.md", "pictures/model.onnx", "old/spiece.model"], False),
        ("model", MODEL, False),
        ("dataset", ["shuffled/train-00000-of-00001.parquet", "data.parquet", "name.py"], True),
        ("dataset", [".gitattributes", "other.py", "pictures/name.py", "notes.csv"], False),
    ],
)
def test_what_an_earlier_push_left_goes_and_what_a_person_added_stays(
    folder: Path, repo_type: str, present: list[str], gone: bool
) -> None:
    with copy_to_push(folder) as copy:
        all_of_it = operations(copy, present, stale_files("user/name", repo_type))
    deleted = [done.path_in_repo for done in all_of_it if isinstance(done, CommitOperationDelete)]
    added = [done.path_in_repo for done in all_of_it if isinstance(done, CommitOperationAdd)]
    assert deleted == (present if gone else []) and added == sorted(MODEL)


def test_nothing_leaves_the_number_of_commits_to_the_client() -> None:
    """Its `upload_folder` makes several where Xet is installed, and here Xet is off: the Hub of the tests has none."""
    root = Path(__file__).parents[3]
    sources = [
        path for package in ("training", "modeling_sentence_ordering") for path in (root / package).rglob("*.py")
    ]
    assert len(sources) > 20
    assert [path.name for path in sources if ".upload_folder(" in path.read_text(encoding="utf-8")] == []
