"""What goes to the Hub of a folder, and what leaves the repository in the same commit."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from training.publishing.pushed_files import copy_to_push, operations, stale_files

MODEL = ["README.md", "config.json", "model.safetensors", "results.json", "tokenizer.json", "notes/more.md"]
OWN = [
    *(".env", ".git/config", "production.env", "notes/.env", "notes/__pycache__/x.pyc", "training.log"),
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


def test_links_are_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(tmp_path / "blob")
    (folder / "model.safetensors").symlink_to("../blob")
    (tmp_path / "link").symlink_to(folder)
    with copy_to_push(tmp_path / "link") as copy:
        assert names(copy) == set(MODEL)
        assert (copy / "model.safetensors").read_text() == "model.safetensors"


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
