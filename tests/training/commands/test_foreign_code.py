"""Models and encoders that name code of somebody else: no command runs it, passes it on or uploads it."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling_sentence_ordering import save_tokenizer
from tests.hostile.traps import ANSWERS, PLACES, TRAPS, set_trap
from tests.training.conftest import Trained, run_command
from training.commands.demo import _pipeline
from training.frameworks.lightning.checkpoints import RECORD, checkpoint_to_folder, model_record
from training.frameworks.lightning.module import SentenceOrderingModule
from training.models.encoders import build_model
from training.models.trained_model import load_trained_model
from training.publishing.checks import check_code
from training.publishing.pushed_files import copy_to_push
from training.recipe.recipe import Recipe

# `pytest -m exhaustive` tries each trap with each command; other runs try the commands that take long with these only.
FEW = ("tokenizer_config.json: fast", "backbone_config: dict", "config.json: dict", "custom_pipelines")


def command(line: str) -> Callable[..., None]:
    def run(folder: Path, out: Path, data: Path) -> None:
        result = run_command(*line.format(folder=folder, out=out, data=data).split())
        assert result.code in (0, 1, 2)
        assert result.code == 0 or result.err.count("\n") == 1, result.err

    return run


def _build(folder: Path, out: Path, data: Path) -> None:
    model, tokenizer = build_model(Recipe(encoder=str(folder), data=[str(data)]).resolved(), [])
    model.save_pretrained(out)
    save_tokenizer(tokenizer, out)


def _push(folder: Path, out: Path, data: Path) -> None:
    """What `push` does before it asks the Hub; a folder that is not refused is what would be uploaded."""
    load_trained_model(str(folder))
    with copy_to_push(folder) as copy:
        check_code(copy, folder)
        shutil.copytree(copy, out)


# Which folder is taken, and what is done with it.
USES: dict[str, tuple[str, Callable[[Path, Path, Path], Any]]] = {
    "order": ("model", command("order --model {folder}")),
    "evaluate": ("model", command("evaluate --model {folder} --data {data} --split all")),
    "export": ("model", command("export --model {folder} --output {out}")),
    "demo": ("model", lambda folder, *_: _pipeline(str(folder))),
    "demo --export": ("model", command("demo --model {folder} --export {out}")),
    "push": ("model", _push),
    "train": ("encoder", _build),
    "train further": ("model", _build),
    "module": ("model", lambda folder, *_: SentenceOrderingModule(str(folder))),
    "build": ("encoder", lambda folder, *_: SentenceOrderingModule.build(str(folder))),
}
SLOW = ("evaluate", "export", "demo", "module", "build", "train further")
WHOLE = {
    "train": command("train --encoder {folder} --data {data} --output_dir {out} --max_steps 1 --bf16 false"),
    "compare": command("compare --encoders {folder} --data {data} --output_dir {out} --max_steps 1 --bf16 false"),
}


def check(use: Callable[..., Any], folder: Path, mark: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing runs, and nothing that is written names the code."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"It rained.\n{ANSWERS}".encode())))
    out = folder.parent / "out"
    try:
        use(folder, out, data)
    except (ValueError, OSError) as error:
        assert str(error).strip()
    assert not mark.exists()
    texts = [path.read_text("utf-8") for path in out.rglob("*.json") if path.name != "results.json"]
    assert not [text for text in texts if "evil.Evil" in text]


@pytest.mark.parametrize(
    "place", [pytest.param(p, marks=[] if p == "other" else pytest.mark.exhaustive) for p in PLACES]
)
@pytest.mark.parametrize(
    ("use", "trap"),
    [
        pytest.param(use, trap, marks=pytest.mark.exhaustive if use in SLOW and trap not in FEW else [])
        for use in USES
        for trap in TRAPS
    ],
)
def test_no_command_runs_foreign_code(
    use: str, trap: str, place: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, function = USES[use]
    good = trained.folder if kind == "model" else trained.home / "tiny-bert"
    mark = set_trap(trap, place, good, tmp_path / "folder")
    if trap in FEW:  # the rest of `export` takes seconds
        monkeypatch.setattr("training.inference.onnx_export.export_onnx", lambda *_, **__: [])
    check(function, tmp_path / "folder", mark, trained.home / "stories.jsonl", monkeypatch)


@pytest.mark.parametrize(
    "trap", [pytest.param(trap, marks=pytest.mark.slow if trap in FEW else pytest.mark.exhaustive) for trap in TRAPS]
)
@pytest.mark.parametrize("use", WHOLE)
def test_no_training_command_runs_foreign_code(
    use: str, trap: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = set_trap(trap, "other", trained.home / "tiny-bert", tmp_path / "folder")
    check(WHOLE[use], tmp_path / "folder", mark, trained.home / "stories.jsonl", monkeypatch)


@pytest.mark.parametrize("trap", [trap for trap in TRAPS if trap.startswith("tokenizer")])
def test_a_lightning_checkpoint_runs_no_code(
    trap: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = set_trap(trap, "other", trained.folder, tmp_path / "folder")
    model, tokenizer = load_trained_model(str(trained.folder))
    record = model_record(model, tokenizer)
    config = json.loads(record["config"])
    config["backbone_config"]["auto_map"] = {"AutoModel": f"{tmp_path / 'folder-other'}--evil.Evil"}
    record["config"] = json.dumps(config)
    record["tokenizer"]["tokenizer_config.json"] = (tmp_path / "folder" / "tokenizer_config.json").read_bytes()
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    content = {RECORD: record, "state_dict": state, "global_step": 1, "hyper_parameters": {}}
    path = tmp_path / "hostile.ckpt"
    torch.save({**content, "pytorch-lightning_version": "2.6.0"}, path)

    def use(_: Path, out: Path, __: Path) -> None:
        SentenceOrderingModule.load_from_checkpoint(path)
        checkpoint_to_folder(path, out)

    check(use, tmp_path / "folder", mark, path, monkeypatch)


def test_a_checkpoint_that_names_a_function_is_refused(trained: Trained, tmp_path: Path) -> None:
    model, tokenizer = load_trained_model(str(trained.folder))
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    content = {RECORD: model_record(model, tokenizer), "state_dict": state, "global_step": 1}
    torch.save({**content, "hyper_parameters": {"_instantiator": "os.system"}}, tmp_path / "hostile.ckpt")
    with pytest.raises(ValueError, match="_instantiator"):
        SentenceOrderingModule.load_from_checkpoint(tmp_path / "hostile.ckpt")


def test_a_tokenizer_that_needs_foreign_code_is_refused_or_replaced(trained: Trained, tmp_path: Path) -> None:
    """The story on standard input said yes."""
    set_trap("tokenizer of an unknown class", "own", trained.folder, tmp_path / "folder")
    result = run_command("order", "--model", tmp_path / "folder", trained.home / "stories.jsonl")
    assert result.code == 0 or (result.code == 2 and result.err.count("\n") == 1), result.err
