"""The loss: against a plain loop over stories, in half precision, under accumulation, never waiting for the device."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from transformers import Trainer, TrainingArguments

from modeling_sentence_ordering import SentenceOrderingModel, StoryTokenizer, objective_loss
from tests.modeling_sentence_ordering.small_encoders import STORIES, MakeModel, make_batch, tokenized

SCALES = ("index", "unit")
Batch = dict[str, Tensor]


def mixed_batch(story_tokenizer: StoryTokenizer) -> Batch:
    """Stories of 4, 3, 2, 5 and 3 sentences: two truncated, the last one to nothing, and one that has no labels."""
    batch = make_batch(story_tokenizer, [*STORIES, STORIES[1]])
    batch["marker_positions"][0, 2:] = -1  # truncated; its labels stay
    batch["marker_positions"][4] = -1
    batch["labels"][2] = -100
    return batch


def loss_in_a_loop(scores: Tensor, batch: Batch, scale: str) -> Tensor:
    """The guide's loss as one would write it first: story by story, sentence by sentence."""
    stories = []
    for row in range(len(scores)):
        length = sum(1 for label in batch["labels"][row].tolist() if label != -100)
        errors = []
        for place in range(batch["labels"].shape[1]):
            position, label = int(batch["marker_positions"][row, place]), int(batch["labels"][row, place])
            if position >= 0 and label != -100:
                target = label if scale == "index" else label / max(length - 1, 1)
                errors.append((scores[row, place] - target) ** 2)
        if errors:
            stories.append(torch.stack(errors).sum())
    return torch.stack(stories).mean()


def gradients(model: torch.nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_loss_and_gradients_equal_a_plain_loop(
    scale: str, dtype: torch.dtype, tolerance: float, make_model: MakeModel
) -> None:
    model, story_tokenizer = make_model("bert", target_scale=scale)
    model = model.to(dtype)
    batch = mixed_batch(story_tokenizer)
    output = model(**batch)
    assert output.loss.dtype == output.logits.dtype == dtype
    ours = gradients(model, output.loss)
    expected = loss_in_a_loop(model(**batch).logits, batch, scale)
    torch.testing.assert_close(output.loss, expected, rtol=tolerance, atol=0)
    theirs = gradients(model, expected)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(
            ours[name], gradient, rtol=tolerance, atol=tolerance * float(gradient.abs().max() + 1), msg=name
        )


@st.composite
def batches_of_scores(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, labels and sentence masks of a batch; any of a story's sentences may be cut off or without label."""
    rows, width = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    scores = torch.tensor(
        draw(st.lists(st.floats(-9, 9), min_size=rows * width, max_size=rows * width)), dtype=torch.float64
    ).view(rows, width)
    labels, mask = torch.full((rows, width), -100), torch.zeros(rows, width, dtype=torch.bool)
    for row in range(rows):
        length = draw(st.integers(0, width))
        labels[row, :length] = torch.tensor(draw(st.permutations(range(length))), dtype=torch.long)
        mask[row, : draw(st.integers(0, length))] = True
    return scores, labels, mask


@settings(deadline=None)
@given(batches_of_scores(), st.sampled_from(SCALES))
def test_objective_equals_a_plain_loop_on_any_batch(batch: tuple[Tensor, Tensor, Tensor], scale: str) -> None:
    scores, labels, mask = batch
    stories = []
    for story_scores, story_labels, story_mask in zip(scores.tolist(), labels.tolist(), mask.tolist(), strict=True):
        longest = max(sum(label != -100 for label in story_labels) - 1, 1) if scale == "unit" else 1
        errors = [
            (score - label / longest) ** 2
            for score, label, there in zip(story_scores, story_labels, story_mask, strict=True)
            if there and label != -100
        ]
        stories += [sum(errors)] if errors else []
    expected = sum(stories) / len(stories) if stories else 0.0
    loss = objective_loss(scores, labels, mask, target_scale=scale)
    assert math.isclose(float(loss), expected, rel_tol=1e-12, abs_tol=1e-300)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_and_loss_are_float32_under_autocast(dtype: torch.dtype, make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert")
    batch = mixed_batch(story_tokenizer)
    seen: list[Tensor] = []
    model.dropout.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.autocast("cpu", dtype=dtype):
        output = model(**batch)
        assert torch.nn.functional.linear(seen[0], model.head.weight).dtype == dtype, "autocast is on"
    assert output.logits.dtype == output.loss.dtype == torch.float32
    exact = torch.nn.functional.linear(seen[0].double(), model.head.weight.double(), model.head.bias.double())
    exact = exact.squeeze(-1).where(output.sentence_mask, -100.0)
    torch.testing.assert_close(output.logits.double(), exact, rtol=1e-5, atol=1e-6)
    loop = loss_in_a_loop(output.logits.double(), batch, "index")
    torch.testing.assert_close(output.loss.double(), loop, rtol=1e-6, atol=0)


def test_objective_is_float32_under_autocast() -> None:
    scores = torch.tensor([[1000.125, 2000.25]], requires_grad=True)
    labels, mask = torch.tensor([[1, 0]]), torch.ones(1, 2, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objective_loss(scores, labels, mask)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(999.125**2 + 2000.25**2, rel=1e-7)
    half = objective_loss(scores.detach().bfloat16(), labels, mask)
    assert half.dtype == torch.float32


@pytest.mark.parametrize("without", ["labels", "sentences"])
@pytest.mark.parametrize("name", ["bert", "cnn", "rnn"])
def test_a_batch_with_no_label_left_has_loss_zero_and_a_gradient(
    name: str, without: str, make_model: MakeModel
) -> None:
    model, story_tokenizer = make_model(name)
    batch = make_batch(story_tokenizer)
    if without == "labels":
        batch["labels"][:] = -100
    else:
        batch["marker_positions"][:] = -1
    loss = model.train()(**batch).loss
    assert loss.item() == 0.0
    found = gradients(model, loss)
    assert found.keys() == {key for key, _ in model.named_parameters()}, "every parameter has one, as DDP needs it"
    assert all(not gradient.any() for gradient in found.values()), "and it is zero, not NaN"


@pytest.mark.parametrize("sizes", [(1, 3, 1), (2, 2, 1), (4, 1)])
def test_unequal_micro_batches_with_num_stories_equal_one_batch(sizes: tuple[int, ...], make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert")
    stories = [*STORIES, STORIES[0][::-1]]
    whole = model(**make_batch(story_tokenizer, stories)).loss
    expected = gradients(model, whole)

    model.zero_grad()
    total, begin = torch.zeros(()), 0
    for size in sizes:
        batch = make_batch(story_tokenizer, stories[begin : begin + size])
        loss = model(**batch, num_stories=len(stories) / len(sizes)).loss / len(sizes)
        loss.backward()
        total, begin = total + loss.detach(), begin + size
    torch.testing.assert_close(total, whole.detach(), rtol=1e-6, atol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5)

    as_tensor = model(**batch, num_stories=torch.tensor(len(stories) / len(sizes))).loss / len(sizes)
    assert torch.equal(as_tensor, loss)


@pytest.mark.parametrize("name", ["bert", "cnn"])
@pytest.mark.parametrize("scale", SCALES)
def test_nothing_waits_for_the_device_when_marker_positions_are_given(
    name: str, scale: str, make_model: MakeModel
) -> None:
    """A fake tensor has no values: whatever asks for one (`.item()`, `if tensor`, `nonzero`) raises."""
    model, story_tokenizer = make_model(name, target_scale=scale)
    model.train()
    batch = mixed_batch(story_tokenizer)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = {key: mode.from_tensor(value) for key, value in batch.items()}
        output = model(**fake)
        output.loss.backward()
        assert output.loss.shape == () and output.logits.shape == batch["labels"].shape
        del fake["marker_positions"]
        with pytest.raises(DataDependentOutputException):
            model(**fake)
    model.zero_grad()


@pytest.mark.parametrize("with_labels", [True, False])
def test_the_model_finds_the_markers_itself(with_labels: bool, make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert")
    if not with_labels:
        story_tokenizer.max_input_tokens = 24
    batch = make_batch(story_tokenizer)
    if not with_labels:
        assert (batch["marker_positions"][3] == -1).any(), "one story is truncated"
        del batch["labels"]
    given = model(**batch)
    positions = batch.pop("marker_positions")
    width = given.logits.shape[1] if with_labels else int((positions >= 0).sum(dim=1).max())
    found = model(**batch)
    assert torch.equal(found.logits, given.logits[:, :width])
    assert torch.equal(found.sentence_mask, given.sentence_mask[:, :width])
    if with_labels:
        assert torch.equal(found.loss, given.loss)


def test_a_marker_in_the_padding_is_no_sentence(make_model: MakeModel) -> None:
    """As where a tokenizer without a padding token is padded with its CLS token."""
    model, story_tokenizer = make_model("bert")
    story_tokenizer.pad_token_id = story_tokenizer.marker_token_id
    batch = make_batch(story_tokenizer)
    positions = batch.pop("marker_positions")
    assert torch.equal(model(**batch).sentence_mask, positions >= 0)


@pytest.mark.parametrize("with_positions", [True, False])
def test_labels_of_another_shape_are_refused(with_positions: bool, make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert")
    batch = make_batch(story_tokenizer)
    if not with_positions:
        del batch["marker_positions"]
    labels = batch.pop("labels")
    for wrong in (labels[:, :-1], labels[:-1], labels[0], batch["input_ids"][:, :2]):
        with pytest.raises(ValueError, match="labels"):
            model(**batch, labels=wrong)


def test_unknown_objectives_are_refused() -> None:
    scores, labels, mask = torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="'mae'; .*mse"):
        objective_loss(scores, labels, mask, objective="mae")


def without_dropout(model: SentenceOrderingModel) -> SentenceOrderingModel:
    for key in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        setattr(model.config.backbone_config, key, 0.0)
    model.config.head_dropout = 0.0
    still = SentenceOrderingModel(model.config)
    still.load_state_dict(model.state_dict())
    return still


def test_trainer_accumulates_to_the_same_model(make_model: MakeModel, tmp_path: Path) -> None:
    """transformers' own Trainer, nothing overridden: four micro-batches of 4 are one batch of 16."""
    original, story_tokenizer = make_model("bert")
    assert SentenceOrderingModel.accepts_loss_kwargs is False
    sentences = [sentence for story in STORIES for sentence in story]
    stories = [[sentences[(7 * start + step) % len(sentences)] for step in range(2 + start % 4)] for start in range(32)]
    rows = [(story, list(range(len(story.marker_positions)))[::-1]) for story in tokenized(story_tokenizer, stories)]
    losses, trained = {}, {}
    for size, steps in ((16, 1), (4, 4)):
        model = without_dropout(original)
        arguments = TrainingArguments(
            output_dir=str(tmp_path / str(size)),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            max_steps=2,
            learning_rate=0.01,
            optim="sgd",
            max_grad_norm=0.0,
            lr_scheduler_type="constant",
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            remove_unused_columns=False,
        )

        def collate(items: list[Any]) -> Batch:
            return story_tokenizer.collate([story for story, _ in items], [labels for _, labels in items])

        trainer = Trainer(model, arguments, data_collator=collate, train_dataset=rows)
        trainer.train()
        losses[size] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        trained[size] = {name: value.detach() for name, value in model.named_parameters()}
    assert len(losses[16]) == 2 and losses[16][0] != losses[16][1]
    assert losses[4] == pytest.approx(losses[16], rel=1e-5)
    for name, value in trained[16].items():
        torch.testing.assert_close(trained[4][name], value, rtol=0, atol=1e-5)
    moved = max(float((trained[16][name] - value.detach()).abs().max()) for name, value in original.named_parameters())
    assert moved > 1e-3, "the two steps did something"
