"""Weights and configurations of strangers that name what is not theirs, or need what is not here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from modeling_sentence_ordering import SentenceOrderingModel
from modeling_sentence_ordering.configuration_sentence_ordering import references_in, without_references
from tests.modeling_sentence_ordering.small_encoders import word_tokenizer
from training.models import model_folder
from training.models.trained_model import load_trained_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = word_tokenizer()
    model = SentenceOrderingModel.from_encoder("cnn", tokenizer=tokenizer)
    model_folder.save_model(model, tokenizer, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", ["../outside.safetensors", "{home}/outside.safetensors", "evil.bin", 1])
def test_an_index_names_safetensors_of_its_own_folder(name: Any, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    save_file({}, folder / "model-00001-of-00001.safetensors")
    name = name.format(home=folder.parent) if isinstance(name, str) else name
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"a": name}}))
    with pytest.raises(ValueError, match="which is not a safetensors file of this folder"):
        load_trained_model(str(folder))


def test_a_library_that_a_model_asks_for_and_is_not_here_is_bad_input(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ImportError("this quantization needs a library")

    monkeypatch.setattr("training.models.trained_model.SentenceOrderingModel.from_pretrained", fails)
    with pytest.raises(ValueError, match="cannot be loaded: this quantization needs a library"):
        load_trained_model(str(folder))


@pytest.mark.parametrize("key", ["_attn_implementation_internal", "_experts_implementation_internal"])
def test_a_kernel_under_a_private_name_is_code(key: str) -> None:
    values = {"backbone_config": {key: "somebody/evil"}}
    assert references_in(values) == ["somebody/evil"]
    assert without_references(values) == {"backbone_config": {}}
    assert without_references({key: "sdpa"}) == {key: "sdpa"}
