"""Encoders: two small ones that are trained from scratch, `cnn` and `rnn`, and how a model is made around one."""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from .configuration_sentence_ordering import (
    SCRATCH_ENCODERS,
    ConvolutionalEncoderConfig,
    RecurrentEncoderConfig,
    SentenceOrderingConfig,
)
from .repository_sentence_ordering import (
    input_limit,
    load_encoder_config,
    load_tokenizer,
    portable_tokenizer_class,
    with_marker,
)


class ConvolutionalEncoder(nn.Module):
    """Embedding, one convolution over the tokens, ReLU (Kim, 2014, doi:10.3115/v1/D14-1181, without the pooling,
    which the model does sentence by sentence)."""

    def __init__(self, config: ConvolutionalEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_dim, padding_idx=config.pad_token_id)
        self.convolution = nn.Conv1d(
            config.embedding_dim, config.num_filters, config.filter_size, padding=config.filter_size // 2
        )

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **options: Any,
    ) -> BaseModelOutput:
        """`(batch, tokens)` ids, or embeddings, and mask to hidden states `(batch, tokens, num_filters)`."""
        embedded = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if attention_mask is not None:
            embedded = embedded * attention_mask.unsqueeze(-1)
        hidden = self.convolution(embedded.transpose(1, 2)).relu().transpose(1, 2)
        return _output(hidden, embedded, options)

    def get_input_embeddings(self) -> nn.Module:
        """The embedding, as a transformers model would return it."""
        return self.embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Puts another embedding in its place, as in a transformers model."""
        self.embeddings = value


class RecurrentEncoder(nn.Module):
    """Embedding and an RNN, GRU or LSTM over the tokens of the story."""

    def __init__(self, config: RecurrentEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_dim, padding_idx=config.pad_token_id)
        options = {"num_layers": config.num_layers, "batch_first": True, "bidirectional": config.bidirectional}
        self.recurrence: nn.RNNBase
        if config.cell == "rnn":
            self.recurrence = nn.RNN(
                config.embedding_dim, config.hidden_size, nonlinearity=config.nonlinearity, **options
            )
        else:
            cell = {"gru": nn.GRU, "lstm": nn.LSTM}[config.cell]
            self.recurrence = cell(config.embedding_dim, config.hidden_size, **options)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **options: Any,
    ) -> BaseModelOutput:
        """`(batch, tokens)` ids, or embeddings, and mask to hidden states `(batch, tokens, output_size)`.

        They are zero at padding.
        """
        embedded = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if attention_mask is None:
            attention_mask = torch.ones(embedded.shape[:2], dtype=torch.long)
        # Packed, since the backward direction would otherwise start in the padding. The lengths must be on the CPU:
        # on a GPU this encoder waits for the device once a batch.
        lengths = attention_mask.sum(dim=1).clamp(min=1).cpu()  # a row of padding alone cannot be packed
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        hidden, _ = pad_packed_sequence(self.recurrence(packed)[0], batch_first=True, total_length=embedded.shape[1])
        return _output(hidden, embedded, options)

    def get_input_embeddings(self) -> nn.Module:
        """The embedding, as a transformers model would return it."""
        return self.embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Puts another embedding in its place, as in a transformers model."""
        self.embeddings = value


def _output(hidden: Tensor, embedded: Tensor, options: dict[str, Any]) -> BaseModelOutput:
    """The output of a small encoder, with what was asked for as one asks an encoder of transformers.

    Raises:
        ValueError: for attention weights, which it does not have.
    """
    if options.get("output_attentions"):
        raise ValueError("the encoders cnn and rnn have no attention weights: leave out output_attentions")
    states = (embedded, hidden) if options.get("output_hidden_states") else None
    return BaseModelOutput(last_hidden_state=hidden, hidden_states=states)


def build_encoder(config: PretrainedConfig) -> nn.Module:
    """The encoder that a backbone config describes, with initial weights."""
    # By name, not by class: of a model loaded from a folder with `trust_remote_code`, transformers 5 imports the
    # config's file twice, once by itself and once for the model, and the two do not share their classes.
    if config.model_type == ConvolutionalEncoderConfig.model_type:
        return ConvolutionalEncoder(cast(ConvolutionalEncoderConfig, config))
    if config.model_type == RecurrentEncoderConfig.model_type:
        return RecurrentEncoder(cast(RecurrentEncoderConfig, config))
    if isinstance(getattr(config, "dtype", None), torch.dtype):
        # transformers 5 would build the encoder in its checkpoint's dtype, whatever the head beside it is built in.
        config.dtype = torch.get_default_dtype()
    model: nn.Module = AutoModel.from_config(config, trust_remote_code=False, **_without_pooler(config))
    return model


def _without_pooler(config: PretrainedConfig) -> dict[str, bool]:
    """Leaves out the pooler of BERT-like encoders: no gradient ever reaches it, which breaks multi-GPU training."""
    model_class = AutoModel._model_mapping.get(type(config), None)
    if not isinstance(model_class, type):  # a few configs name several classes; none of those has a pooler to leave out
        return {}
    has_pooler = "add_pooling_layer" in inspect.signature(model_class).parameters
    return {"add_pooling_layer": False} if has_pooler else {}


def load_encoder(name_or_path: str, tokenizer: Any, options: dict[str, Any]) -> tuple[PreTrainedModel, Any]:
    """A pretrained encoder, and its tokenizer with the marker in it; loaded if None.

    Raises:
        ValueError: for models that cannot order sentences.
        OSError: if there is no such model, or it has no safetensors file.
    """
    options = dict(options)
    trusted = bool(options.pop("trust_remote_code", None))  # with None transformers asks on standard input
    shared = {key: options[key] for key in ("revision", "token") if key in options} | {"trust_remote_code": trusted}
    config = load_encoder_config(name_or_path, **shared)
    tokenizer = load_tokenizer(name_or_path, **shared) if tokenizer is None else with_marker(tokenizer)
    encoder = AutoModel.from_pretrained(
        name_or_path, config=config, use_safetensors=True, trust_remote_code=trusted, **options
    )
    return encoder, tokenizer


def scratch_config(name: str, tokenizer: Any, fields: dict[str, Any]) -> SentenceOrderingConfig:
    """The config of a new model around `cnn` or `rnn`; `fields` are the encoder's as well.

    Raises:
        ValueError: without a tokenizer, and for unknown fields.
    """
    if tokenizer is None:
        raise ValueError(f"the {name} encoder is trained from scratch and needs a tokenizer: pass tokenizer=…")
    config_class = SCRATCH_ENCODERS[name]
    own = set(SentenceOrderingConfig().to_dict())
    encoder_fields = {key: fields.pop(key) for key in list(fields) if key not in own}
    unknown = set(encoder_fields) - set(config_class().to_dict())
    if unknown:
        raise ValueError(f"the {name} encoder has no {', '.join(sorted(unknown))}")
    tokenizer = with_marker(tokenizer)
    encoder = config_class(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **encoder_fields)
    return _config_for(encoder, tokenizer, tokenizer.sep_token_id, None, {"reading": config_class.reading, **fields})


def config_around(encoder: PreTrainedModel, tokenizer: Any, fields: dict[str, Any]) -> SentenceOrderingConfig:
    """The config of a new model around a pretrained encoder, whose embeddings grow if the tokenizer has grown.

    Raises:
        ValueError: for unknown fields, or more tokens than the encoder takes.
    """
    if len(tokenizer) > encoder.get_input_embeddings().num_embeddings:
        encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    separator = fields.pop("separator_token_id", None)
    limit = input_limit(encoder, tokenizer)
    wanted = fields.get("max_input_tokens")
    if limit is not None and wanted is not None and wanted > limit:
        raise ValueError(f"max_input_tokens is {wanted}, but this encoder takes {limit} tokens at most")
    return _config_for(encoder.config, tokenizer, separator, limit, fields)


def _config_for(
    encoder: PretrainedConfig, tokenizer: Any, separator: int | None, limit: int | None, fields: dict[str, Any]
) -> SentenceOrderingConfig:
    unknown = set(fields) - set(SentenceOrderingConfig().to_dict())
    if unknown:
        raise ValueError(f"a sentence ordering model has no {', '.join(sorted(unknown))}")
    return SentenceOrderingConfig(
        backbone_config=encoder,
        marker_token_id=tokenizer.cls_token_id,
        attn_implementation=encoder._attn_implementation,
        **{
            "separator_token_id": separator,
            "max_input_tokens": limit,
            "pad_token_id": tokenizer.pad_token_id,
            "tokenizer_class": portable_tokenizer_class(tokenizer),
            **fields,
        },
    )
