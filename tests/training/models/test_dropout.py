"""Dropout drawn four values at a time is torch's dropout in all but the time that it takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from modeling_sentence_ordering import SentenceOrderingModel, StoryTokenizer, load_tokenizer
from tests.modeling_sentence_ordering.small_encoders import (
    SCRATCH_ENCODERS,
    TRANSFORMER_ENCODERS,
    make_batch,
    word_tokenizer,
    write_encoder,
)
from training.models.dropout import ATTENTION, FastDropout, dropped, use_fast_dropout

NEARLY_NONE = 1e-7  # less than half of 1/65,536: nothing is dropped, but everything is computed

MakeModel = Callable[[str], tuple[SentenceOrderingModel, dict[str, Tensor]]]


@pytest.fixture(scope="module")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """A small model, the same each time, and a batch for it."""
    root = tmp_path_factory.mktemp("encoders")

    def make(name: str) -> tuple[SentenceOrderingModel, dict[str, Tensor]]:
        scratch = name in SCRATCH_ENCODERS
        encoder = name if scratch else str(root / name)
        if not scratch and not (root / name).exists():
            write_encoder(root / name, name)
        tokenizer: Any = word_tokenizer() if scratch else load_tokenizer(encoder)
        torch.manual_seed(0)
        model = SentenceOrderingModel.from_encoder(
            encoder, tokenizer=tokenizer if scratch else None, initializer_range=0.5
        )
        return model, make_batch(StoryTokenizer(tokenizer, model.config))

    return make


def in_training(model: SentenceOrderingModel, batch: dict[str, Tensor], p: float, seed: int = 0) -> Tensor:
    """The scores of a model in training, with this dropout everywhere."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = p
        for name in ("attention_dropout", "dropout_prob"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, p)
    torch.manual_seed(seed)
    with torch.no_grad():
        logits: Tensor = model.train()(**batch).logits
    model.eval()
    return logits


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_share_that_was_asked_for_is_dropped_and_the_rest_is_scaled(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    count = 400_000
    values = torch.full((count,), 2.0, dtype=dtype)
    found = dropped(values, p)
    assert found.dtype == dtype
    assert set(found.unique().tolist()) == {0.0, (values[:1] * torch.tensor(1 / (1 - p), dtype=dtype)).item()}
    allowed = 4.5 * math.sqrt(p * (1 - p) / (count / 4))
    for place in range(4):  # each of the values that share a draw
        assert abs((found[place::4] == 0).double().mean().item() - p) < allowed


def test_values_that_share_a_draw_are_dropped_independently() -> None:
    torch.manual_seed(0)
    zeros = (dropped(torch.ones(400_000), 0.3).view(-1, 4) == 0).double()
    correlation = torch.corrcoef(zeros.T) - torch.eye(4)
    assert correlation.abs().max() < 4.5 / math.sqrt(len(zeros))
    neighbours = torch.corrcoef(torch.stack([zeros[:-1].flatten(), zeros[1:].flatten()]))[0, 1]
    assert abs(neighbours) < 4.5 / math.sqrt(zeros.numel())


@given(some.lists(some.integers(0, 5), max_size=3), some.floats(0, 1), some.integers(0, 2**32))
def test_any_shape_and_share_keep_their_shape(shape: list[int], p: float, seed: int) -> None:
    torch.manual_seed(seed)
    found = dropped(torch.ones(shape), p)
    assert found.shape == tuple(shape)
    assert ((found == 0) | (found - 1 / (1 - p if p < 1 else 1)).abs().lt(1e-3 / (1 - p if p < 1 else 1))).all()


def test_all_or_nothing() -> None:
    assert torch.equal(dropped(torch.ones(9), 0.0), torch.ones(9))
    assert torch.equal(dropped(torch.ones(9), 1.0), torch.zeros(9))


def test_the_gradient_goes_where_the_values_went() -> None:
    values = torch.ones(1000, requires_grad=True)
    found = dropped(values, 0.4)
    found.sum().backward()
    assert torch.equal(values.grad, found.detach())


def test_the_seed_decides_whatever_the_number_of_threads() -> None:
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            torch.manual_seed(7)
            found.append(dropped(torch.ones(100_003), 0.1))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


def test_nothing_is_dropped_outside_of_training() -> None:
    layer = FastDropout(0.9).eval()
    assert torch.equal(layer(torch.ones(50)), torch.ones(50))
    assert not torch.equal(layer.train()(torch.ones(50)), torch.ones(50))


@pytest.mark.parametrize("name", [*TRANSFORMER_ENCODERS, *SCRATCH_ENCODERS])
def test_all_but_the_dropout_of_an_encoder_is_computed_as_before(name: str, make_model: MakeModel) -> None:
    model, batch = make_model(name)
    with torch.no_grad():
        expected = model(**batch).logits
    use_fast_dropout(model)
    torch.testing.assert_close(in_training(model, batch, NEARLY_NONE), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(in_training(model, batch, 0.5), expected, atol=1e-2)


@pytest.mark.parametrize("name", ["bert", "roberta", "electra", "distilbert", "modernbert", "xlm-roberta"])
def test_attention_drops_as_torch_does(name: str, make_model: MakeModel) -> None:
    """In the mean and in the spread of the scores over many draws, with dropout in attention alone."""
    spread = []
    for fast in (False, True):
        model, batch = make_model(name)
        if fast:
            use_fast_dropout(model)
            assert model.encoder.config._attn_implementation == ATTENTION
        for module in model.modules():
            in_attention = type(module).__name__.endswith("Attention")
            for place, child in module.named_children():
                if isinstance(child, nn.Dropout):
                    child.p = 0.3 if in_attention and place == "dropout" else 0.0
            if in_attention and isinstance(getattr(module, "attention_dropout", None), float):
                module.attention_dropout = 0.3
        model.train()
        torch.manual_seed(0)
        with torch.no_grad():
            found = torch.stack([model(**batch).logits[batch["labels"] >= 0] for _ in range(400)])
        spread.append((found.mean(0), found.std(0)))
    (mean, deviation), (fast_mean, fast_deviation) = spread
    assert deviation.min() > 0
    assert ((fast_mean - mean).abs() / deviation).max() < 4.5 * math.sqrt(2 / 400)
    assert (deviation.mean() / fast_deviation.mean() - 1).abs() < 0.1


def test_what_a_layer_asks_of_attention_besides_is_left_to_transformers() -> None:
    layer: Any = nn.Module()
    layer.is_causal = False
    query, key, value = torch.randn(3, 2, 4, 5, 8)
    bias = torch.randn(2, 4, 5, 5)
    found, expected = (
        ALL_ATTENTION_FUNCTIONS[name](layer, query, key, value, None, dropout=NEARLY_NONE, position_bias=bias)[0]
        for name in (ATTENTION, "sdpa")
    )
    torch.testing.assert_close(found, expected)
    plain = ALL_ATTENTION_FUNCTIONS[ATTENTION](layer, query, key, value, None, dropout=NEARLY_NONE)[0]
    assert not torch.allclose(plain, expected)


def test_a_saved_model_knows_nothing_of_it(make_model: MakeModel, tmp_path: Path) -> None:
    saved = []
    for fast in (False, True):
        model, _ = make_model("bert")
        if fast:
            use_fast_dropout(model)
        folder = tmp_path / str(fast)
        model.save_pretrained(folder)
        saved.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert saved[0] == saved[1]
    loaded = SentenceOrderingModel.from_pretrained(tmp_path / "True")
    assert loaded.encoder.config._attn_implementation == "sdpa"
    assert not any(isinstance(module, FastDropout) for module in loaded.modules())
