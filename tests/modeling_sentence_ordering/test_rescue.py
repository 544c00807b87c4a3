"""Checkpoints of the 2021 guide become models of ours: token classifiers, question answering, `.ckpt` files."""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from modeling_sentence_ordering import (
    SentenceOrderingModel,
    SentenceOrderingPipeline,
    StoryTokenizer,
    arrangements,
    load_tokenizer,
    save_tokenizer,
)
from tests.modeling_sentence_ordering.small_encoders import STORIES, write_encoder

RESCUED = {
    "bert": "BertForTokenClassification",
    "roberta": "RobertaForTokenClassification",
    "distilbert": "DistilBertForTokenClassification",
    "xlm-roberta": "XLMRobertaForTokenClassification",
    "electra": "ElectraForTokenClassification",
    "albert": "AlbertForTokenClassification",
    "mpnet": "MPNetForTokenClassification",
    "deberta-v2": "DebertaV2ForTokenClassification",
}


READERS = {"bert": "BertForQuestionAnswering", "roberta": "RobertaForQuestionAnswering"}
READERS |= {"distilbert": "DistilBertForQuestionAnswering", "electra": "ElectraForQuestionAnswering"}


def guide_inputs(tokenizer: Any, story: list[str]) -> Tensor:
    """`[CLS] sentence 1 [CLS] sentence 2 …`, one text, as the guide's data set has it."""
    text = " ".join(f"{tokenizer.cls_token} {sentence}" for sentence in story)
    ids: Tensor = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    return ids


def old_scores(folder: Path, story: list[str]) -> Tensor:
    """The logits at the markers, as the guide reads them."""
    old = old_model(folder)
    tokenizer = load_tokenizer(str(folder))
    ids = guide_inputs(tokenizer, story)
    with torch.no_grad():
        output = old(input_ids=ids)
    logits: Tensor = output.start_logits[0] if "start_logits" in output else output.logits[0, :, 0]
    return logits[ids[0] == tokenizer.cls_token_id]


def outputs_of(architecture: str) -> int:
    return 2 if architecture.endswith("ForQuestionAnswering") else 1


def old_model(folder: Path) -> Any:
    (architecture,) = transformers.AutoConfig.from_pretrained(folder).architectures
    return getattr(transformers, architecture).from_pretrained(folder)


@pytest.mark.parametrize(("name", "architecture"), [*RESCUED.items(), *READERS.items()])
def test_scores_are_those_of_the_old_model(name: str, architecture: str, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "old", name, architecture, num_labels=outputs_of(architecture))
    model = SentenceOrderingModel.from_token_classification(str(folder))
    tokenizer = load_tokenizer(str(folder))
    assert not model.training
    model.save_pretrained(tmp_path / "new")
    save_tokenizer(tokenizer, tmp_path / "new")
    again = SentenceOrderingModel.from_pretrained(tmp_path / "new")
    for story in STORIES:
        expected = old_scores(folder, story)
        assert len(expected) == len(story)
        for rescued in (model, again):
            with torch.no_grad():
                found = rescued(input_ids=guide_inputs(tokenizer, story)).logits[0]
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["bert", "distilbert", "electra", "mpnet"])
def test_the_pipeline_reads_stories_as_the_guide_did(name: str, tmp_path: Path) -> None:
    """Where a token does not depend on the blank before it (WordPiece), down to the last digit."""
    folder = write_encoder(tmp_path, name, RESCUED[name], num_labels=1)
    model = SentenceOrderingModel.from_token_classification(str(folder))
    assert model.config.separator_token_id is None, "the guide closed its stories with nothing"
    order = SentenceOrderingPipeline(model=model, tokenizer=load_tokenizer(str(folder)))
    for story in STORIES:
        (shown,) = arrangements(story)
        found = [order(story)["scores"][i] for i in shown]
        assert found == pytest.approx(old_scores(folder, [story[i] for i in shown]).tolist(), abs=1e-6)


def test_an_old_checkpoint_in_pytorch_format(tmp_path: Path) -> None:
    """What transformers of 2021 wrote; read with `weights_only`, so that nothing in it can run."""
    folder = write_encoder(tmp_path, "bert", RESCUED["bert"], num_labels=1)
    expected = old_scores(folder, STORIES[0])
    weights = transformers.AutoModelForTokenClassification.from_pretrained(folder).state_dict()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    model = SentenceOrderingModel.from_token_classification(str(folder))
    found = model(input_ids=guide_inputs(load_tokenizer(str(folder)), STORIES[0])).logits[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_pickle_that_runs_code_is_not_loaded(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "harm",))

    folder = write_encoder(tmp_path, "bert", RESCUED["bert"], num_labels=1)
    torch.save({"classifier.bias": Harmful()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(Exception, match="[Ww]eights.only|Unsupported|unpickl"):
        SentenceOrderingModel.from_token_classification(str(folder))
    assert not (tmp_path / "harm").exists()


class EarlyStopping:
    """Stands for a callback of Lightning, whose class is pickled into the checkpoint and may be missing today."""


class AttributeDict(dict[str, Any]):
    """Stands for the class of a Lightning module's hyperparameters."""


@pytest.mark.parametrize("layout", ["base_model.", "transformer.", "model.transformer.", ""])
@pytest.mark.parametrize(("name", "kind"), [("bert", RESCUED), ("distilbert", RESCUED), ("bert", READERS)])
def test_a_checkpoint_of_lightning(name: str, kind: dict[str, str], layout: str, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "old", name, kind[name], num_labels=outputs_of(kind[name]))
    encoder = write_encoder(tmp_path / "encoder", name)
    weights = {layout + key: value for key, value in old_model(folder).state_dict().items()}
    weights |= {"accuracy.total": torch.tensor(3.0)} if layout else {}
    options = argparse.Namespace(model_name_or_path=name, learning_rate=3e-5, stopping=EarlyStopping())
    hyperparameters = AttributeDict(options=options, seen=defaultdict(int, a=1))
    callbacks = {EarlyStopping: {"patience": 3, "best": torch.tensor(0.5)}}
    path = tmp_path / "epoch=2-step=3950.ckpt"
    torch.save({"state_dict": weights, "hyper_parameters": hyperparameters, "callbacks": callbacks}, path)
    model = SentenceOrderingModel.from_token_classification(str(path), encoder=str(encoder))
    for story in STORIES:
        with torch.no_grad():
            found = model(input_ids=guide_inputs(load_tokenizer(str(encoder)), story)).logits[0]
        torch.testing.assert_close(found, old_scores(folder, story), rtol=0, atol=1e-6)


@pytest.mark.parametrize("is_zip", [True, False])
def test_weights_alone_as_poutyne_saves_them(is_zip: bool, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "old", "bert", RESCUED["bert"], num_labels=1)
    weights = {f"transformer.{key}": value for key, value in old_model(folder).state_dict().items()}
    torch.save(weights, tmp_path / "a", _use_new_zipfile_serialization=is_zip)  # a zip file from torch 1.6 on
    model = SentenceOrderingModel.from_token_classification(str(tmp_path / "a"), encoder=str(folder))
    with torch.no_grad():
        found = model(input_ids=guide_inputs(load_tokenizer(str(folder)), STORIES[0])).logits[0]
    torch.testing.assert_close(found, old_scores(folder, STORIES[0]), rtol=0, atol=1e-6)


def test_code_in_a_checkpoint_of_lightning_does_not_run(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "harm",))

    class Worse:
        def __reduce__(self) -> Any:
            return (os.system, (f"touch {tmp_path / 'harm'}",))

    folder = write_encoder(tmp_path / "old", "bert", RESCUED["bert"], num_labels=1)
    weights = {f"base_model.{key}": value for key, value in old_model(folder).state_dict().items()}
    for harm in (Harmful(), Worse()):
        torch.save({"state_dict": weights, "hyper_parameters": harm}, tmp_path / "harmful.ckpt")
        with suppress(ValueError):
            SentenceOrderingModel.from_token_classification(str(tmp_path / "harmful.ckpt"), encoder=str(folder))
        assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("entries", "encoder", "message"),
    [
        ({"state_dict": {"bert.weight": torch.zeros(2)}}, True, "one head.*it has 0"),
        ({"state_dict": {f"{name}.classifier.weight": torch.zeros(1, 16) for name in "ab"}}, True, "it has 2"),
        ({"state_dict": {"model.classifier.weight": torch.zeros(3, 16)}}, True, "has 3 labels"),
        ({"state_dict": {"model.classifier.weight": torch.zeros(1, 16)}}, True, "no weights for"),
        ([1, 2], True, "it has 0"),
        (None, True, "cannot be read as weights"),
        ({"state_dict": {"model.classifier.weight": torch.zeros(1, 16)}}, False, "pass encoder="),
    ],
)
def test_a_file_that_is_not_such_a_checkpoint_is_refused(
    entries: Any, encoder: bool, message: str, tmp_path: Path
) -> None:
    folder = write_encoder(tmp_path / "encoder", "bert")
    path = tmp_path / "some.ckpt"
    torch.save(entries, path) if entries is not None else path.write_bytes(b"no weights")
    with pytest.raises(ValueError, match=message) as error:
        SentenceOrderingModel.from_token_classification(str(path), encoder=str(folder) if encoder else None)
    assert "\n" not in str(error.value)


def test_a_checkpoint_that_was_trained_from_another_encoder_is_refused(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "old", "bert", RESCUED["bert"], num_labels=1, hidden_size=24)
    torch.save({"state_dict": old_model(folder).state_dict()}, tmp_path / "some.ckpt")
    other = write_encoder(tmp_path / "encoder", "bert")
    with pytest.raises(ValueError, match="it has no weights for bert.embeddings.LayerNorm.bias"):
        SentenceOrderingModel.from_token_classification(str(tmp_path / "some.ckpt"), encoder=str(other))


def test_a_checkpoint_in_half_precision_without_its_tokenizer(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "old", "bert", RESCUED["bert"], num_labels=1)
    tokenizer = load_tokenizer(str(folder))
    half = transformers.AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    model = SentenceOrderingModel.from_token_classification(str(tmp_path / "half"), tokenizer=tokenizer)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.marker_token_id == tokenizer.cls_token_id
    ids = guide_inputs(tokenizer, STORIES[0])
    with torch.no_grad():
        expected = half.float()(input_ids=ids).logits[0, :, 0][ids[0] == tokenizer.cls_token_id]
        torch.testing.assert_close(model(input_ids=ids).logits[0], expected, rtol=0, atol=1e-6)


def test_one_trained_with_a_separator_keeps_it(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, "bert", RESCUED["bert"], num_labels=1)
    tokenizer = load_tokenizer(str(folder))
    model = SentenceOrderingModel.from_token_classification(
        str(folder), separator_token_id=tokenizer.sep_token_id, target_scale="unit"
    )
    assert model.config.target_scale == "unit"
    story_tokenizer = StoryTokenizer(tokenizer, model.config)
    assert story_tokenizer.assemble([[7]]).input_ids == [tokenizer.cls_token_id, 7, tokenizer.sep_token_id]


@pytest.mark.parametrize(
    ("name", "architecture", "labels", "message"),
    [
        ("bert", "BertForTokenClassification", 2, "has 2 labels; a model of the guide for token classification has 1"),
        ("modernbert", "ModernBertForTokenClassification", 1, "one linear layer .*head"),
    ],
)
def test_what_is_no_such_checkpoint_is_refused(
    name: str, architecture: str, labels: int, message: str, tmp_path: Path
) -> None:
    folder = write_encoder(tmp_path, name, architecture, num_labels=labels)
    with pytest.raises(ValueError, match=message) as error:
        SentenceOrderingModel.from_token_classification(str(folder))
    assert "\n" not in str(error.value)


def test_an_encoder_that_was_never_trained_for_it_is_refused(tmp_path: Path) -> None:
    """It has no classifier: transformers would make one up at random."""
    folder = write_encoder(tmp_path, "bert", num_labels=1)
    with pytest.raises(
        ValueError, match="not a checkpoint for token classification: it has no weights for classifier.bias"
    ):
        SentenceOrderingModel.from_token_classification(str(folder))
