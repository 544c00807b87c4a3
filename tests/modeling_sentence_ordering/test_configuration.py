"""The config: what it keeps, what it refuses, and that nothing of this machine gets into config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import AutoConfig, BertConfig

from modeling_sentence_ordering import SentenceOrderingConfig, SentenceOrderingModel
from modeling_sentence_ordering.configuration_sentence_ordering import (
    AUTO_MAP,
    CUSTOM_PIPELINES,
    ConvolutionalEncoderConfig,
    RecurrentEncoderConfig,
    hub_id,
)
from tests.modeling_sentence_ordering.small_encoders import ENCODERS, GetFolder, MakeModel, word_tokenizer

FIELDS: dict[str, Any] = {
    "objective": "mse",
    "target_scale": "unit",
    "reading": "max",
    "marker_token_id": 7,
    "separator_token_id": 8,
    "max_input_tokens": 99,
    "head_dropout": 0.25,
    "initializer_range": 0.5,
    "base_model": "google-bert/bert-base-cased",
    "confidence_temperature": 0.75,
    "group_size": 12,
}


def written(folder: Path) -> dict[str, Any]:
    entries: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return entries


def test_round_trip(tmp_path: Path) -> None:
    backbone = BertConfig(vocab_size=50, hidden_size=16, num_attention_heads=2)
    SentenceOrderingConfig(backbone_config=backbone, **FIELDS).save_pretrained(tmp_path)
    again = SentenceOrderingConfig.from_pretrained(tmp_path)
    assert {key: getattr(again, key) for key in FIELDS} == FIELDS
    assert isinstance(again.backbone_config, BertConfig)
    assert (again.backbone_config.vocab_size, again.output_size) == (50, 16)
    assert again.to_dict() == SentenceOrderingConfig.from_dict(again.to_dict()).to_dict()
    again.save_pretrained(tmp_path / "again")
    assert written(tmp_path / "again") == written(tmp_path)


@pytest.mark.parametrize(
    ("backbone", "width"),
    [
        (ConvolutionalEncoderConfig(vocab_size=9, embedding_dim=5, num_filters=7, filter_size=3, pad_token_id=4), 7),
        (RecurrentEncoderConfig(vocab_size=9, hidden_size=6, num_layers=2, cell="lstm"), 12),
        (RecurrentEncoderConfig(hidden_size=6, bidirectional=False, cell="rnn", nonlinearity="relu"), 6),
    ],
)
def test_round_trip_of_the_small_encoders(backbone: Any, width: int, tmp_path: Path) -> None:
    SentenceOrderingConfig(backbone_config=backbone).save_pretrained(tmp_path)
    again = SentenceOrderingConfig.from_pretrained(tmp_path)
    assert type(again.backbone_config) is type(backbone)
    assert again.backbone_config.to_dict() == backbone.to_dict()
    assert again.output_size == width


def test_the_encoders_config_is_written_in_full(tmp_path: Path) -> None:
    """Defaults of another transformers version would change the model."""
    SentenceOrderingConfig(backbone_config=BertConfig()).save_pretrained(tmp_path)
    backbone = written(tmp_path)["backbone_config"]
    assert backbone["model_type"] == "bert"
    defaults = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "num_hidden_layers": 12, "type_vocab_size": 2}
    assert {key: backbone[key] for key in defaults} == defaults


@pytest.mark.parametrize("name", [*ENCODERS, "cnn", "rnn"])
def test_config_json_holds_our_code_entries_and_nothing_of_this_machine(name: str, model_folder: GetFolder) -> None:
    folder = model_folder(name)
    entries = written(folder)
    assert entries["auto_map"] == AUTO_MAP
    assert entries["custom_pipelines"] == CUSTOM_PIPELINES
    assert entries["custom_pipelines"]["sentence-ordering"]["pt"] == ["AutoModel"]
    for path in folder.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        for private in ("_name_or_path", "is_local", "local_files_only", str(folder.parent.parent)):
            assert private not in text, f"{private} in {path.name}"
    assert entries["base_model"] is None, "the encoder came from a folder"
    tokenizer_class = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["tokenizer_class"]
    assert entries["tokenizer_class"] == tokenizer_class


def test_code_entries_are_restored_whatever_was_put_in_their_place(tmp_path: Path) -> None:
    """transformers 4 points them back at the repository that a model came from; `pipeline` puts classes in."""
    config = SentenceOrderingConfig(backbone_config=BertConfig())
    foreign = {"sentence-ordering": {"impl": "somebody/model--pipeline.Other", "pt": (SentenceOrderingModel,)}}
    config.custom_pipelines = foreign
    config.auto_map = {"AutoModel": "somebody/model--modeling.Other"}
    config.save_pretrained(tmp_path)
    assert written(tmp_path)["auto_map"] == AUTO_MAP
    assert written(tmp_path)["custom_pipelines"] == CUSTOM_PIPELINES
    assert config.custom_pipelines is foreign, "saving changes nothing in memory"


def test_a_config_of_an_earlier_version_has_no_temperature_and_no_group_size(tmp_path: Path) -> None:
    SentenceOrderingConfig(backbone_config=BertConfig()).save_pretrained(tmp_path)
    entries = written(tmp_path)
    for name in ("confidence_temperature", "group_size"):
        entries.pop(name, None)
        assert getattr(SentenceOrderingConfig.from_dict(entries), name) is None


def test_unknown_fields_are_kept_as_transformers_does(tmp_path: Path) -> None:
    """A config written by a later version of this package must still load."""
    SentenceOrderingConfig(backbone_config=BertConfig(), of_a_later_version=[1, 2]).save_pretrained(tmp_path)
    assert SentenceOrderingConfig.from_pretrained(tmp_path).of_a_later_version == [1, 2]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reading": "mean"}, "reading .*'mean'"),
        ({"confidence_temperature": 0.0}, "confidence_temperature .* 0.0"),
        ({"confidence_temperature": float("nan")}, "confidence_temperature .* nan"),
        ({"group_size": 1}, "group_size .* 1"),
        ({"group_size": 4.0}, "group_size .* 4.0"),
        ({"group_size": True}, "group_size .* True"),
        ({"target_scale": "log"}, "target_scale .*'log'"),
        ({"backbone_config": {"hidden_size": 3}}, "backbone_config has no model_type"),
        ({"backbone_config": {"model_type": "no-such-encoder"}}, "no-such-encoder"),
        ({"backbone_config": {"model_type": "sentence_ordering_cnn", "filter_size": 4}}, "filter_size must be odd"),
        ({"backbone_config": {"model_type": "sentence_ordering_rnn", "cell": "tree"}}, "cell .*tree"),
        (
            {"backbone_config": {"model_type": "sentence_ordering_rnn", "nonlinearity": "gelu"}},
            "nonlinearity .*gelu",
        ),
    ],
)
def test_what_does_not_exist_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, KeyError), match=message):
        SentenceOrderingConfig(**fields)


def test_a_model_needs_an_encoder_and_an_objective_that_exist() -> None:
    with pytest.raises(ValueError, match="no backbone_config"):
        SentenceOrderingModel(SentenceOrderingConfig())
    with pytest.raises(ValueError, match="'mae'; .*mse"):
        SentenceOrderingModel(SentenceOrderingConfig(backbone_config=ConvolutionalEncoderConfig(), objective="mae"))


def test_base_model_is_kept_for_ids_on_the_hub_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = ["bert-base-cased", "FacebookAI/roberta-base", "user/model_1.5-x"]
    assert [hub_id(name) for name in kept] == kept
    (tmp_path / "encoders" / "minilm").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    paths = [str(tmp_path), "encoders/minilm", "./missing", "../up", "/srv/models/bert", "a/b/c", "~/bert", "C:\\bert"]
    for name in [*paths, "", None, "cnn", "rnn"]:
        assert hub_id(name) is None, name
    assert SentenceOrderingConfig(base_model="/srv/models/bert").base_model is None


def test_base_model_can_be_given_for_an_encoder_from_a_folder(make_model: MakeModel) -> None:
    assert make_model("bert", base_model="google-bert/bert-base-cased")[0].config.base_model.startswith("google-bert/")


def test_fields_of_a_small_encoder_reach_its_config() -> None:
    fields: dict[str, Any] = {
        "cell": "lstm",
        "hidden_size": 4,
        "num_layers": 2,
        "embedding_dim": 3,
        "bidirectional": False,
    }
    model = SentenceOrderingModel.from_encoder("rnn", tokenizer=word_tokenizer(), head_dropout=0.3, **fields)
    backbone = model.config.backbone_config
    assert {key: getattr(backbone, key) for key in fields} == fields
    assert model.config.head_dropout == 0.3
    assert backbone.vocab_size == len(word_tokenizer()) and backbone.pad_token_id == 0
    recurrence = model.encoder.recurrence
    assert (type(recurrence).__name__, recurrence.num_layers, recurrence.input_size) == ("LSTM", 2, 3)
    assert (model.config.reading, model.head.in_features) == ("last", 4)


def test_the_config_loads_with_auto_config_in_this_process(model_folder: GetFolder) -> None:
    config = AutoConfig.from_pretrained(model_folder("bert"), trust_remote_code=True)
    assert config.model_type == "sentence_ordering"
    assert isinstance(config.backbone_config, transformers.BertConfig)


def test_other_libraries_find_the_sizes_of_the_encoder() -> None:
    """DeepSpeed's "auto" values and PEFT's prompts are made of them."""
    config = SentenceOrderingConfig({"model_type": "distilbert", "dim": 12, "n_layers": 3, "n_heads": 4})
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (12, 3, 4)
    assert config.vocab_size == config.backbone_config.vocab_size == 30522
    assert not {"hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"} & set(config.to_diff_dict())
    small = SentenceOrderingConfig(RecurrentEncoderConfig(hidden_size=5, num_layers=2))
    assert (small.hidden_size, small.num_hidden_layers) == (10, 2)
    assert not hasattr(small, "num_attention_heads"), "it has no attention"
    assert not hasattr(SentenceOrderingConfig(), "hidden_size"), "it has no encoder"
