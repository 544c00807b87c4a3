"""Checkpoints trained the way of the 2021 guide, `…ForTokenClassification` with one label, become models of ours."""

from __future__ import annotations

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


def guide_inputs(tokenizer: Any, story: list[str]) -> Tensor:
    """`[CLS] sentence 1 [CLS] sentence 2 …`, one text, as the guide's data set has it."""
    text = " ".join(f"{tokenizer.cls_token} {sentence}" for sentence in story)
    ids: Tensor = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    return ids


def old_scores(folder: Path, story: list[str]) -> Tensor:
    """The logits at the markers, as the guide reads them."""
    old = transformers.AutoModelForTokenClassification.from_pretrained(folder)
    tokenizer = load_tokenizer(str(folder))
    ids = guide_inputs(tokenizer, story)
    with torch.no_grad():
        logits: Tensor = old(input_ids=ids).logits[0, :, 0]
    return logits[ids[0] == tokenizer.cls_token_id]


@pytest.mark.parametrize("name", RESCUED)
def test_scores_are_those_of_the_old_model(name: str, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "old", name, RESCUED[name], num_labels=1)
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
        ("bert", "BertForTokenClassification", 2, "has 2 labels; a sentence ordering model of the guide has one"),
        ("modernbert", "ModernBertForTokenClassification", 1, "is more than one linear layer .*head"),
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
        ValueError, match="no checkpoint for token classification: it has no weights for classifier.bias"
    ):
        SentenceOrderingModel.from_token_classification(str(folder))
