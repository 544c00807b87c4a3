"""From the encoder's hidden states to one vector per sentence, and from that to its score."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ScoreHead(nn.Linear):
    """A linear layer that computes in float32 at least, whatever dtype its weights have and whether autocast is on.

    In half precision sentences would often get equal scores. PEFT, accelerate and torchao treat it as `nn.Linear`;
    bitsandbytes and `quantize_dynamic` leave it as it is.
    """

    def forward(self, input: Tensor) -> Tensor:
        """`(..., in_features)` of any float dtype to `(..., out_features)`, float32 or float64."""
        dtype = torch.promote_types(input.dtype, torch.float32)
        with torch.autocast(device_type=input.device.type, enabled=False):
            return nn.functional.linear(input.to(dtype), self.weight.to(dtype), self.bias.to(dtype))


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
