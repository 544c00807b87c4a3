"""Where sentences and labels are in the input, when the caller does not say: found, or refused, never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import pipeline

from modeling_sentence_ordering import SentenceOrderingModel
from tests.modeling_sentence_ordering.small_encoders import STORIES, GetFolder, MakeModel, make_batch


def test_labels_at_markers_mean_the_same_as_labels_of_sentences(make_model: MakeModel) -> None:
    """As the 2021 guide passes them: one label a token, -100 elsewhere."""
    model, story_tokenizer = make_model("bert")
    batch = make_batch(story_tokenizer)
    expected = model(**batch)
    positions, labels = batch.pop("marker_positions"), batch.pop("labels")
    per_token = torch.full_like(batch["input_ids"], -100)
    for row, places, values in zip(per_token, positions, labels, strict=True):
        row[places[places >= 0]] = values[places >= 0]
    for given in ({}, {"marker_positions": positions}):
        found = model(**batch, **given, labels=per_token)
        assert torch.equal(found.loss, expected.loss)
        assert torch.equal(found.logits, expected.logits)


@pytest.mark.parametrize("labels", [[[2, 0, 1]], [[0, 1, -100]], [[2, 0, 1, 3, 4]]], ids=str)
def test_a_row_with_more_or_fewer_labels_than_markers_is_refused(
    labels: list[list[int]], make_model: MakeModel
) -> None:
    model, story_tokenizer = make_model("bert")
    batch = make_batch(story_tokenizer, STORIES[:1])
    with pytest.raises(ValueError, match="story 0 of the batch has 4 sentence markers.*original index"):
        model(input_ids=batch["input_ids"], labels=torch.tensor(labels))


def test_labels_for_a_text_without_markers_are_refused(make_model: MakeModel) -> None:
    """As in the guide's columns with another encoder's marker: the loss was 0, and so was the gradient."""
    model, story_tokenizer = make_model("roberta")
    ids = story_tokenizer.tokenizer("[CLS] Tom slept. [CLS] He woke up.", add_special_tokens=False)["input_ids"]
    with pytest.raises(ValueError, match="story 0 of the batch has 0 sentence markers"):
        model(input_ids=torch.tensor([ids]), labels=torch.tensor([[1, 0]]))
    with pytest.raises(ValueError, match="no row has more than one sentence marker"):
        model(input_ids=torch.tensor([ids]))


def test_labels_beside_the_markers_are_refused(make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert")
    batch = make_batch(story_tokenizer, STORIES[:1])
    per_token = torch.full_like(batch["input_ids"], -100)
    per_token[0, batch["marker_positions"][0] + 1] = torch.arange(4)
    with pytest.raises(ValueError, match="the index at each marker"):
        model(input_ids=batch["input_ids"], labels=per_token)


def test_a_story_without_labels_may_be_among_others(make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert")
    batch = make_batch(story_tokenizer)
    del batch["marker_positions"]
    batch["labels"][1] = -100
    model(**batch).loss.backward()
    assert model.head.weight.grad.isfinite().all() and model.head.weight.grad.any()


@pytest.mark.parametrize("name", ["bert", "roberta", "cnn", "rnn"])
def test_embeddings_instead_of_ids(name: str, make_model: MakeModel) -> None:
    model, story_tokenizer = make_model(name)
    batch = make_batch(story_tokenizer)
    expected = model(**batch)
    embeds = model.get_input_embeddings()(batch.pop("input_ids"))
    assert torch.allclose(model(inputs_embeds=embeds, **batch).logits, expected.logits, atol=1e-6)
    # A prompt of three vectors before them, as PEFT puts it there: the given positions are off by three.
    prompt = torch.randn(len(embeds), 3, embeds.shape[2])
    longer = torch.cat([prompt, embeds], dim=1)
    mask = torch.nn.functional.pad(batch["attention_mask"], (3, 0), value=1)
    right = torch.where(batch["marker_positions"] >= 0, batch["marker_positions"] + 3, -1)
    shifted = model(inputs_embeds=longer, attention_mask=mask, marker_positions=right)
    off = model(inputs_embeds=longer, attention_mask=mask, marker_positions=batch["marker_positions"])
    assert torch.equal(shifted.logits, off.logits)
    with pytest.raises(ValueError, match="input_ids or inputs_embeds"):
        model()


def test_positions_hold_for_embeddings_that_are_no_tokens(make_model: MakeModel) -> None:
    """As gradients are integrated along a path between embeddings."""
    model, story_tokenizer = make_model("bert")
    batch = make_batch(story_tokenizer)
    embeds = 0.5 * model.get_input_embeddings()(batch.pop("input_ids"))
    output = model(inputs_embeds=embeds, **batch)
    assert torch.equal(output.sentence_mask, batch["marker_positions"] >= 0)


def test_a_feature_extraction_pipeline_is_refused(model_folder: GetFolder) -> None:
    """It returned the score of the one marker as if it were a feature."""
    extract = pipeline("feature-extraction", model=str(model_folder("bert")))
    with pytest.raises(ValueError, match="For token features call model.encoder"):
        extract("Tom slept.")


@pytest.mark.parametrize("name", ["a-name", Path("a-folder")])
def test_a_name_in_place_of_a_config_is_told_what_to_call(name: object) -> None:
    with pytest.raises(TypeError, match="from_encoder.*from_pretrained"):
        SentenceOrderingModel(name)  # type: ignore[arg-type]


def test_outputs_that_the_config_asks_for(make_model: MakeModel, model_folder: GetFolder) -> None:
    _, story_tokenizer = make_model("bert")
    batch = make_batch(story_tokenizer)
    folder = model_folder("bert")
    model = SentenceOrderingModel.from_pretrained(
        folder, attn_implementation="eager", output_hidden_states=True, output_attentions=True
    )
    output = model(**batch)
    assert len(output.hidden_states) == 3 and len(output.attentions) == 2
    assert output.attentions[0].shape == (4, 2, *[batch["input_ids"].shape[1]] * 2)
    assert model(**batch, output_hidden_states=False).hidden_states is None
    plain = SentenceOrderingModel.from_pretrained(folder)
    assert plain(**batch).hidden_states is None and plain(**batch).attentions is None
    with pytest.raises(ValueError, match="attn_implementation=.eager"):
        plain(**batch, output_attentions=True)


@pytest.mark.parametrize("name", ["cnn", "rnn"])
def test_the_small_encoders_have_hidden_states_and_no_attentions(name: str, make_model: MakeModel) -> None:
    model, story_tokenizer = make_model(name)
    batch = make_batch(story_tokenizer)
    assert len(model(**batch, output_hidden_states=True).hidden_states) == 2
    with pytest.raises(ValueError, match="no attention weights"):
        model(**batch, output_attentions=True)
