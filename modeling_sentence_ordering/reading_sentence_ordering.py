"""From the encoder's hidden states to judgements: vectors of sentences, layers over them, and the pair head."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .objectives_sentence_ordering import PADDING


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


def locate_sentences(
    find: Callable[[], Tensor],
    marker_positions: Tensor | None,
    labels: Tensor | None,
    shape: torch.Size,
    *,
    is_exact: bool,
) -> tuple[Tensor, Tensor | None]:
    """Where the markers stand, and the label of each sentence.

    Args:
        find: gives `(batch, tokens)`, bool, true at markers; called only if needed, since it waits for the device.
        marker_positions: `(batch, max_sentences)`, -1 for no sentence; or None.
        labels: `(batch, max_sentences)` or `(batch, tokens)`, -100 for padding; or None.
        shape: `(batch, tokens)`.
        is_exact: the positions hold. If false, a prompt may have been put before the tokens that they were made for:
            where as many markers are found, these hold.

    Returns:
        Marker positions and labels, both `(batch, max_sentences)`; None for missing labels.

    Raises:
        ValueError: if markers are searched for and there is at most one in each row, or a row has labels that do not
            belong to its markers.
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
            f"story {row} of the batch has {int(counts[row])} sentence markers, but its labels do not belong to them. "
            "Labels are the original index of each sentence in input order, (batch, max_sentences) with -100 for "
            "padding; or (batch, tokens) with the index at each marker and -100 elsewhere. The marker is the token "
            "config.marker_token_id"
        )
    positions = _positions(markers, most if per_token else labels.shape[1])
    return positions, _at_markers(labels, positions) if per_token else labels


def _positions(markers: Tensor, width: int) -> Tensor:
    """`(batch, width)`, where each row is true, -1 where there are fewer."""
    positions = markers.int().argsort(dim=1, descending=True, stable=True)[:, :width]
    positions = nn.functional.pad(positions, (0, width - positions.shape[1]))
    is_there = torch.arange(width, device=markers.device) < markers.sum(dim=1, keepdim=True)
    return torch.where(is_there, positions, -1)


def _at_markers(labels: Tensor, positions: Tensor) -> Tensor:
    """`(batch, max_sentences)` of labels `(batch, tokens)`."""
    return torch.where(positions >= 0, labels.gather(1, positions.clamp(min=0)), PADDING)


def read_sentences(
    hidden: Tensor, marker_positions: Tensor, content: Tensor, *, reading: str, bidirectional: bool = False
) -> Tensor:
    """One vector per sentence.

    Args:
        hidden: `(batch, tokens, width)`, the encoder's last hidden states.
        marker_positions: `(batch, max_sentences)`, int64, where each sentence's marker stands, -1 for no sentence.
        content: `(batch, tokens)`, bool, false for padding and the separator.
        reading: `"marker"`, `"marker_and_mean"`, `"max"` or `"last"`, see `SentenceOrderingConfig`.
        bidirectional: whether the second half of the states was read from right to left; for `"last"`.

    Returns:
        `(batch, max_sentences, width)`.
    """
    at_markers = _gather(hidden, marker_positions.clamp(min=0))
    if reading == "marker":
        return at_markers
    sentence_of = _sentence_of_token(marker_positions, content)
    if reading == "marker_and_mean":
        return at_markers + _means(hidden, sentence_of, marker_positions.shape[1])
    if reading == "max":
        index = sentence_of.unsqueeze(-1).expand_as(hidden)
        shape = (hidden.shape[0], marker_positions.shape[1] + 1, hidden.shape[2])
        # Zero where there is no token. A very low number would do for the maximum, but dropout makes it infinite,
        # and the head's gradient NaN.
        return hidden.new_zeros(shape).scatter_reduce(1, index, hidden, "amax", include_self=False)[:, :-1]
    places = torch.arange(hidden.shape[1], device=hidden.device).expand_as(sentence_of)
    last = places.new_zeros(len(places), marker_positions.shape[1] + 1)
    at_ends = _gather(hidden, last.scatter_reduce(1, sentence_of, places, "amax")[:, :-1])
    if not bidirectional:
        return at_ends
    half = hidden.shape[2] // 2  # forward states end a sentence on its last token, backward states on its first
    return torch.cat([at_ends[..., :half], at_markers[..., half:]], dim=-1)


def _gather(hidden: Tensor, places: Tensor) -> Tensor:
    """`hidden[b, places[b, i]]`: `(batch, sentences, width)` from `(batch, tokens, width)`."""
    return hidden.gather(1, places.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))


def _means(hidden: Tensor, sentence_of: Tensor, sentences: int) -> Tensor:
    """The mean over the tokens of each sentence, `(batch, sentences, width)`, zero where there is none.

    As a matrix product: it is the same from run to run on a GPU, where scattered sums are not, and ONNX has it.
    """
    belongs = sentence_of.unsqueeze(1) == torch.arange(sentences, device=hidden.device).view(1, -1, 1)
    counts = belongs.sum(dim=-1, keepdim=True).clamp(min=1)
    return (belongs.to(hidden.dtype) @ hidden) / counts


def _sentence_of_token(marker_positions: Tensor, content: Tensor) -> Tensor:
    """Which sentence each token belongs to, `(batch, tokens)`; `max_sentences` for a token that is in none."""
    begins = torch.zeros_like(content, dtype=torch.long)
    begins = begins.scatter_add(1, marker_positions.clamp(min=0), (marker_positions >= 0).long())
    sentence = begins.cumsum(dim=1) - 1
    nowhere = marker_positions.shape[1]
    return torch.where(content & (sentence >= 0), sentence, nowhere)


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
        """`(batch, sentences, width)` to the same; what is not in the mask `(batch, sentences)` is not attended to."""
        batch, sentences, width = vectors.shape
        vectors = vectors.to(self.attention_norm.weight.dtype)
        normed = self.attention_norm(vectors)
        shape = (batch, sentences, self.num_heads, width // self.num_heads)
        query, key, value = (layer(normed).view(shape).transpose(1, 2) for layer in (self.query, self.key, self.value))
        # Each attends to itself in any case: a row without anything to attend to would be NaN.
        itself = torch.eye(sentences, dtype=torch.bool, device=vectors.device)
        visible = (sentence_mask.unsqueeze(1) | itself).unsqueeze(1)
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        attended = attended.transpose(1, 2).reshape(batch, sentences, width)
        vectors = vectors + self.dropout(self.attention_output(attended))
        hidden = nn.functional.gelu(self.intermediate(self.feed_forward_norm(vectors)))
        return vectors + self.dropout(self.output(hidden))


class PairHead(nn.Module):
    """The logit of «i before j» for each pair of sentences: s_j - s_i + (q_i · k_j - q_j · k_i) / √size.

    A difference of scores cannot express what depends on the pair; the second term can. Both change their sign if i and
    j are exchanged. There are no biases: in a difference they cancel out, or add to what s says already.

    Args:
        width: of a sentence's vector, of which s, q and k are linear functions.
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


def judge_sentences(vectors: Tensor, sentence_mask: Tensor, head: nn.Module, kind: str) -> tuple[Tensor, Tensor | None]:
    """What a head says of the sentences, in float32 at least.

    The head is called as a module, so that adapters, quantization and hooks take part. Upcast and without autocast here
    as well, for heads that were replaced.

    Args:
        vectors: `(batch, sentences, width)`.
        sentence_mask: `(batch, sentences)`, bool.
        head: a `ScoreHead` or a `PairHead`, or what took its place.
        kind: which of the two, `"score"` or `"pairs"`.

    Returns:
        Scores, `(batch, sentences)`, -100 where a sentence is missing, and the pair logits,
        `(batch, sentences, sentences)`, 0 where one is missing, or None.
    """
    dtype = torch.promote_types(vectors.dtype, torch.float32)
    with torch.autocast(device_type=vectors.device.type, enabled=False):
        judged: Tensor = head(vectors.to(dtype))
    judged = judged.to(torch.promote_types(judged.dtype, torch.float32))
    if kind == "pairs":
        return scores_of_pairs(judged, sentence_mask)
    return torch.where(sentence_mask, judged.squeeze(-1), PADDING), None


def scores_of_pairs(pair_logits: Tensor, sentence_mask: Tensor) -> tuple[Tensor, Tensor]:
    """One score per sentence, lower for what comes earlier: minus the mean log-odds of coming before the others.

    The mean is over all N sentences of the story, itself included with log-odds of 0. Differences of these scores are
    the best approximation of the pair logits by differences in the sense of least squares (Jiang et al., 2011,
    "Statistical ranking and combinatorial Hodge theory", doi:10.1007/s10107-010-0419-x).

    Args:
        pair_logits: `(batch, sentences, sentences)`.
        sentence_mask: `(batch, sentences)`, bool.

    Returns:
        The scores, `(batch, sentences)`, -100 where a sentence is missing, and the pair logits, 0 where one is.
    """
    both = sentence_mask.unsqueeze(2) & sentence_mask.unsqueeze(1)
    pair_logits = torch.where(both, pair_logits, torch.zeros_like(pair_logits))
    scores = -pair_logits.sum(dim=2) / sentence_mask.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(sentence_mask, scores, PADDING), pair_logits


def init_layer(module: nn.Module, std: float) -> None:
    """Initial weights of a layer that is not the encoder's: normal for linear layers, the identity for norms."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=std)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
    if getattr(module, "bias", None) is not None:
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
