"""Repositories that name code of somebody else: none of it runs, and nothing that we write names it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modeling_sentence_ordering import SentenceOrderingConfig, SentenceOrderingModel, load_tokenizer, save_tokenizer
from tests.hostile.traps import ANSWERS, PLACES, TRAPS, set_trap
from tests.modeling_sentence_ordering.small_encoders import GetFolder


def _load_and_save(folder: Path, out: Path) -> None:
    SentenceOrderingModel.from_pretrained(folder).save_pretrained(out)


def _encoder(folder: Path, out: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    save_tokenizer(tokenizer, out)
    SentenceOrderingModel.from_encoder(str(folder), tokenizer=tokenizer).save_pretrained(out)


def _own_tokenizer(folder: Path, out: Path) -> None:
    """As `Trainer` saves it, without our function."""
    load_tokenizer(str(folder), trust_remote_code=None).save_pretrained(out)


def _rescued(folder: Path, out: Path) -> None:
    SentenceOrderingModel.from_token_classification(str(folder)).save_pretrained(out)


# What is public and loads something: of which folder, and how.
LOADING: dict[str, tuple[str, Callable[[Path, Path], Any]]] = {
    "from_pretrained": ("model", _load_and_save),
    "config": ("model", lambda folder, out: SentenceOrderingConfig.from_pretrained(folder).save_pretrained(out)),
    "load_tokenizer of a model": ("model", _own_tokenizer),
    "load_tokenizer of an encoder": ("encoder", _own_tokenizer),
    "from_encoder": ("encoder", _encoder),
    "from_encoder by itself": ("encoder", lambda folder, _: SentenceOrderingModel.from_encoder(str(folder))),
    "from_token_classification": ("encoder", _rescued),
}


@pytest.mark.parametrize(
    "place", [pytest.param(place, marks=pytest.mark.slow if place == "hub" else []) for place in PLACES]
)
@pytest.mark.parametrize("trap", TRAPS)
def test_no_loading_function_runs_foreign_code(
    trap: str,
    place: str,
    model_folder: GetFolder,
    encoder_folder: GetFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even where standard input is full of consent; what does not load is refused in one line."""
    good = {"model": model_folder("bert"), "encoder": encoder_folder("bert")}
    folders = {kind: tmp_path / kind for kind in good}
    marks = {kind: set_trap(trap, place, good[kind], folders[kind]) for kind in good}
    for name, (kind, load) in LOADING.items():
        monkeypatch.setattr("sys.stdin", io.StringIO(ANSWERS))
        out = tmp_path / "out"
        try:
            load(folders[kind], out)
        except (ValueError, OSError) as error:
            assert str(error).strip(), name
        assert not marks[kind].exists(), f"{name} ran code that {trap} names"
        written = {path.name: path.read_text("utf-8") for path in out.glob("*.json")}
        assert not [there for there, text in written.items() if "evil" in text], name
        shutil.rmtree(out, ignore_errors=True)
