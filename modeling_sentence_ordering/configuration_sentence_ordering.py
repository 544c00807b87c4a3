"""Configuration of a sentence ordering model."""

from __future__ import annotations

import copy
import math
import operator
import os
import re
from collections.abc import Sequence
from typing import Any

from transformers import AutoConfig, PretrainedConfig

# Written to every saved config. transformers rewrites both entries on loading (4.x points them back at the repository
# that the model came from, `pipeline()` puts classes in), so a model saved again would depend on that repository, or
# could not be written at all.
AUTO_MAP = {
    "AutoConfig": "configuration_sentence_ordering.SentenceOrderingConfig",
    "AutoModel": "modeling_sentence_ordering.SentenceOrderingModel",
}
CUSTOM_PIPELINES = {
    "sentence-ordering": {
        "impl": "pipeline_sentence_ordering.SentenceOrderingPipeline",
        "pt": ["AutoModel"],
        "tf": [],
        "type": "text",
    }
}

# The names of this package's classes in saved configs.
OWN_REFERENCES = frozenset([*AUTO_MAP.values(), "pipeline_sentence_ordering.SentenceOrderingPipeline"])
# Entries that refer to code: classes of this or another repository (`user/name--module.Class`), or kernels.
_REFERENCES = ("auto_map", "custom_pipelines", "auto_mapping")
_KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")

READINGS = ("marker", "marker_and_mean", "max", "last")
TARGET_SCALES = ("index", "unit")
# Sizes of the encoder, under the names that all configs of transformers have.
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
HEADS = ("score", "pairs")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


class ConvolutionalEncoderConfig(PretrainedConfig):
    """The `cnn` encoder: embedding, one convolution over the tokens, ReLU. Trained from scratch.

    Args:
        vocab_size: rows of the embedding.
        embedding_dim: width of the embedding.
        num_filters: width of the output.
        filter_size: tokens that one filter sees; odd, so that the window is centred.
        pad_token_id: id whose embedding is zero and stays zero.
    """

    model_type = "sentence_ordering_cnn"
    reading = "max"
    num_hidden_layers = 1

    def __init__(
        self,
        vocab_size: int = 8192,
        embedding_dim: int = 64,
        num_filters: int = 96,
        filter_size: int = 5,
        pad_token_id: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(pad_token_id=pad_token_id, **kwargs)
        if filter_size % 2 == 0:
            raise ValueError(f"filter_size must be odd so that a filter is centred on its token, not {filter_size}")
        self.vocab_size = vocab_size
        self.embedding_dim = embedding_dim
        self.num_filters = num_filters
        self.filter_size = filter_size

    @property
    def output_size(self) -> int:
        """Width of the encoder's output."""
        return self.num_filters


class RecurrentEncoderConfig(PretrainedConfig):
    """The `rnn` encoder: embedding, then a recurrent network over the tokens of the story. Trained from scratch.

    Args:
        vocab_size: rows of the embedding.
        embedding_dim: width of the embedding.
        hidden_size: width of one direction's state.
        num_layers: recurrent layers.
        cell: `"lstm"`, `"gru"` or `"rnn"`.
        nonlinearity: `"tanh"` or `"relu"`, of the plain `"rnn"` cell only.
        bidirectional: read the story from both ends, so that a sentence's state depends on what follows, too.
        pad_token_id: id whose embedding is zero and stays zero.
    """

    model_type = "sentence_ordering_rnn"
    reading = "last"

    def __init__(
        self,
        vocab_size: int = 8192,
        embedding_dim: int = 64,
        hidden_size: int = 96,
        num_layers: int = 1,
        cell: str = "gru",
        nonlinearity: str = "tanh",
        bidirectional: bool = True,
        pad_token_id: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(pad_token_id=pad_token_id, **kwargs)
        _check_choice("cell", cell, ("lstm", "gru", "rnn"))
        _check_choice("nonlinearity", nonlinearity, ("tanh", "relu"))
        self.vocab_size = vocab_size
        self.embedding_dim = embedding_dim
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.cell = cell
        self.nonlinearity = nonlinearity
        self.bidirectional = bidirectional

    @property
    def num_hidden_layers(self) -> int:
        """As the configs of transformers call it."""
        return self.num_layers

    @property
    def output_size(self) -> int:
        """Width of the encoder's output, both directions together."""
        return self.hidden_size * (2 if self.bidirectional else 1)


SCRATCH_ENCODERS: dict[str, type[PretrainedConfig]] = {"cnn": ConvolutionalEncoderConfig, "rnn": RecurrentEncoderConfig}


def is_scratch_encoder(name_or_path: str) -> bool:
    """Whether this is `"cnn"` or `"rnn"`, and not a folder of that name that holds a model."""
    return name_or_path in SCRATCH_ENCODERS and not os.path.isfile(os.path.join(name_or_path, "config.json"))


def _backbone_config(value: dict[str, Any] | PretrainedConfig | None) -> PretrainedConfig | None:
    if not isinstance(value, dict):
        return value
    value = without_references(value)
    model_type = value.pop("model_type", None)
    if model_type is None:
        raise ValueError("backbone_config has no model_type: the encoder is unknown")
    for scratch in SCRATCH_ENCODERS.values():
        if scratch.model_type == model_type:
            return scratch(**value)
    return AutoConfig.for_model(model_type, **value)


class SentenceOrderingConfig(PretrainedConfig):
    """Configuration of a [`SentenceOrderingModel`].

    Args:
        backbone_config: the encoder's own config, or its dictionary with `model_type`.
        objective: name of the training objective, a key of `OBJECTIVES`.
        target_scale: what the `mse` objective regresses on: `"index"`, the sentence's original index (0 … N-1), or
            `"unit"`, that index divided by N-1, for stories of varying length.
        reading: how a sentence's vector is read from the encoder's last hidden states: `"marker"` (the state at the
            sentence's marker), `"marker_and_mean"` (that plus the mean over the sentence's tokens; encoders pretrained
            for sentence embeddings learn faster with it), `"max"` (maximum over the sentence's tokens) or `"last"`
            (the states of a recurrent network at the sentence's end, for each direction).
        head: `"score"`, one linear layer that gives each sentence a score; or `"pairs"`, which gives each pair a logit,
            see `PairHead`. The order is then the one with the highest sum of log-probabilities over all pairs.
        pair_size: width of q and k, for `head="pairs"`.
        context_layers: transformer layers over the sentences' vectors before the head, see `ContextLayer`.
        consistency: weight of the consistency term in training (see `pair_consistency`), for `objective="pairwise"`;
            above 0 a training batch shows each story in two shuffles.
        marker_token_id: id of the token before each sentence.
        separator_token_id: id of the token that closes the story, or None.
        max_input_tokens: the most tokens of one story that the encoder takes, or None for no limit.
        head_dropout: dropout probability before the head.
        initializer_range: standard deviation of the head's initial weights.
        base_model: the encoder's id on the Hub, or None; a local path is never kept.
        confidence_temperature: divisor of score differences, above 0, see `confidence`; None where the scores have not
            been calibrated.
        group_size: the most sentences of a long text that the encoder is shown at once, 2 or more; None for the
            pipeline's default.
        passage_sentences: fewest and most sentences of the passages of long texts that the model was trained on;
            None if it was trained on whole texts. `sentence-ordering evaluate` uses such passages too.

    Raises:
        ValueError: for an unknown reading, target scale, head or backbone, or a number that is out of range.
    """

    model_type = "sentence_ordering"
    sub_configs = {"backbone_config": AutoConfig}
    # `Trainer` returns the logits as predictions, and `ranks` where there are any. It pads what it collects with -100
    # along one axis, which would be true in `sentence_mask`.
    keys_to_ignore_at_inference = ["sentence_mask", "pair_logits", "hidden_states", "attentions"]

    def __init__(
        self,
        backbone_config: dict[str, Any] | PretrainedConfig | None = None,
        objective: str = "mse",
        target_scale: str = "index",
        reading: str = "marker",
        head: str = "score",
        pair_size: int = 128,
        context_layers: int = 0,
        consistency: float = 0.0,
        marker_token_id: int | None = None,
        separator_token_id: int | None = None,
        max_input_tokens: int | None = None,
        head_dropout: float = 0.1,
        initializer_range: float = 0.02,
        base_model: str | None = None,
        confidence_temperature: float | None = None,
        group_size: int | None = None,
        passage_sentences: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        _check_choice("reading", reading, READINGS)
        _check_choice("target_scale", target_scale, TARGET_SCALES)
        _check_choice("head", head, HEADS)
        if not 0 <= consistency < math.inf:
            raise ValueError(f"consistency must be a number of at least 0, got {consistency!r}")
        if consistency and objective != "pairwise":
            raise ValueError(f"consistency needs the objective 'pairwise', got {objective!r}")
        if confidence_temperature is not None and not 0 < confidence_temperature < math.inf:
            raise ValueError(f"confidence_temperature must be a number above 0, got {confidence_temperature!r}")
        group_size = None if group_size is None else whole_number("group_size", group_size, at_least=2)
        if not type(self).__module__.startswith("transformers_modules."):
            # With this attribute `pipeline()` would ask for `trust_remote_code`, although the code is installed.
            kwargs.pop("custom_pipelines", None)
        kwargs = {name: value for name, value in kwargs.items() if name not in _SIZES}
        self.backbone_config = _backbone_config(backbone_config)
        self.objective = objective
        self.target_scale = target_scale
        self.reading = reading
        self.head = head
        self.pair_size = whole_number("pair_size", pair_size, at_least=1)
        self.context_layers = whole_number("context_layers", context_layers, at_least=0)
        self.consistency = float(consistency)
        # As plain numbers: NumPy's cannot be written to config.json.
        self.marker_token_id, self.separator_token_id, self.max_input_tokens = (
            None if number is None else operator.index(number)
            for number in (marker_token_id, separator_token_id, max_input_tokens)
        )
        self.head_dropout = head_dropout
        self.initializer_range = initializer_range
        self.base_model = hub_id(base_model)
        self.confidence_temperature = None if confidence_temperature is None else float(confidence_temperature)
        self.group_size = group_size
        self.passage_sentences = None if passage_sentences is None else [int(number) for number in passage_sentences]
        super().__init__(**kwargs)

    @property
    def output_size(self) -> int:
        """Width of the encoder's last hidden states, and so of the head's input."""
        name = "output_size" if hasattr(self.backbone_config, "output_size") else "hidden_size"
        return _from_encoder(self.backbone_config, name)

    @property
    def hidden_size(self) -> int:
        """The same as `output_size`, under the name that DeepSpeed and PEFT read."""
        return self.output_size

    @property
    def num_hidden_layers(self) -> int:
        """Layers of the encoder."""
        return _from_encoder(self.backbone_config, "num_hidden_layers")

    @property
    def num_attention_heads(self) -> int:
        """Attention heads of the encoder; AttributeError for an encoder without attention."""
        return _from_encoder(self.backbone_config, "num_attention_heads")

    @property
    def vocab_size(self) -> int:
        """Rows of the encoder's token embedding."""
        return _from_encoder(self.backbone_config, "vocab_size")

    @vocab_size.setter  # transformers sets it when it resizes embeddings
    def vocab_size(self, value: int) -> None:
        if self.backbone_config is not None:
            self.backbone_config.vocab_size = value

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> SentenceOrderingConfig:
        """The config from the contents of `config.json`, without references to code other than this package's."""
        own = {"auto_map": AUTO_MAP, "custom_pipelines": CUSTOM_PIPELINES}
        entries = without_references(config_dict)
        entries |= {key: copy.deepcopy(value) for key, value in own.items() if key in config_dict}
        config: SentenceOrderingConfig = super().from_dict(entries, **kwargs)
        return config

    def to_dict(self) -> dict[str, Any]:
        """The config as plain values: always with this package's code entries, never with a local path."""
        custom_pipelines = self.__dict__.pop("custom_pipelines", None)  # `pipeline()` has put classes in it
        try:
            output: dict[str, Any] = super().to_dict()
        finally:
            if custom_pipelines is not None:
                self.custom_pipelines = custom_pipelines
        output = without_references(output)
        output |= {name: getattr(self, name) for name in _SIZES if hasattr(self, name)}  # PEFT reads them here
        output["auto_map"] = dict(AUTO_MAP)
        output["custom_pipelines"] = {task: dict(entry) for task, entry in CUSTOM_PIPELINES.items()}
        for entry in (output, output.get("backbone_config")):
            if isinstance(entry, dict):
                entry.pop("_name_or_path", None)  # where it was loaded from, often a local folder
        return output

    def to_diff_dict(self) -> dict[str, Any]:
        """The dictionary that `config.json` holds: the encoder's config in full, since its defaults may change."""
        output: dict[str, Any] = super().to_diff_dict()
        full = self.to_dict()
        for key in ("auto_map", "custom_pipelines", "backbone_config"):
            output[key] = full[key]
        return {key: value for key, value in output.items() if key not in _SIZES}


def whole_number(name: str, value: Any, *, at_least: int) -> int:
    """A value as int; it may be an integer of NumPy or of a tensor.

    Raises:
        ValueError: if it is not a whole number, or too small.
    """
    try:
        number = None if type(value).__name__ in ("bool", "bool_") else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, got {value!r}")
    return number


def _from_encoder(backbone: PretrainedConfig | None, name: str) -> int:
    """A size of the encoder.

    Raises:
        AttributeError: if the encoder has no such size; `hasattr` of the whole config is then false.
    """
    value = getattr(backbone, name, None)
    if value is None:
        raise AttributeError(f"the encoder's config has no {name}")
    return int(value)


def without_references(value: Any) -> Any:
    """A copy of parsed JSON without the entries that refer to code, at any depth."""
    if isinstance(value, dict):
        return {key: without_references(entry) for key, entry in value.items() if not names_code(key, entry)}
    return [without_references(entry) for entry in value] if isinstance(value, list) else value


def names_code(key: str, entry: Any) -> bool:
    """Whether an entry of a configuration file refers to code outside of transformers."""
    names = entry.values() if isinstance(entry, dict) else [entry]
    # transformers 4.57 takes the private names (`_attn_implementation_internal`) from a file as well.
    is_kernel = str(key).removesuffix("_internal") in _KERNELS and any("/" in str(name) for name in names)
    return is_kernel or (key in _REFERENCES and isinstance(entry, (str, list, dict)))


def references_in(value: Any, *, inside: bool = False) -> list[str]:
    """The references to code in parsed JSON: the entries that `without_references` leaves out.

    Args:
        value: parsed JSON.
        inside: whether it is a part of such an entry, so that every string is a reference.
    """
    if isinstance(value, str):
        return [value] if inside else []
    if isinstance(value, list):
        return [name for entry in value for name in references_in(entry, inside=inside)]
    found = []
    for key, entry in value.items() if isinstance(value, dict) else ():
        if key == "custom_pipelines" and isinstance(entry, dict):
            entry = [task.get("impl") if isinstance(task, dict) else task for task in entry.values()]
        found += references_in(entry, inside=inside or names_code(key, entry))
    return found


def forget_references(config: PretrainedConfig) -> None:
    """Removes references to code from a loaded config and the configs inside it."""
    for key, value in list(vars(config).items()):
        if isinstance(value, PretrainedConfig):
            forget_references(value)
        elif key.endswith("implementation_internal"):
            setattr(config, key, None if names_code("attn_implementation", value) else value)
        elif names_code(key, value):
            delattr(config, key)


def hub_id(name_or_path: str | None) -> str | None:
    """`name_or_path` if it can only be the id of a repository on the Hub, None for a local path."""
    is_path = not name_or_path or os.path.exists(name_or_path) or not _HUB_ID.fullmatch(name_or_path)
    return None if is_path or name_or_path in SCRATCH_ENCODERS else name_or_path


SentenceOrderingConfig.register_for_auto_class("AutoConfig")
