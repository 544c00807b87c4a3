"""Every kind of encoder in a model: gradients, saving and loading, padding, limits, precision, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoModel
from transformers.modeling_layers import GradientCheckpointingLayer

from modeling_sentence_ordering import (
    SentenceOrderingModel,
    SentenceOrderingOutput,
    StoryTokenizer,
    load_tokenizer,
    save_tokenizer,
)
from tests.modeling_sentence_ordering.small_encoders import (
    ENCODERS,
    SIZE,
    STORIES,
    TRANSFORMER_ENCODERS,
    GetFolder,
    MakeModel,
    make_batch,
    tokenized,
    word_tokenizer,
    write_encoder,
)
from training.models.encoders import checkpoint_activations

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "cnn": ("cnn", {}),
    "cnn of one token": ("cnn", {"filter_size": 1, "num_filters": 7, "embedding_dim": 5}),
    "cnn of seven tokens": ("cnn", {"filter_size": 7, "num_filters": 20}),
    "gru": ("rnn", {}),
    "gru from left to right": ("rnn", {"bidirectional": False}),
    "lstm of two layers": ("rnn", {"cell": "lstm", "num_layers": 2, "hidden_size": 10}),
    "rnn with relu": ("rnn", {"cell": "rnn", "nonlinearity": "relu"}),
    "bert read at its maximum": ("bert", {"reading": "max"}),
    "roberta read at the last token": ("roberta", {"reading": "last"}),
    "no-cls read at its maximum": ("no-cls", {"reading": "max"}),
    "bert read at marker and mean": ("bert", {"reading": "marker_and_mean"}),
    "no-cls read at marker and mean": ("no-cls", {"reading": "marker_and_mean"}),
    "rnn from left to right": ("rnn", {"cell": "rnn", "bidirectional": False, "embedding_dim": 6}),
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {**{name: (name, {}) for name in ENCODERS}, **VARIANTS}


def scores(model: SentenceOrderingModel, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        output = model(**batch)
    assert output.logits.shape == batch["marker_positions"].shape
    logits: Tensor = output.logits
    return logits


@pytest.mark.parametrize("name", MODELS)
def test_forward_backward_save_and_load(name: str, make_model: MakeModel, tmp_path: Path) -> None:
    encoder, fields = MODELS[name]
    model, story_tokenizer = make_model(encoder, **fields)
    assert not model.training
    batch = make_batch(story_tokenizer)
    before = model(**batch)
    assert isinstance(before, SentenceOrderingOutput)
    assert before.logits.dtype == torch.float32
    assert before.logits[before.sentence_mask].unique().numel() == sum(map(len, STORIES)), "sentences are told apart"
    assert before.sentence_mask.sum(dim=1).tolist() == [len(story) for story in STORIES]
    assert (before.logits[~before.sentence_mask] == -100).all(), "as Trainer pads predictions"

    model.train()  # with dropout: nothing that it scales may become infinite
    model(**batch).loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"no gradient reaches {parameter_name}"
        assert parameter.grad.isfinite().all(), parameter_name
    unreached = {key for key, value in model.named_parameters() if not value.grad.any()}
    # A key's bias moves all attention logits of a row alike, which softmax does not see; nor are all types used.
    assert not {key for key in unreached if not key.endswith(("key.bias", "k_lin.bias", "k.bias", "key_proj.bias"))}

    model.eval()
    model.save_pretrained(tmp_path)
    save_tokenizer(story_tokenizer.tokenizer, tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    again = SentenceOrderingModel.from_pretrained(tmp_path)
    again_tokenizer = StoryTokenizer(load_tokenizer(str(tmp_path)), again.config)
    again_batch = make_batch(again_tokenizer)
    assert all(torch.equal(batch[key], again_batch[key]) for key in batch)
    torch.testing.assert_close(scores(again, again_batch), before.logits.detach(), rtol=0, atol=1e-6)
    auto = AutoModel.from_pretrained(tmp_path, trust_remote_code=True)
    torch.testing.assert_close(scores(auto, again_batch), before.logits.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_story_scores_the_same_alone_and_padded_in_a_batch(name: str, make_model: MakeModel) -> None:
    encoder, fields = MODELS[name]
    model, story_tokenizer = make_model(encoder, **fields)
    batch = make_batch(story_tokenizer)
    together = scores(model, batch)
    batch["input_ids"][batch["attention_mask"] == 0] = 7
    torch.testing.assert_close(scores(model, batch), together, rtol=0, atol=1e-5)  # whatever stands in the padding
    for row, story in enumerate(STORIES):
        alone = scores(model, make_batch(story_tokenizer, [story]))
        torch.testing.assert_close(together[row, : len(story)], alone[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "modernbert", "deberta-v2", "cnn", "rnn"])
def test_a_story_without_any_token_disturbs_no_other(name: str, make_model: MakeModel) -> None:
    """An empty story where there is no separator: a row of padding alone."""
    model, story_tokenizer = make_model(name, separator_token_id=None)
    expected = scores(model, make_batch(story_tokenizer))
    batch = make_batch(story_tokenizer, [*STORIES, []])
    assert not batch["attention_mask"][-1].any()
    torch.testing.assert_close(scores(model, batch)[:-1], expected, rtol=0, atol=1e-5)
    model.train()(**batch).loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_a_score_is_the_head_on_the_vector_that_the_reading_takes(name: str, make_model: MakeModel) -> None:
    """The marker's state, or what is read from a sentence's own tokens, story by story in a plain loop."""
    encoder, fields = MODELS[name]
    model, story_tokenizer = make_model(encoder, **fields)
    config = model.config
    for story in STORIES:
        (one,) = tokenized(story_tokenizer, [story])
        ids = torch.tensor([one.input_ids])
        mask = torch.ones_like(ids)
        with torch.no_grad():
            hidden = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state[0]
            found = model(input_ids=ids, attention_mask=mask).logits[0]
        end = len(one.input_ids) - (config.separator_token_id is not None)
        ends = [*one.marker_positions[1:], end]
        for place, (first, behind) in enumerate(zip(one.marker_positions, ends, strict=True)):
            if config.reading == "marker":
                vector = hidden[first]
            elif config.reading == "marker_and_mean":
                vector = hidden[first] + hidden[first:behind].mean(dim=0)
            elif config.reading == "max":
                vector = hidden[first:behind].amax(dim=0)
            elif getattr(config.backbone_config, "bidirectional", False):
                half = hidden.shape[1] // 2
                vector = torch.cat([hidden[behind - 1, :half], hidden[first, half:]])
            else:
                vector = hidden[behind - 1]
            torch.testing.assert_close(found[place], model.head(vector)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", TRANSFORMER_ENCODERS)
def test_the_pretrained_weights_arrive(name: str, encoder_folder: GetFolder, make_model: MakeModel) -> None:
    model, story_tokenizer = make_model(name)
    plain = AutoModel.from_pretrained(encoder_folder(name))
    assert len(load_tokenizer(str(encoder_folder(name)))) == plain.config.vocab_size, "this tokenizer needed no marker"
    batch = make_batch(story_tokenizer)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        expected = plain(**inputs).last_hidden_state
        hidden = model(**batch, output_hidden_states=True).hidden_states
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(hidden[-1][real], expected[real], rtol=0, atol=1e-5)
    assert len(hidden) == SIZE["num_hidden_layers"] + 1


@pytest.mark.parametrize("name", [*ENCODERS, "cnn", "rnn"])
def test_the_limit_is_what_the_encoder_really_takes(name: str, make_model: MakeModel) -> None:
    model, story_tokenizer = make_model(name)
    limit = story_tokenizer.max_input_tokens
    assert limit == {"modernbert": 8192, "cnn": None, "rnn": None}.get(name, 512)
    if limit != 512:
        return
    first, second = story_tokenizer.tokenize(STORIES[0])[:2]
    story = story_tokenizer.assemble([first, second * 200])
    assert len(story.input_ids) == 512
    assert scores(model, story_tokenizer.collate([story])).isfinite().all()
    if "position_embeddings" in " ".join(key for key, _ in model.named_parameters()):
        longer = torch.tensor([[*story.input_ids, story.input_ids[1]]])
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=longer)


def test_spare_position_rows_are_not_counted(tmp_path: Path) -> None:
    """Nyströmformer has two rows more than `max_position_embeddings` and starts to count at 2, without saying so."""
    folder = write_encoder(tmp_path, "bert")
    config = transformers.NystromformerConfig(
        vocab_size=160, max_position_embeddings=62, num_landmarks=62, segment_means_seq_len=62, **SIZE
    )
    AutoModel.from_config(config).save_pretrained(folder)
    model = SentenceOrderingModel.from_encoder(str(folder))
    assert model.config.max_input_tokens == 62
    model(input_ids=torch.full((1, 62), model.config.marker_token_id))


def test_a_smaller_limit_can_be_chosen_but_no_larger_one(encoder_folder: GetFolder) -> None:
    folder = str(encoder_folder("roberta"))
    assert SentenceOrderingModel.from_encoder(folder, max_input_tokens=40).config.max_input_tokens == 40
    with pytest.raises(ValueError, match="max_input_tokens .*512.* 514"):
        SentenceOrderingModel.from_encoder(folder, max_input_tokens=514)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_encoder_stored_in_half_precision_becomes_float32(
    dtype: torch.dtype, encoder_folder: GetFolder, tmp_path: Path
) -> None:
    source, folder, saved = encoder_folder("bert"), tmp_path / "half", tmp_path / "saved"
    AutoModel.from_pretrained(source, dtype=dtype).save_pretrained(folder)
    model = SentenceOrderingModel.from_encoder(str(folder), tokenizer=load_tokenizer(str(source)))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    model.save_pretrained(saved)
    again = SentenceOrderingModel.from_pretrained(saved)
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}
    half = SentenceOrderingModel.from_pretrained(saved, dtype=dtype)
    assert {parameter.dtype for parameter in half.encoder.parameters()} == {dtype}, "one can still ask for it"
    batch = make_batch(StoryTokenizer(load_tokenizer(str(source)), half.config))
    assert half(**batch).loss.dtype == half(**batch).logits.dtype == torch.float32


def test_a_tokenizer_without_cls_gets_a_marker(encoder_folder: GetFolder, model_folder: GetFolder) -> None:
    folder = str(encoder_folder("no-cls"))
    rows = json.loads((encoder_folder("no-cls") / "config.json").read_text())["vocab_size"]
    tokenizer = load_tokenizer(folder)
    assert tokenizer.cls_token == "[SENTENCE]" and tokenizer.cls_token_id == rows
    model = SentenceOrderingModel.from_encoder(folder)
    assert model.config.marker_token_id == rows
    assert model.config.separator_token_id is None
    assert model.config.backbone_config.vocab_size == rows + 1 == model.get_input_embeddings().num_embeddings
    plain = AutoModel.from_pretrained(folder).get_input_embeddings().weight
    assert torch.equal(model.get_input_embeddings().weight[:rows], plain), "the other tokens keep their embeddings"

    saved = model_folder("no-cls")
    loaded = load_tokenizer(str(saved))
    assert (loaded.cls_token, loaded.cls_token_id) == ("[SENTENCE]", rows)
    again = SentenceOrderingModel.from_pretrained(saved)
    assert again.get_input_embeddings().num_embeddings == rows + 1
    (story,) = tokenized(StoryTokenizer(loaded, again.config), [["[SENTENCE] a", "b"]])
    assert story.input_ids.count(rows) == 2


def test_a_separator_that_is_the_marker_closes_no_story(encoder_folder: GetFolder, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(encoder_folder("bert")))
    tokenizer.sep_token = tokenizer.cls_token
    model = SentenceOrderingModel.from_encoder(str(encoder_folder("bert")), tokenizer=tokenizer)
    batch = make_batch(StoryTokenizer(tokenizer, model.config))
    assert model(**batch).loss == model(**{k: v for k, v in batch.items() if k != "marker_positions"}).loss


@pytest.mark.parametrize("name", ["bert", "cnn"])
def test_grown_embeddings_are_saved_and_loaded(name: str, make_model: MakeModel, tmp_path: Path) -> None:
    model, story_tokenizer = make_model(name)
    model.resize_token_embeddings(300)
    model.save_pretrained(tmp_path)
    again = SentenceOrderingModel.from_pretrained(tmp_path)
    assert again.get_input_embeddings().num_embeddings == 300
    batch = make_batch(story_tokenizer)
    assert torch.equal(scores(again, batch), scores(model, batch))


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "xlm-roberta", "electra", "albert", "modernbert"])
def test_eager_and_sdpa_attention_agree(
    name: str, encoder_folder: GetFolder, make_model: MakeModel, tmp_path: Path
) -> None:
    model, story_tokenizer = make_model(name)
    batch = make_batch(story_tokenizer)
    model.save_pretrained(tmp_path)
    for implementation in ("eager", "sdpa"):
        options = {"attn_implementation": implementation}
        made = SentenceOrderingModel.from_encoder(str(encoder_folder(name)), encoder_kwargs=options)
        assert made.encoder.config._attn_implementation == implementation
        loaded = SentenceOrderingModel.from_pretrained(tmp_path, attn_implementation=implementation)
        assert loaded.encoder.config._attn_implementation == implementation
        torch.testing.assert_close(scores(loaded, batch), scores(model, batch), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "roberta", "deberta-v2", "modernbert"])
def test_gradient_checkpointing_gives_the_same_gradients(name: str, make_model: MakeModel) -> None:
    model, story_tokenizer = make_model(name)
    batch = make_batch(story_tokenizer)

    def gradients() -> dict[str, Tensor]:
        torch.manual_seed(1)  # the same dropout
        model.zero_grad()
        model.train()(**batch).loss.backward()
        return {key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None}

    plain = gradients()
    recomputed = []
    layer = next(module for module in model.modules() if isinstance(module, GradientCheckpointingLayer))
    checkpoint_activations(model)
    inside = next(module for module in layer.modules() if isinstance(module, torch.nn.Linear))
    inside.register_forward_pre_hook(lambda *_: recomputed.append(1))
    checkpointed = gradients()
    assert len(recomputed) == 2, "the layer ran forward again in the backward pass"
    for key, gradient in plain.items():
        torch.testing.assert_close(checkpointed[key], gradient, rtol=1e-4, atol=1e-6)


def test_an_attention_mask_is_not_needed_for_one_story(make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert")
    batch = make_batch(story_tokenizer, STORIES[:1])
    assert torch.equal(model(input_ids=batch["input_ids"]).logits, model(**batch).logits)


def test_outputs_as_a_tuple_with_hidden_states_and_attentions(make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("bert", head_dropout=0.0)
    model.set_attn_implementation("eager")
    batch = make_batch(story_tokenizer)
    output = model(**batch, output_hidden_states=True, output_attentions=True)
    heads, tokens = SIZE["num_attention_heads"], batch["input_ids"].shape[1]
    assert [tuple(a.shape) for a in output.attentions] == [(len(STORIES), heads, tokens, tokens)] * 2
    loss, logits, sentence_mask = model(**batch, return_dict=False)
    assert loss == output.loss and torch.equal(logits, output.logits)
    assert torch.equal(sentence_mask, output.sentence_mask)


def test_head_dropout_is_applied_in_training_only(make_model: MakeModel) -> None:
    model, story_tokenizer = make_model("cnn", head_dropout=0.5)
    batch = make_batch(story_tokenizer)
    assert torch.equal(model(**batch).logits, model(**batch).logits)
    assert not torch.equal(model.train()(**batch).logits, model(**batch).logits)


REFUSED = {
    "gpt2": (transformers.GPT2Config, "is a causal language model"),
    "llama": (transformers.LlamaConfig, "is a causal language model"),
    "bert as decoder": (lambda: transformers.BertConfig(is_decoder=True), "is a causal language model"),
    "t5": (transformers.T5Config, "is an encoder-decoder"),
    "bart": (transformers.BartConfig, "is an encoder-decoder"),
    "vit": (transformers.ViTConfig, "is not a text encoder"),
    "clip": (transformers.CLIPConfig, "is not a text encoder"),
    "wav2vec2": (transformers.Wav2Vec2Config, "is not a text encoder"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_order_sentences_is_refused(name: str, tmp_path: Path) -> None:
    config, reason = REFUSED[name]
    config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=reason) as error:
        SentenceOrderingModel.from_encoder(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_sentence_ordering_model_is_no_encoder(model_folder: GetFolder) -> None:
    with pytest.raises(ValueError, match="a sentence ordering model already"):
        SentenceOrderingModel.from_encoder(str(model_folder("bert")))


def test_an_encoder_with_code_of_its_own_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    """The code would not travel with the model, which then could not be loaded again."""
    (tmp_path / "configuration_own.py").write_text(
        "from transformers import BertConfig\nclass OwnConfig(BertConfig):\n    model_type = 'own'\n"
    )
    transformers.BertConfig().save_pretrained(tmp_path)
    entries = json.loads((tmp_path / "config.json").read_text())
    entries |= {"model_type": "own", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=r"code of its own \(own\)"):
        SentenceOrderingModel.from_encoder(str(tmp_path), encoder_kwargs={"trust_remote_code": True})


def test_mistakes_are_named(encoder_folder: GetFolder) -> None:
    with pytest.raises(ValueError, match="the cnn encoder is trained from scratch and needs a tokenizer"):
        SentenceOrderingModel.from_encoder("cnn")
    with pytest.raises(ValueError, match="'rnn' has no pretrained tokenizer"):
        load_tokenizer("rnn")
    with pytest.raises(ValueError, match="rnn encoder.*filter_size"):
        SentenceOrderingModel.from_encoder("rnn", tokenizer=word_tokenizer(), filter_size=3)
    with pytest.raises(ValueError, match="readng"):
        SentenceOrderingModel.from_encoder(str(encoder_folder("bert")), readng="marker")
    with pytest.raises(ValueError, match="'mean'"):
        SentenceOrderingModel.from_encoder(str(encoder_folder("bert")), objective="mean")


def test_only_safetensors_are_loaded(encoder_folder: GetFolder, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((encoder_folder("bert") / name).read_bytes())
    weights = AutoModel.from_pretrained(encoder_folder("bert")).state_dict()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        SentenceOrderingModel.from_encoder(str(tmp_path))
