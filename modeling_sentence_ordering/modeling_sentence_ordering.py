"""A model that puts shuffled sentences in order, its loss included.

    input_ids -> encoder -> one vector per sentence -> dropout -> linear head -> one score per sentence

Sorting the sentences by their scores gives the order. With `head="pairs"` the head gives a logit for each pair instead.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

# Not all are used here. When transformers saves a model loaded with `trust_remote_code`, it copies the files that this
# one imports: without these lines the pipeline would be missing in a model pushed again. And 4.46 follows only this
# file's own imports when it copies code from a folder, so every file of the package must be imported here.
from .configuration_sentence_ordering import (
    ConvolutionalEncoderConfig,
    RecurrentEncoderConfig,
    SentenceOrderingConfig,
    is_scratch_encoder,
)
from .decoding_sentence_ordering import decoded_ranks
from .handler import EndpointHandler  # noqa: F401
from .objectives_sentence_ordering import PADDING, check_head, compute_metrics, objective_loss
from .pipeline_sentence_ordering import SentenceOrderingPipeline  # noqa: F401
from .repository_sentence_ordering import (
    add_tokenizer,
    complete_card,
    config_around,
    load_encoder,
    load_guide_model,
    load_tokenizer,
    scratch_config,
    upload,
    with_marker,
)
from .tokenization_sentence_ordering import DataCollatorForSentenceOrdering


@dataclass
class SentenceOrderingOutput(ModelOutput):
    """Output of [`SentenceOrderingModel`]. Floats are float32, or float64 from a float64 model.

    Attributes:
        loss: scalar, the objective averaged over the stories that have a label; only with labels.
        logits: `(batch, max_sentences)`: the score of each sentence in input order, -100 where a story has no such
            sentence, as `Trainer` pads predictions.
        sentence_mask: `(batch, max_sentences)`, bool: true where there is a sentence with a score.
        pair_logits: `(batch, max_sentences, max_sentences)`: [b, i, j] is the logit of «sentence i comes before
            sentence j», 0 on the diagonal and where a story has no such sentence; None for `head="score"`, where it
            would be the difference of two scores.
        ranks: `(batch, max_sentences)`: the position of each sentence in the order decoded from the pair logits, see
            `decoded_ranks`; for metrics, and so only with pair logits and labels and outside of training.
        hidden_states: the encoder's hidden states, `(batch, tokens, width)` each, if requested.
        attentions: the encoder's attention weights, `(batch, heads, tokens, tokens)` each, if requested.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    sentence_mask: Tensor | None = None
    pair_logits: Tensor | None = None
    ranks: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class ScratchEncoder(nn.Module):
    """An encoder that is trained from scratch: an embedding, and layers that subclasses apply in `encode`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_dim, padding_idx=config.pad_token_id)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        **ignored: Any,
    ) -> BaseModelOutput:
        """`(batch, tokens)` ids, or embeddings, and mask to hidden states `(batch, tokens, output_size)`.

        Raises:
            ValueError: for attention weights, which it does not have.
        """
        if output_attentions:
            raise ValueError("the encoders cnn and rnn have no attention weights: leave out output_attentions")
        embedded = self.embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if attention_mask is None:
            attention_mask = torch.ones(embedded.shape[:2], dtype=torch.long, device=embedded.device)
        hidden = self.encode(embedded, attention_mask)
        return BaseModelOutput(hidden, hidden_states=(embedded, hidden) if output_hidden_states else None)

    def encode(self, embedded: Tensor, attention_mask: Tensor) -> Tensor:
        """`(batch, tokens, embedding_dim)` and `(batch, tokens)` to `(batch, tokens, output_size)`."""
        raise NotImplementedError

    def get_input_embeddings(self) -> nn.Module:
        """The embedding, as in a transformers model."""
        return self.embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replaces the embedding, as in a transformers model."""
        self.embeddings = value


class ConvolutionalEncoder(ScratchEncoder):
    """One convolution over the tokens and ReLU (Kim, 2014, doi:10.3115/v1/D14-1181; the model does the pooling)."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.convolution = nn.Conv1d(
            config.embedding_dim, config.num_filters, config.filter_size, padding=config.filter_size // 2
        )

    def encode(self, embedded: Tensor, attention_mask: Tensor) -> Tensor:
        """See `ScratchEncoder`."""
        embedded = embedded * attention_mask.unsqueeze(-1)
        hidden: Tensor = self.convolution(embedded.transpose(1, 2)).relu().transpose(1, 2)
        return hidden


class RecurrentEncoder(ScratchEncoder):
    """An RNN, GRU or LSTM over the tokens of the story. Its hidden states are zero at padding."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        cell = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[config.cell]
        options = {"nonlinearity": config.nonlinearity} if config.cell == "rnn" else {}
        self.recurrence: nn.RNNBase = cell(
            config.embedding_dim,
            config.hidden_size,
            num_layers=config.num_layers,
            batch_first=True,
            bidirectional=config.bidirectional,
            **options,
        )

    def encode(self, embedded: Tensor, attention_mask: Tensor) -> Tensor:
        """See `ScratchEncoder`."""
        # Packed, since the backward direction would otherwise start in the padding. The lengths must be on the CPU:
        # on a GPU this encoder waits for the device once a batch.
        lengths = attention_mask.sum(dim=1).clamp(min=1).cpu()  # a row of padding alone cannot be packed
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        hidden, _ = pad_packed_sequence(self.recurrence(packed)[0], batch_first=True, total_length=embedded.shape[1])
        return hidden


def build_encoder(config: PretrainedConfig) -> nn.Module:
    """The encoder that a backbone config describes, with initial weights."""
    # By name, not by class: of a model loaded from a folder with `trust_remote_code`, transformers 5 imports the
    # config's file twice, once by itself and once for the model, and the two do not share their classes.
    scratch = {
        ConvolutionalEncoderConfig.model_type: ConvolutionalEncoder,
        RecurrentEncoderConfig.model_type: RecurrentEncoder,
    }
    if config.model_type in scratch:
        return scratch[config.model_type](config)
    if isinstance(getattr(config, "dtype", None), torch.dtype):
        # transformers 5 would build the encoder in its checkpoint's dtype, whatever that of the head is.
        config.dtype = torch.get_default_dtype()
    # Without the pooler of BERT-like encoders: it never gets a gradient, which breaks multi-GPU training. A few configs
    # map to a tuple of classes; none of these has a pooler.
    model_class = AutoModel._model_mapping.get(type(config), None)
    has_pooler = isinstance(model_class, type) and "add_pooling_layer" in inspect.signature(model_class).parameters
    options = {"add_pooling_layer": False} if has_pooler else {}
    model: nn.Module = AutoModel.from_config(config, trust_remote_code=False, **options)
    return model


def locate_sentences(
    find: Callable[[], Tensor],
    marker_positions: Tensor | None,
    labels: Tensor | None,
    shape: torch.Size,
    *,
    is_exact: bool,
) -> tuple[Tensor, Tensor | None]:
    """The position of each sentence's marker, and the label of each sentence.

    Args:
        find: gives `(batch, tokens)`, bool, true at markers; called only if needed: it forces a GPU synchronization.
        marker_positions: `(batch, max_sentences)`, -1 for no sentence; or None.
        labels: `(batch, max_sentences)` or `(batch, tokens)`, -100 for padding; or None.
        shape: `(batch, tokens)`.
        is_exact: whether the positions are reliable. If false, a prompt may have been put before the tokens: if the
            number of markers that are found is right, their positions are used.

    Returns:
        Marker positions and labels, both `(batch, max_sentences)`; None for missing labels.

    Raises:
        ValueError: if markers are searched for and no row has two, or the labels of a row do not match its markers.
    """
    markers = find() if marker_positions is None or not is_exact else None
    if marker_positions is not None:
        if markers is not None and torch.equal(markers.sum(dim=1), (marker_positions >= 0).sum(dim=1)):
            marker_positions = _positions(markers, marker_positions.shape[1])
        if labels is not None and labels.shape == shape != marker_positions.shape:
            labels = _at_markers(labels, marker_positions)
        return marker_positions, labels
    assert markers is not None
    counts = markers.sum(dim=1)
    most = int(counts.max()) if len(counts) else 0
    if labels is None:
        if most < 2 and len(counts):
            raise ValueError(
                "no row has more than one sentence marker, so there is nothing to order: put the token "
                "config.marker_token_id before each sentence, as the sentence-ordering pipeline and "
                "model.data_collator(tokenizer) do. For token features call model.encoder"
            )
        return _positions(markers, most), None
    if labels.dim() != 2 or len(labels) != len(counts):
        raise ValueError(f"labels must be (batch, max_sentences) for a batch of {len(counts)}, not {labels.shape}")
    per_token = labels.shape == shape
    if per_token:
        misplaced = (labels != PADDING) & ~markers
        labels = torch.where(misplaced.any(dim=1, keepdim=True), 0, labels)  # as many labels as tokens: refused
    given = (labels != PADDING).sum(dim=1)
    wrong = (given > 0) & (given != counts)
    if bool(wrong.any()) or (not per_token and labels.shape[1] < most):
        row = int(wrong.int().argmax() if bool(wrong.any()) else counts.argmax())
        raise ValueError(
            f"story {row} of the batch has {int(counts[row])} sentence markers, but its labels do not match them. "
            "Labels are the original index of each sentence in input order, (batch, max_sentences) with -100 for "
            "padding; or (batch, tokens) with the index at each marker and -100 elsewhere. The marker is the token "
            "config.marker_token_id"
        )
    positions = _positions(markers, most if per_token else labels.shape[1])
    return positions, _at_markers(labels, positions) if per_token else labels


def _positions(markers: Tensor, width: int) -> Tensor:
    """`(batch, width)`, the positions at which each row is true, -1 where there are fewer."""
    positions = markers.int().argsort(dim=1, descending=True, stable=True)[:, :width]
    positions = nn.functional.pad(positions, (0, width - positions.shape[1]))
    exists = torch.arange(width, device=markers.device) < markers.sum(dim=1, keepdim=True)
    return torch.where(exists, positions, -1)


def _at_markers(labels: Tensor, positions: Tensor) -> Tensor:
    """`(batch, max_sentences)` from labels `(batch, tokens)`."""
    return torch.where(positions >= 0, labels.gather(1, positions.clamp(min=0)), PADDING)


def read_sentences(
    hidden: Tensor, marker_positions: Tensor, content: Tensor, *, reading: str, bidirectional: bool = False
) -> Tensor:
    """One vector per sentence, `(batch, max_sentences, width)`.

    Args:
        hidden: `(batch, tokens, width)`, the encoder's last hidden states.
        marker_positions: `(batch, max_sentences)`, int64, the position of each sentence's marker, -1 for no sentence.
        content: `(batch, tokens)`, bool, false for padding and the separator.
        reading: `"marker"`, `"marker_and_mean"`, `"max"` or `"last"`, see `SentenceOrderingConfig`.
        bidirectional: whether the second half of the states was read from right to left; for `"last"`.
    """
    at_markers = _gather(hidden, marker_positions.clamp(min=0))
    if reading == "marker":
        return at_markers
    # The sentence of each token, `(batch, tokens)`; `max_sentences` for a token that is not in a sentence.
    sentences = marker_positions.shape[1]
    begins = torch.zeros_like(content, dtype=torch.long)
    begins = begins.scatter_add(1, marker_positions.clamp(min=0), (marker_positions >= 0).long())
    sentence_of = begins.cumsum(dim=1) - 1
    sentence_of = torch.where(content & (sentence_of >= 0), sentence_of, sentences)
    if reading == "marker_and_mean":
        # As a matrix product: it is the same from run to run on a GPU, where scattered sums are not, and ONNX has it.
        belongs = sentence_of.unsqueeze(1) == torch.arange(sentences, device=hidden.device).view(1, -1, 1)
        counts = belongs.sum(dim=-1, keepdim=True).clamp(min=1)
        return at_markers + (belongs.to(hidden.dtype) @ hidden) / counts
    if reading == "max":
        index = sentence_of.unsqueeze(-1).expand_as(hidden)
        # Zero where there is no token. A very low number would do for the maximum, but dropout makes it infinite,
        # and the head's gradient NaN.
        zeros = hidden.new_zeros(hidden.shape[0], sentences + 1, hidden.shape[2])
        return zeros.scatter_reduce(1, index, hidden, "amax", include_self=False)[:, :-1]
    positions = torch.arange(hidden.shape[1], device=hidden.device).expand_as(sentence_of)
    last = positions.new_zeros(len(positions), sentences + 1)
    at_ends = _gather(hidden, last.scatter_reduce(1, sentence_of, positions, "amax")[:, :-1])
    if not bidirectional:
        return at_ends
    half = hidden.shape[2] // 2  # forward states end a sentence on its last token, backward states on its first
    return torch.cat([at_ends[..., :half], at_markers[..., half:]], dim=-1)


def _gather(hidden: Tensor, positions: Tensor) -> Tensor:
    """`hidden[b, positions[b, i]]`: `(batch, sentences, width)` from `(batch, tokens, width)`."""
    return hidden.gather(1, positions.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))


class ContextLayer(nn.Module):
    """A transformer layer over the sentences of a story.

    Self-attention and a feed-forward network, each with layer normalisation before it and a residual connection around
    it (Vaswani et al., 2017, arXiv:1706.03762; Xiong et al., 2020, arXiv:2002.04745). There are no position embeddings:
    if the sentences are permuted, so is the output.

    Args:
        width: of the vectors.
        dropout: probability, of both outputs before they are added.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = next(heads for heads in range(max(width // 64, 1), 0, -1) if width % heads == 0)
        self.attention_norm = nn.LayerNorm(width)
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.attention_output = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.intermediate, self.output = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, vectors: Tensor, sentence_mask: Tensor) -> Tensor:
        """`(batch, sentences, width)` to the same; sentences outside the mask `(batch, sentences)` are not attended."""
        batch, sentences, width = vectors.shape
        vectors = vectors.to(self.attention_norm.weight.dtype)
        normed = self.attention_norm(vectors)
        shape = (batch, sentences, self.num_heads, width // self.num_heads)
        query, key, value = (layer(normed).view(shape).transpose(1, 2) for layer in (self.query, self.key, self.value))
        # Each sentence attends to itself in any case: a row that attends to nothing would be NaN.
        itself = torch.eye(sentences, dtype=torch.bool, device=vectors.device)
        visible = (sentence_mask.unsqueeze(1) | itself).unsqueeze(1)
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        attended = attended.transpose(1, 2).reshape(batch, sentences, width)
        vectors = vectors + self.dropout(self.attention_output(attended))
        hidden = nn.functional.gelu(self.intermediate(self.feed_forward_norm(vectors)))
        return vectors + self.dropout(self.output(hidden))


class ScoreHead(nn.Linear):
    """A linear layer that computes in float32 at least, whatever dtype its weights have and whether autocast is on.

    In half precision sentences would often get equal scores. PEFT, accelerate and torchao treat it as `nn.Linear`;
    bitsandbytes and `quantize_dynamic` leave it as it is.
    """

    def forward(self, input: Tensor) -> Tensor:
        """`(..., in_features)` of any float dtype to `(..., out_features)`, float32 or float64."""
        dtype = torch.promote_types(input.dtype, torch.float32)
        bias = None if self.bias is None else self.bias.to(dtype)
        weight: Tensor = self.weight
        if weight.dtype != dtype:
            # Tensors of torchao cannot be cast.
            is_quantized = type(weight).__module__.startswith("torchao.")
            weight = (weight.dequantize() if is_quantized else weight).to(dtype)
        with torch.autocast(device_type=input.device.type, enabled=False):
            return nn.functional.linear(input.to(dtype), weight, bias)


class PairHead(nn.Module):
    """The logit of «i before j» for each pair of sentences: s_j - s_i + (q_i · k_j - q_j · k_i) / √size.

    The second term can express what a difference of scores cannot. Both change their sign if i and j are exchanged.
    There are no biases: in a difference they cancel out, or add to what s expresses already.

    Args:
        width: size of a sentence's vector; s, q and k are linear functions of it.
        size: of q and k.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.score = ScoreHead(width, 1, bias=False)
        self.query = ScoreHead(width, size, bias=False)
        self.key = ScoreHead(width, size, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """`(batch, sentences, width)` to `(batch, sentences, sentences)`, antisymmetric, float32 or float64."""
        query, key, score = self.query(vectors), self.key(vectors), self.score(vectors)
        with torch.autocast(device_type=vectors.device.type, enabled=False):
            # [i, j] is the first term of each difference in the logit; the second one is its transpose.
            half = query @ key.transpose(1, 2) * query.shape[-1] ** -0.5 + score.transpose(1, 2)
            return half - half.transpose(1, 2)


def apply_head(vectors: Tensor, sentence_mask: Tensor, head: nn.Module, kind: str) -> tuple[Tensor, Tensor | None]:
    """Scores and pair logits of sentences, in float32 at least.

    The head is called as a module, so that adapters, quantization and hooks take part. The upcast is repeated here for
    heads that were replaced.

    A sentence's score under a pair head is minus the mean log-odds of coming before the others, over all N sentences
    of the story, itself included with log-odds of 0. Differences of these scores are the best approximation of the
    pair logits by differences in the sense of least squares (Jiang et al., 2011, "Statistical ranking and combinatorial
    Hodge theory", doi:10.1007/s10107-010-0419-x).

    Args:
        vectors: `(batch, sentences, width)`.
        sentence_mask: `(batch, sentences)`, bool.
        head: a `ScoreHead` or a `PairHead`, or a module that replaced it.
        kind: which of the two, `"score"` or `"pairs"`.

    Returns:
        Scores, `(batch, sentences)`, -100 where a sentence is missing, and the pair logits,
        `(batch, sentences, sentences)`, 0 where one is missing, or None.
    """
    dtype = torch.promote_types(vectors.dtype, torch.float32)
    with torch.autocast(device_type=vectors.device.type, enabled=False):
        output: Tensor = head(vectors.to(dtype))
    output = output.to(torch.promote_types(output.dtype, torch.float32))
    if kind == "score":
        return torch.where(sentence_mask, output.squeeze(-1), PADDING), None
    both = sentence_mask.unsqueeze(2) & sentence_mask.unsqueeze(1)
    pair_logits = torch.where(both, output, torch.zeros_like(output))
    scores = -pair_logits.sum(dim=2) / sentence_mask.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(sentence_mask, scores, PADDING), pair_logits


class SentenceOrderingModel(PreTrainedModel):
    """An encoder with a head that scores each sentence, and its training objective."""

    config_class = SentenceOrderingConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flash_attn_2 = True
    _supports_flex_attn = True
    # The loss is averaged in `forward`: Trainer still has to divide it by the number of accumulation steps.
    accepts_loss_kwargs = False
    # Quantizers of transformers skip these modules: rounding a single row of weights saves almost nothing.
    _keep_in_fp32_modules = ["head"]

    def __init__(self, config: SentenceOrderingConfig) -> None:
        if not isinstance(config, PretrainedConfig):
            raise TypeError(
                f"SentenceOrderingModel takes a config, not {config!r}. SentenceOrderingModel.from_encoder(name) makes "
                "a new model around an encoder, SentenceOrderingModel.from_pretrained(name) loads a trained one"
            )
        super().__init__(config)
        if config.backbone_config is None:
            raise ValueError("the config has no backbone_config; make a model with SentenceOrderingModel.from_encoder")
        check_head(config.objective, config.head)
        self.encoder: Any = build_encoder(config.backbone_config)
        config.backbone_config = self.encoder.config  # one config, which resizing the embeddings keeps up to date
        self.dropout = nn.Dropout(config.head_dropout)
        width, pairs = config.output_size, config.head == "pairs"
        self.context = nn.ModuleList(ContextLayer(width, config.head_dropout) for _ in range(config.context_layers))
        self.head: Any = PairHead(width, config.pair_size) if pairs else ScoreHead(width, 1)
        # For `device_map="auto"`. An encoder that does not say how it may be split stays in one piece.
        is_splittable = getattr(self.encoder, "_no_split_modules", None) is not None
        self._no_split_modules = [] if is_splittable else [type(self.encoder).__name__]
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # Pretrained encoders initialise their own layers, the small ones keep torch's initial weights.
        if any(module is own for own in (*self.head.modules(), *self.context.modules())):
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=self.config.initializer_range)
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    @property
    def device(self) -> torch.device:
        """The device for inputs: that of the weights, or the execution device if accelerate keeps them elsewhere."""
        device: torch.device = super().device
        if device.type != "meta":
            return device
        hooks = [module._hf_hook for module in self.modules() if hasattr(module, "_hf_hook")]
        hooks = [one for hook in hooks for one in getattr(hook, "hooks", [hook])]
        devices = [hook.execution_device for hook in hooks if getattr(hook, "execution_device", None) is not None]
        return torch.device(devices[0]) if devices else device

    def get_input_embeddings(self) -> nn.Embedding:
        """The encoder's token embedding."""
        embedding: nn.Embedding = self.encoder.get_input_embeddings()
        return embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the encoder's token embedding."""
        self.encoder.set_input_embeddings(value)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        marker_positions: Tensor | None = None,
        labels: Tensor | None = None,
        num_stories: Tensor | float | None = None,
        is_twin: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SentenceOrderingOutput | tuple[Any, ...]:
        """Scores each sentence, and compares the scores with the labels if there are any.

        Args:
            input_ids: `(batch, tokens)`, int64: marker, sentence, marker, sentence, …, separator.
            attention_mask: `(batch, tokens)`, 1 for tokens, 0 for padding on the right; all ones if missing.
            token_type_ids: `(batch, tokens)`, for encoders that have them; not needed.
            marker_positions: `(batch, max_sentences)`, int64, the position of each sentence's marker, -1 where a story
                has no such sentence. Without it the markers are searched for, which forces a GPU synchronization.
            labels: `(batch, max_sentences)`, int64, the original index (0 … N-1) of each sentence, -100 for padding; or
                `(batch, tokens)`, the index at each marker and -100 elsewhere.
            num_stories: see `objective_loss`.
            is_twin: `(batch,)`, bool, the row is another shuffle of the story in the row before it; for the
                consistency term in training.
            inputs_embeds: `(batch, tokens, embedding width)`, token embeddings instead of `input_ids`. Markers are
                found by their embedding, so that PEFT may put prompts before them.
            output_attentions: return the encoder's attention weights; the config's setting if None.
            output_hidden_states: return the encoder's hidden states; the config's setting if None.
            return_dict: return a tuple if false.

        Raises:
            ValueError: if labels and markers do not match, there are no markers, or the attention implementation
                returns no weights.
        """
        shown = inputs_embeds if input_ids is None else input_ids
        if shown is None or (input_ids is not None and inputs_embeds is not None):
            raise ValueError("pass either input_ids or inputs_embeds")
        if attention_mask is None:
            attention_mask = torch.ones(shown.shape[:2], dtype=torch.long, device=shown.device)
        content = attention_mask.bool()
        marker_positions, labels = locate_sentences(
            lambda: self._is_token(self.config.marker_token_id, shown) & content,
            marker_positions,
            labels,
            content.shape,
            is_exact=input_ids is not None,
        )
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        inputs: dict[str, Any] = {
            "input_ids": input_ids,
            "inputs_embeds": inputs_embeds,
            "token_type_ids": token_type_ids,
        }
        inputs |= {"output_attentions": output_attentions or None, "output_hidden_states": output_hidden_states or None}
        present = {name: value for name, value in inputs.items() if value is not None}
        encoded = self.encoder(attention_mask=attention_mask, **present)
        if output_attentions and any(weights is None for weights in encoded.attentions or [None]):
            implementation = self.config.backbone_config._attn_implementation
            raise ValueError(
                f"the attention implementation {implementation!r} does not return attention weights: load the model "
                'with attn_implementation="eager"'
            )
        sentence_mask = marker_positions >= 0
        if self.config.separator_token_id is not None:
            content = content & ~self._is_token(self.config.separator_token_id, shown)
        bidirectional = bool(getattr(self.config.backbone_config, "bidirectional", False))
        vectors = read_sentences(
            encoded.last_hidden_state,
            marker_positions,
            content,
            reading=self.config.reading,
            bidirectional=bidirectional,
        )
        for layer in self.context:
            vectors = layer(vectors, sentence_mask)
        logits, pair_logits = apply_head(self.dropout(vectors), sentence_mask, self.head, self.config.head)
        loss = ranks = None
        if labels is not None:
            if pair_logits is not None and not self.training:
                ranks = decoded_ranks(pair_logits, logits, sentence_mask).to(logits)
                ranks = torch.where(sentence_mask, ranks, PADDING)
            loss = objective_loss(
                logits,
                labels,
                sentence_mask,
                objective=self.config.objective,
                target_scale=self.config.target_scale,
                num_stories=num_stories,
                pair_logits=pair_logits,
                consistency=self.config.consistency if self.training else 0.0,
                is_twin=is_twin,
            )
        output = SentenceOrderingOutput(
            loss=loss,
            logits=logits,
            sentence_mask=sentence_mask,
            pair_logits=pair_logits,
            ranks=ranks,
            hidden_states=getattr(encoded, "hidden_states", None),
            attentions=getattr(encoded, "attentions", None),
        )
        return output if return_dict is not False else output.to_tuple()

    def _is_token(self, token_id: int | None, shown: Tensor) -> Tensor:
        """`(batch, tokens)`, bool: whether a position holds the token, in ids or in embeddings."""
        if shown.dim() == 2:
            return shown == (-1 if token_id is None else token_id)
        embedding = self.get_input_embeddings()(torch.tensor([token_id], device=shown.device))
        return (shown == embedding.to(shown.dtype)).all(dim=-1)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """As in transformers; the tokenizer of the repository that the model was loaded from is saved, too.

        So a model that was trained further without this package is complete. A tokenizer in the folder is kept.
        """
        # transformers would push before the tokenizer is saved.
        push = kwargs.pop("push_to_hub", False)
        names = ("repo_id", "commit_message", "private", "token", "revision", "create_pr")
        options = {name: kwargs.pop(name) for name in names if name in kwargs}
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            add_tokenizer(self.config, save_directory)
            if push:
                self.push_to_hub(
                    options.pop("repo_id", None) or os.path.basename(os.path.abspath(save_directory)), **options
                )

    def _upload_modified_files(
        self,
        working_dir: str | os.PathLike[str],
        repo_id: str,
        files_timestamps: dict[str, float],
        commit_message: str | None = None,
        **options: Any,
    ) -> Any:
        # The last step of `push_to_hub` in transformers, from 4.46 to 5: theirs would leave old weights in place.
        complete_card(working_dir, self.config, repo_id)
        return upload(working_dir, repo_id, files_timestamps, commit_message=commit_message, **options)

    compute_metrics = staticmethod(compute_metrics)
    load_tokenizer = staticmethod(load_tokenizer)

    def data_collator(self, tokenizer: Any, **options: Any) -> DataCollatorForSentenceOrdering:
        """The collator for this model; the options are fields of [`DataCollatorForSentenceOrdering`]."""
        return DataCollatorForSentenceOrdering(tokenizer, self.config, **options)

    @classmethod
    def from_encoder(
        cls,
        name_or_path: str,
        *,
        tokenizer: Any = None,
        encoder_kwargs: dict[str, Any] | None = None,
        **config: Any,
    ) -> SentenceOrderingModel:
        """A model with a new head around a pretrained encoder, or around a small one with random weights.

        Args:
            name_or_path: any encoder that `AutoModel` can load, by id or folder; or `"cnn"` or `"rnn"`.
            tokenizer: the tokenizer with the marker in it; needed for `"cnn"` and `"rnn"`, else loaded.
            encoder_kwargs: for `AutoModel.from_pretrained` and its config (`revision`, `token`,
                `trust_remote_code`, `attn_implementation`).
            **config: fields of `SentenceOrderingConfig`; for `"cnn"` and `"rnn"` those of their configs as well.

        Returns:
            The model in float32 and in eval mode, as `from_pretrained` gives it.

        Raises:
            ValueError: for causal and encoder-decoder models, or `"cnn"` and `"rnn"` without a tokenizer.
            OSError: if the model does not exist, or has no safetensors file.
        """
        if is_scratch_encoder(name_or_path):
            return cls(scratch_config(name_or_path, tokenizer, config)).eval()
        encoder, tokenizer = load_encoder(name_or_path, tokenizer, encoder_kwargs or {})
        config.setdefault("base_model", name_or_path)
        # A separator that is also the marker would be one more sentence.
        separator = tokenizer.sep_token_id
        config.setdefault("separator_token_id", None if separator == tokenizer.cls_token_id else separator)
        return cls._from_encoder_model(encoder, tokenizer, config).eval()

    @classmethod
    def from_token_classification(
        cls, name_or_path: str, *, encoder: str | None = None, tokenizer: Any = None, **config: Any
    ) -> SentenceOrderingModel:
        """Converts a checkpoint of the 2021 guide.

        It is a `…ForTokenClassification` with one label, or a `…ForQuestionAnswering`, whose start logits are the
        scores; as a folder or repository of transformers, or as a Lightning `.ckpt` file. The scores are those of
        the old model at its markers. No separator is set, since the guide's inputs had none; pass
        `separator_token_id` for a model that was trained with one.

        Args:
            name_or_path: the old checkpoint, by id, folder or file.
            encoder: the encoder it was trained from, by id or folder; needed for a file, which has only weights.
            tokenizer: its tokenizer; if None, that of the encoder or the checkpoint.
            **config: fields of `SentenceOrderingConfig`.

        Raises:
            ValueError: if the checkpoint has no such head, more labels, or a head that is not one linear layer.
        """
        if config.get("head", "score") != "score" or config.get("context_layers"):
            raise ValueError("a checkpoint of the guide has weights for the head 'score' only")
        old, head = load_guide_model(name_or_path, encoder)
        tokenizer = load_tokenizer(encoder or name_or_path) if tokenizer is None else with_marker(tokenizer)
        config.setdefault("base_model", encoder or name_or_path)
        model = cls._from_encoder_model(old, tokenizer, config)
        model.head.load_state_dict({name: weight[:1] for name, weight in head.state_dict().items()})
        return model.eval()

    @classmethod
    def _from_encoder_model(
        cls, encoder: PreTrainedModel, tokenizer: Any, fields: dict[str, Any]
    ) -> SentenceOrderingModel:
        model = cls(config_around(encoder, tokenizer, fields))
        missing, _ = model.encoder.load_state_dict(encoder.state_dict(), strict=False)
        if missing:
            raise ValueError(f"the encoder's checkpoint has no weights for {', '.join(missing[:3])}")
        return model


SentenceOrderingModel.register_for_auto_class("AutoModel")
