"""Models whose weights are sharded over several GPUs (`--fsdp`)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from modeling_sentence_ordering import SentenceOrderingModel


def layer_classes(model: SentenceOrderingModel) -> set[type[nn.Module]]:
    """The classes of the encoder's layers, which are the units of sharding."""
    return {type(layer) for layers in _outermost_lists(model.encoder) for layer in layers}


def _outermost_lists(module: nn.Module) -> Iterator[nn.ModuleList]:
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from _outermost_lists(child)


def gathered_weights(model: nn.Module) -> dict[str, Tensor]:
    """The full weights and buffers of a model sharded by torch's `fully_shard`, on the CPU; a collective call."""
    return {
        name: (value.full_tensor() if hasattr(value, "full_tensor") else value).cpu()
        for name, value in model.state_dict().items()
    }


def whole_model(model: SentenceOrderingModel, weights: Mapping[str, Tensor]) -> SentenceOrderingModel:
    """An unsharded model with the config of a sharded one and these weights."""
    whole = SentenceOrderingModel(copy.deepcopy(model.config))
    whole.load_state_dict(weights)
    return whole
