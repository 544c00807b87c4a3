"""The consistency term: two shuffles of a story are made to agree about its pairs."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling_sentence_ordering import (
    DataCollatorForSentenceOrdering,
    SentenceOrderingConfig,
    SentenceOrderingModel,
    StoryTokenizer,
    objective_loss,
)
from modeling_sentence_ordering.objectives_sentence_ordering import pair_consistency
from tests.modeling_sentence_ordering.small_encoders import STORIES, MakeModel

# Two stories, each in two shuffles; the second story has two sentences and padding.
LABELS = torch.tensor([[2, 0, 1], [1, 2, 0], [0, 1, -100], [1, 0, -100]])
VALID = LABELS != -100
TWINS = torch.tensor([False, True, False, True])


def by_hand(pair_logits: torch.Tensor, row: int) -> float:
    """The divergences of a row and the one before it, pair by pair, by the definition of the divergence."""
    index = [{int(label): i for i, label in enumerate(LABELS[r]) if label >= 0} for r in (row - 1, row)]
    total, count = 0.0, len(index[0])
    for earlier, later in combinations(range(count), 2):
        p, q = (
            float(torch.sigmoid(pair_logits[r, at[earlier], at[later]]))
            for r, at in zip((row - 1, row), index, strict=True)
        )
        for a, b in ((p, q), (q, p)):
            total += 0.5 * (a * math.log(a / b) + (1 - a) * math.log((1 - a) / (1 - b)))
    return total / (count - 1)


def antisymmetric(seed: int) -> torch.Tensor:
    half = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(seed))
    return half - half.transpose(1, 2)


def test_the_term_is_the_mean_of_both_divergences_of_each_pair() -> None:
    pair_logits = antisymmetric(1)
    term = pair_consistency(pair_logits, LABELS, VALID, TWINS)
    assert term.tolist() == pytest.approx([0, by_hand(pair_logits, 1), 0, by_hand(pair_logits, 3)], rel=1e-5)
    assert min(term[1], term[3]) > 0.005


def test_rows_that_agree_and_padding_add_nothing() -> None:
    scores = torch.tensor([[3.0, 1, 2], [2, 3, 1], [5, 7, 99], [7, 5, -99]])
    pair_logits = scores.unsqueeze(1) - scores.unsqueeze(2)
    pair_logits[2:, 2, :] = math.nan
    pair_logits.requires_grad_()
    term = pair_consistency(pair_logits, LABELS, VALID, TWINS)
    assert term.tolist() == pytest.approx([0, 0, 0, 0], abs=1e-6)
    term.sum().backward()
    assert pair_logits.grad.isfinite().all()


@pytest.mark.parametrize("head", ["score", "pairs"])
def test_the_loss_has_the_term_once_for_each_story(head: str) -> None:
    scores = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
    logits = antisymmetric(3) if head == "pairs" else scores.unsqueeze(1) - scores.unsqueeze(2)
    options: dict[str, Any] = {"objective": "pairwise", "pair_logits": logits if head == "pairs" else None}
    plain = objective_loss(scores, LABELS, VALID, **options)
    loss = objective_loss(scores, LABELS, VALID, **options, consistency=0.7, is_twin=TWINS)
    assert float(loss - plain) == pytest.approx(0.7 * (by_hand(logits, 1) + by_hand(logits, 3)) / 2, rel=1e-4)
    assert objective_loss(scores, LABELS, VALID, **options, consistency=0.7) == plain
    halves = [
        objective_loss(
            scores[rows],
            LABELS[rows],
            VALID[rows],
            objective="pairwise",
            pair_logits=logits[rows] if head == "pairs" else None,
            consistency=0.7,
            is_twin=TWINS[rows],
            num_stories=2.0,
        )
        for rows in (slice(0, 2), slice(2, 4))
    ]
    assert float(sum(halves) / 2) == pytest.approx(float(loss), rel=1e-5)


def test_the_collator_shows_each_story_in_two_shuffles(make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert", head="pairs", objective="pairwise", consistency=1.0)
    rows = [{"sentences": story} for story in STORIES]
    collator = DataCollatorForSentenceOrdering(story_tokenizer.tokenizer, model.config, shuffle=True)
    batch = collator(rows)
    assert batch["is_twin"].tolist() == [False, True] * len(STORIES)
    for story, first, second in zip(STORIES, batch["labels"][::2], batch["labels"][1::2], strict=True):
        assert sorted(first[first >= 0].tolist()) == sorted(second[second >= 0].tolist()) == list(range(len(story)))
    assert not torch.equal(batch["labels"][::2], batch["labels"][1::2])
    shown = read_back(batch, story_tokenizer)
    for story, rows_of_story in zip(STORIES, zip(shown[::2], shown[1::2], strict=True), strict=True):
        ids = story_tokenizer.tokenize(story)
        assert [sorted(row) for row in rows_of_story] == [sorted(ids)] * 2
    assert "is_twin" not in DataCollatorForSentenceOrdering(story_tokenizer.tokenizer, model.config)(
        [{"sentences": story, "labels": list(range(len(story)))} for story in STORIES]
    )


def read_back(batch: dict[str, torch.Tensor], story_tokenizer: StoryTokenizer) -> list[list[list[int]]]:
    rows = []
    for ids, mask, positions in zip(
        batch["input_ids"], batch["attention_mask"], batch["marker_positions"], strict=True
    ):
        end = int(mask.sum()) - (story_tokenizer.separator_token_id is not None)
        begins = [int(position) for position in positions if position >= 0]
        rows.append([ids[a + 1 : b].tolist() for a, b in zip(begins, [*begins[1:], end], strict=True)])
    return rows


def test_the_term_counts_in_training_only_and_reaches_the_encoder(make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert", head="pairs", objective="pairwise", consistency=50.0)
    batch = DataCollatorForSentenceOrdering(story_tokenizer.tokenizer, model.config, shuffle=True)(
        [{"sentences": story} for story in STORIES]
    )
    plain = {name: value for name, value in batch.items() if name != "is_twin"}
    assert model.eval()(**batch).loss == model(**plain).loss
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with_term, without = model(**batch).loss, model(**plain).loss
    assert with_term > without + 0.1
    gradients = torch.autograd.grad(with_term - without, model.encoder.get_input_embeddings().weight)
    assert gradients[0].abs().sum() > 0


@pytest.mark.parametrize("fields", [{"consistency": -1.0}, {"consistency": 0.5, "objective": "mse"}])
def test_a_config_that_cannot_be_trained_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="consistency"):
        SentenceOrderingConfig(**{"objective": "pairwise", **fields})


def test_it_travels_with_the_model(make_model: MakeModel, tmp_path: Path) -> None:
    model, _ = make_model("bert", head="pairs", objective="pairwise", consistency=0.5)
    model.save_pretrained(tmp_path)
    assert SentenceOrderingModel.from_pretrained(tmp_path).config.consistency == 0.5
