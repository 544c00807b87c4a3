"""LoRA through PEFT."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from modeling_sentence_ordering import SentenceOrderingModel
from training.recipe.recipe import RecipeError


def add_lora(model: SentenceOrderingModel, rank: int, seed: int) -> Any:
    """Adds LoRA adapters to the encoder's linear layers, in place. The head is trained in full.

    Hu et al., 2022, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685. The scale alpha is twice
    the rank.

    Args:
        model: the model. The encoder's own parameters are frozen.
        rank: rank of the adapters.
        seed: seed of their initial weights.

    Returns:
        The `PeftModel` around the model. Its `merge_and_unload()` returns the model with the adapters merged.

    Raises:
        RecipeError: if PEFT is not installed, or the encoder has no linear layers.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise RecipeError("--lora needs PEFT: pip install 'sentence-ordering[lora]'") from None
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    targets = [name for name in linear if name.startswith("encoder.")]
    if not targets:
        raise RecipeError("--lora adapts the linear layers of a pretrained encoder, and this one has none")
    whole = [
        name for name, module in model.named_children() if name != "encoder" and any(True for _ in module.parameters())
    ]
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, modules_to_save=whole)
    return get_peft_model(model, config)
