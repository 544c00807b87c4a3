"""The pair head and the context layers: what they compute, whatever the input order and padding, and saving them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PrinterCallback, Trainer, TrainingArguments

from modeling_sentence_ordering import (
    SentenceOrderingConfig,
    SentenceOrderingModel,
    SentenceOrderingPipeline,
    StoryTokenizer,
    best_order,
    in_order,
    objective_loss,
)
from modeling_sentence_ordering.modeling_sentence_ordering import ContextLayer, PairHead
from tests.modeling_sentence_ordering.small_encoders import STORIES, MakeModel, make_batch

PAIRS = {"head": "pairs", "objective": "pairwise", "pair_size": 6}
CONTEXT = {**PAIRS, "context_layers": 2}


@pytest.fixture(scope="module")
def model_and_tokenizer(make_model: MakeModel) -> tuple[SentenceOrderingModel, StoryTokenizer]:
    return make_model("bert", confidence_temperature=0.5, **CONTEXT)


def test_a_logit_is_what_the_formula_says() -> None:
    torch.manual_seed(0)
    head, vectors = PairHead(5, 3), torch.randn(2, 4, 5)
    score, query, key = head.score(vectors), head.query(vectors), head.key(vectors)
    logits = head(vectors)
    for b in range(2):
        for i in range(4):
            for j in range(4):
                bilinear = query[b, i] @ key[b, j] - query[b, j] @ key[b, i]
                expected = score[b, j, 0] - score[b, i, 0] + bilinear / 3**0.5
                assert float(logits[b, i, j]) == pytest.approx(float(expected), abs=1e-5)


def test_outputs_are_antisymmetric_and_zero_where_a_sentence_is_missing(
    model_and_tokenizer: tuple[SentenceOrderingModel, StoryTokenizer],
) -> None:
    model, story_tokenizer = model_and_tokenizer
    with torch.no_grad():
        output = model(**make_batch(story_tokenizer))
    assert output.pair_logits.shape == (len(STORIES), 5, 5) and output.pair_logits.dtype == torch.float32
    assert torch.equal(output.pair_logits, -output.pair_logits.transpose(1, 2))
    both = output.sentence_mask.unsqueeze(1) & output.sentence_mask.unsqueeze(2)
    off_diagonal = both & ~torch.eye(5, dtype=torch.bool)
    assert torch.equal(output.pair_logits != 0, off_diagonal)
    for logits, pairs, story in zip(output.logits, output.pair_logits, STORIES, strict=True):
        count = len(story)
        assert torch.allclose(logits[:count], -pairs[:count, :count].mean(dim=1), atol=1e-6)
        assert (logits[count:] == -100).all()


def test_a_plain_head_has_no_pair_logits_and_the_same_weights_as_before(make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert")
    assert model(**make_batch(story_tokenizer)).pair_logits is None
    own = {name for name in model.state_dict() if not name.startswith("encoder.")}
    assert own == {"head.weight", "head.bias"}


@pytest.mark.parametrize("layer", [True, False])
def test_permuted_sentences_give_permuted_results(layer: bool) -> None:
    torch.manual_seed(0)
    context, head = ContextLayer(128, 0.1).eval(), PairHead(128, 16)
    vectors, permutation = torch.randn(3, 6, 128), torch.tensor([4, 0, 5, 2, 1, 3])
    mask = torch.arange(6) < torch.tensor([[6], [4], [0]])

    def judged(vectors: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return head(context(vectors, mask) if layer else vectors)

    expected = judged(vectors, mask)[:, permutation][:, :, permutation]
    found = judged(vectors[:, permutation], mask[:, permutation])
    assert torch.allclose(found, expected, atol=1e-4) and found.isfinite().all()


def test_missing_sentences_are_not_attended_to() -> None:
    torch.manual_seed(0)
    context = ContextLayer(16, 0.1).eval()
    vectors, mask = torch.randn(2, 5, 16), torch.arange(5) < torch.tensor([[5], [3]])
    changed = torch.where(mask.unsqueeze(2), vectors, torch.randn(2, 5, 16))
    assert torch.equal(context(vectors, mask)[mask], context(changed, mask)[mask])
    alone = context(vectors[1:, :3], mask[1:, :3])
    assert torch.allclose(alone[0], context(vectors, mask)[1, :3], atol=1e-5)
    others = torch.cat([vectors[:, :1], torch.randn(2, 4, 16)], dim=1)
    assert not torch.allclose(context(others, mask)[:, 0], context(vectors, mask)[:, 0], atol=1e-3), "context counts"


@pytest.mark.parametrize("name", ["bert", "cnn", "rnn"])
def test_a_story_gives_the_same_beside_longer_ones(name: str, make_model: MakeModel) -> None:
    model, story_tokenizer = make_model(name, **{**CONTEXT, "initializer_range": 0.1})
    with torch.no_grad():
        together = model(**make_batch(story_tokenizer))
        for row, story in enumerate(STORIES):
            alone = model(**make_batch(story_tokenizer, [story]))
            count = len(story)
            torch.testing.assert_close(
                alone.pair_logits[0], together.pair_logits[row, :count, :count], rtol=1e-4, atol=1e-4
            )
            torch.testing.assert_close(alone.logits[0], together.logits[row, :count], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("objective", ["pairwise", "listmle", "position_listmle"])
@pytest.mark.parametrize(
    "fields", [PAIRS, CONTEXT, {"context_layers": 1}], ids=["pairs", "pairs in context", "context"]
)
def test_a_gradient_reaches_every_weight(objective: str, fields: dict[str, Any], make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("cnn", **{**fields, "objective": objective})
    model(**make_batch(story_tokenizer)).loss.backward()
    never = {"head.bias"}  # in a difference of scores it cancels out
    # What is added to all keys changes no attention weight.
    never |= {name for name, _ in model.named_parameters() if name.endswith(".key.bias")}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert name in never or parameter.grad.any(), name


def test_the_loss_is_the_logistic_loss_of_the_pairs() -> None:
    labels = torch.tensor([[2, 0, 1, -100], [1, 0, -100, -100]])
    mask = labels >= 0
    logits = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = logits - logits.transpose(1, 2)
    expected = 0.0
    for b, count in enumerate((3, 2)):
        pairs = [(i, j) for i in range(count) for j in range(count) if labels[b, i] < labels[b, j]]
        expected -= sum(float(torch.nn.functional.logsigmoid(logits[b, i, j])) for i, j in pairs) / (count - 1)
    loss = objective_loss(torch.zeros(2, 4), labels, mask, objective="pairwise", pair_logits=logits)
    assert float(loss) == pytest.approx(expected / 2, rel=1e-6)


def test_logits_that_are_differences_of_scores_have_the_loss_of_the_scores() -> None:
    scores, labels = torch.randn(3, 5), torch.stack([torch.randperm(5) for _ in range(3)])
    pairs = scores.unsqueeze(1) - scores.unsqueeze(2)
    mask = torch.ones(3, 5, dtype=torch.bool)
    one = objective_loss(scores, labels, mask, objective="pairwise")
    assert float(objective_loss(scores, labels, mask, objective="pairwise", pair_logits=pairs)) == pytest.approx(
        float(one)
    )


def test_training_learns_which_way_round(make_model: MakeModel) -> None:
    """A sign turned round anywhere between loss, logits, scores and decoding gives the opposite order."""
    model, story_tokenizer = make_model("cnn", **{**CONTEXT, "initializer_range": 0.1, "head_dropout": 0.0})
    batch = make_batch(story_tokenizer)  # the true order is the reverse of the input
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        output = model(**batch)
    for logits, pairs, story in zip(output.logits, output.pair_logits, STORIES, strict=True):
        reverse = list(range(len(story)))[::-1]
        assert logits[: len(story)].argsort().tolist() == reverse
        assert best_order(pairs[: len(story), : len(story)]) == reverse
        answer = in_order(story, logits.tolist(), pair_logits=pairs[: len(story), : len(story)], temperature=1.0)
        assert answer["sentences"] == story[::-1] and min(answer["confidence"]) > 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_outputs_are_float32_in_half_precision(dtype: torch.dtype, make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert", **CONTEXT)
    batch = make_batch(story_tokenizer)
    with torch.no_grad():
        exact = model(**batch).pair_logits
        with torch.autocast("cpu", torch.bfloat16):
            under_autocast = model(**batch)
        half = model.to(dtype)(**batch)
    for output in (under_autocast, half):
        assert output.logits.dtype == output.pair_logits.dtype == output.loss.dtype == torch.float32
        error = (output.pair_logits - exact).norm() / exact.norm()
        assert error < 0.3, "as near as half precision of the encoder allows"
        assert len(output.pair_logits.unique()) > 30, "not rounded to half precision"


def test_a_saved_model_is_the_same_model(tmp_path: Path, make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert", **CONTEXT)
    model.save_pretrained(tmp_path)
    again, report = SentenceOrderingModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert (again.config.head, again.config.pair_size, again.config.context_layers) == ("pairs", 6, 2)
    batch = make_batch(story_tokenizer)
    with torch.no_grad():
        assert torch.equal(again(**batch).pair_logits, model(**batch).pair_logits)


def test_initial_weights_are_those_of_the_seed_and_small(make_model: MakeModel) -> None:
    one, other = (make_model("bert", **{**CONTEXT, "initializer_range": 0.02})[0] for _ in range(2))
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)), name
        if name.startswith(("head.", "context.")) and parameter.dim() == 2:
            assert 0.01 < float(parameter.std()) < 0.03, name


@pytest.mark.parametrize(
    "fields", [{"head": "pair"}, {"pair_size": 0}, {"pair_size": 1.5}, {"context_layers": -1}, {"context_layers": True}]
)
def test_impossible_fields_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        SentenceOrderingConfig(**fields)


def test_mse_cannot_train_pairs(make_model: MakeModel) -> None:
    with pytest.raises(ValueError, match=r"'mse'.*'pairs'"):
        make_model("cnn", head="pairs")


def test_the_pipeline_averages_logits_over_arrangements(
    model_and_tokenizer: tuple[SentenceOrderingModel, StoryTokenizer],
) -> None:
    model, story_tokenizer = model_and_tokenizer
    order = SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer, device="cpu")
    story = STORIES[3]
    for count in (1, 4):
        answer = order(story, num_permutations=count)
        assert sorted(answer["order"]) == list(range(len(story))) and len(answer["confidence"]) == len(story) - 1
        assert all(0.5 <= value <= 1 for value in answer["confidence"])
        turned = order(story[::-1], num_permutations=count)
        assert turned["sentences"] == answer["sentences"]
        assert turned["confidence"] == pytest.approx(answer["confidence"])
        assert turned["scores"][::-1] == pytest.approx(answer["scores"])
    fixed = order(story, first=answer["order"][-1], before=[(answer["order"][2], answer["order"][0])])
    assert fixed["order"][0] == answer["order"][-1]
    assert fixed["order"].index(answer["order"][2]) < fixed["order"].index(answer["order"][0])


def test_a_long_text_is_decoded_from_the_pairs_that_met(make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert", max_input_tokens=48, confidence_temperature=0.5, **PAIRS)
    order = SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer, device="cpu")
    text = [f"{sentence} {number}" for number in range(2) for story in STORIES for sentence in story][:20]
    text += [text[3]]
    answer = order(text)
    assert sorted(answer["order"]) == list(range(len(text)))
    assert answer["order"].index(3) < answer["order"].index(20), "of identical sentences the first in the input"
    turned = order(text[::-1])
    assert turned["sentences"] == answer["sentences"]
    fixed = order(text, first=answer["order"][-1], last=answer["order"][0])
    assert (fixed["order"][0], fixed["order"][-1]) == (answer["order"][-1], answer["order"][0])


def test_a_very_long_text_is_sorted_by_its_scores(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modeling_sentence_ordering.pipeline_sentence_ordering.MOST_PAIRS", 100)
    model, story_tokenizer = make_model("bert", max_input_tokens=48, **PAIRS)
    order = SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer, device="cpu")
    answer = order([sentence for story in STORIES for sentence in story])
    assert answer["order"] == sorted(answer["order"], key=lambda i: answer["scores"][i])


def test_metrics_of_plain_trainer_are_those_of_the_decoded_order(make_model: MakeModel, tmp_path: Path) -> None:
    """Stories of unequal length, in batches of unequal width: nothing depends on the batch."""
    model, story_tokenizer = make_model("bert", **{**CONTEXT, "initializer_range": 0.3})
    rows: list[Any] = [
        {"sentences": story, "labels": random.Random(seed).sample(range(len(story)), len(story))}
        for seed, story in enumerate(STORIES * 5)
    ]
    found = []
    for size in (1, 3, 20):
        arguments = TrainingArguments(
            str(tmp_path), per_device_eval_batch_size=size, remove_unused_columns=False, report_to="none", use_cpu=True
        )
        collator = model.data_collator(story_tokenizer.tokenizer)
        trainer = Trainer(model, arguments, data_collator=collator, compute_metrics=model.compute_metrics)
        trainer.remove_callback(PrinterCallback)
        found.append(trainer.evaluate(rows))
    right, different = 0, 0
    for row in rows:
        with torch.no_grad():
            output = model(**collator([{"sentences": row["sentences"]}]))
        order = best_order(output.pair_logits[0])
        right += [row["labels"][i] for i in order] == sorted(row["labels"])
        different += order != output.logits[0].argsort().tolist()
    assert different, "or the scores would do as well"
    for metrics in found:
        assert metrics["eval_pmr"] == pytest.approx(right / len(rows))
        for name in ("accuracy", "kendalls_tau", "loss", "std_logits"):
            assert metrics[f"eval_{name}"] == pytest.approx(found[0][f"eval_{name}"], rel=1e-4)


def test_adapters_train_the_layers_of_the_pair_head(make_model: MakeModel) -> None:
    peft = pytest.importorskip("peft")
    model, story_tokenizer = make_model("bert", **{**CONTEXT, "initializer_range": 0.1})
    batch = make_batch(story_tokenizer)
    with torch.no_grad():
        before = model(**batch).pair_logits
    targets = {"target_modules": ["query", "value"], "modules_to_save": ["head"], "r": 2}
    adapted = peft.get_peft_model(model, peft.LoraConfig(**targets))
    adapted(**batch).loss.backward()
    reached = {name for name, weight in adapted.named_parameters() if weight.grad is not None and weight.grad.any()}
    for part in ("head.modules_to_save.default.query", "head.modules_to_save.default.score", "context.0.query.lora_B"):
        assert any(part in name for name in reached), part
    with torch.no_grad():
        for weight in adapted.base_model.model.head.modules_to_save["default"].parameters():
            weight.neg_()
        adapted.eval()
        assert not torch.allclose(adapted(**batch).pair_logits, before), "the wrapped head is the one that is called"
