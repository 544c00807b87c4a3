"""What people do with a Hub model: the scores stay those of the plain model, within a stated tolerance."""

from __future__ import annotations

import torch
from transformers import pipeline

from modeling_sentence_ordering import SentenceOrderingModel, SentenceOrderingPipeline, StoryTokenizer
from tests.modeling_sentence_ordering.small_encoders import STORIES, MakeModel, make_batch


def scores(model: torch.nn.Module, story_tokenizer: StoryTokenizer) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(**make_batch(story_tokenizer)).logits
    return logits


def test_a_pipeline_from_a_loaded_model(make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert")
    order = pipeline("sentence-ordering", model=model, tokenizer=story_tokenizer.tokenizer)
    assert type(order) is SentenceOrderingPipeline
    expected = SentenceOrderingPipeline(model=model, tokenizer=story_tokenizer.tokenizer)(STORIES)
    assert order(STORIES) == expected


def test_hooks_on_the_head_fire_and_may_change_scores(make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert")
    plain = scores(model, story_tokenizer)
    model.head.register_forward_hook(lambda module, inputs, output: output + 1)
    assert torch.allclose(scores(model, story_tokenizer)[:, :2], plain[:, :2] + 1)


def test_half_precision_weights_still_give_scores_that_do_not_tie(make_model: MakeModel) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        model, story_tokenizer = make_model("bert")
        plain = scores(model, story_tokenizer)
        half: SentenceOrderingModel = model.to(dtype)
        found = scores(half, story_tokenizer)
        assert found.dtype == torch.float32
        assert not torch.equal(found, found.to(dtype).float()), "rounded to half precision"
        assert torch.allclose(found, plain, atol=0.1)
