"""Reading and writing what stands beside the weights in a repository: encoders, tokenizers, limits."""

from __future__ import annotations

import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import find_adapter_config_file, is_peft_available

from .configuration_sentence_ordering import (
    SentenceOrderingConfig,
    forget_references,
    is_scratch_encoder,
    without_references,
)

NEW_MARKER = "[SENTENCE]"
# What a tokenizer remembers of the machine it was loaded on, and what only some transformers versions can read.
_PRIVATE_KEYS = ("name_or_path", "is_local", "local_files_only", "special_tokens_map_file", "tokenizer_file")
_GENERIC_CLASSES = ("TokenizersBackend", "PreTrainedTokenizer", "PythonBackend")


def load_encoder_config(name_or_path: str, **kwargs: Any) -> PretrainedConfig:
    """The config of a pretrained encoder, if it is one that can order sentences.

    Args:
        name_or_path: id on the Hub or a local folder.
        **kwargs: for `AutoConfig.from_pretrained` (`revision`, `token`, `trust_remote_code`). Without
            `trust_remote_code=True` no code of the repository runs, and transformers does not ask whether it may.

    Raises:
        ValueError: for causal and encoder-decoder models, for those that do not read text and those whose code is not
            in transformers.
        OSError: if there is no such model.
    """
    if _own_config(name_or_path, kwargs):
        raise ValueError(
            f"{name_or_path} is a sentence ordering model already: load it with SentenceOrderingModel.from_pretrained"
        )
    config = load_config(name_or_path, **kwargs)
    kind = config.model_type
    if type(config).__module__.startswith("transformers_modules."):
        raise ValueError(
            f"{name_or_path} brings code of its own ({kind}), which would be missing when the model is "
            "loaded again; use an encoder that transformers has itself"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"{name_or_path} is an encoder-decoder ({kind}); sentence ordering needs an encoder alone, such as "
            "BERT, RoBERTa, DeBERTa or ModernBERT"
        )
    only_causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if only_causal or getattr(config, "is_decoder", False):
        raise ValueError(
            f"{name_or_path} is a causal language model ({kind}): a sentence's marker would not see the sentences "
            "behind it; use an encoder such as BERT, RoBERTa, DeBERTa or ModernBERT"
        )
    model_class = AutoModel._model_mapping.get(type(config), None)
    reads_text = getattr(model_class, "main_input_name", "input_ids") == "input_ids"
    if not reads_text or any(getattr(config, size, None) is None for size in ("vocab_size", "hidden_size")):
        raise ValueError(f"{name_or_path} ({kind}) is not a text encoder")
    return config


def load_config(name_or_path: str, **kwargs: Any) -> PretrainedConfig:
    """As `AutoConfig.from_pretrained`; by default it runs no code, and the config names none to run later."""
    trusted = bool(kwargs.pop("trust_remote_code", None))  # with None transformers asks on standard input
    refuse_adapter(name_or_path, kwargs)
    config = _read(name_or_path, lambda: AutoConfig.from_pretrained(name_or_path, trust_remote_code=trusted, **kwargs))
    forget_references(config)
    return config


def load_guide_model(name_or_path: str, encoder: str | None = None) -> tuple[PreTrainedModel, nn.Linear]:
    """The encoder and the head of a checkpoint of the 2021 guide: for token classification or question answering.

    Args:
        name_or_path: id on the Hub, a local folder, or a checkpoint file, see `read_checkpoint`.
        encoder: id or folder of the encoder that a checkpoint file was trained from.

    Raises:
        ValueError: for a model for anything else, one with more outputs than the guide's has, and one whose head is
            more than one linear layer.
    """
    weights: dict[str, Any] | None = None
    if os.path.isfile(name_or_path):
        if encoder is None:
            raise ValueError(f"{name_or_path} has weights alone: pass encoder=, the encoder that it was trained from")
        config = load_encoder_config(encoder)
        weights = read_checkpoint(name_or_path)
        layer = "qa_outputs" if "qa_outputs.weight" in weights else "classifier"
        config.num_labels = len(weights[f"{layer}.weight"])
    else:
        config = load_config(name_or_path)
        is_reader = any(name.endswith("ForQuestionAnswering") for name in config.architectures or [])
        layer = "qa_outputs" if is_reader else "classifier"
    task, labels, models = {
        "classifier": ("token classification", 1, AutoModelForTokenClassification),
        "qa_outputs": ("question answering", 2, AutoModelForQuestionAnswering),
    }[layer]
    if config.num_labels != labels:
        raise ValueError(f"{name_or_path} has {config.num_labels} labels; a model of the guide for {task} has {labels}")
    model_class = models._model_mapping.get(type(config), None)
    if model_class is None:
        raise ValueError(f"transformers has no model for {task} around {config.model_type} ({name_or_path})")
    source = {"pretrained_model_name_or_path": name_or_path} if weights is None else {"state_dict": weights}
    old, report = model_class.from_pretrained(
        **{"pretrained_model_name_or_path": None, **source},
        config=config,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    unusable = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    if unusable:  # transformers would make them up at random
        missing = ", ".join(sorted(unusable)[:3])
        raise ValueError(f"{name_or_path} is not a checkpoint for {task}: it has no weights for {missing}")
    head = getattr(old, layer, None)
    extra = {name for name, _ in old.named_children()} - {old.base_model_prefix, "dropout", "drop", layer}
    if extra or not isinstance(head, nn.Linear):
        raise ValueError(
            f"the head of {name_or_path} ({type(old).__name__}) is more than one linear layer "
            f"({', '.join(sorted(extra)) or layer}), which a sentence ordering model cannot hold"
        )
    return old.base_model, head


class _Ignored:
    """Takes the place of every class and function that a checkpoint names; it does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _IgnoredDict:
    """The same for subclasses of `dict`, such as the hyperparameters of Lightning: torch fills in none but its own."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return OrderedDict()


def read_checkpoint(path: str) -> dict[str, Any]:
    """The weights of a classifier in a checkpoint file of Lightning (`.ckpt`) or Poutyne, named as transformers does.

    A module of Lightning keeps the classifier in an attribute (`base_model.bert.…`, `transformer.bert.…`): what comes
    before the head's name is left out of all names. The file is read with `weights_only`; callbacks and hyperparameters
    beside the weights, which it may hold as pickled objects, are not built.

    Raises:
        ValueError: if the file is damaged, or has no weights of a classifier or more than one.
    """
    try:
        # Lightning of 2021 pickles the classes of its callbacks. torch before 2.6 cannot tell which they are.
        find_named = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)
        named: list[str] = find_named(path) if find_named is not None and is_zipfile(path) else []
        allowed = [(_IgnoredDict if name.lower().endswith("dict") else _Ignored, name) for name in named]
        with torch.serialization.safe_globals(allowed) if allowed else nullcontext():  # type: ignore[arg-type]
            entries = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, OSError, UnpicklingError) as error:
        raise ValueError(f"{path} cannot be read as weights: {str(error).splitlines()[0][:200]}") from None
    entries = entries.get("state_dict", entries) if isinstance(entries, dict) else {}
    weights = {name: value for name, value in entries.items() if isinstance(value, torch.Tensor)}
    heads = [name for name in weights if re.fullmatch(r"(.*\.)?(classifier|qa_outputs)\.weight", name)]
    if len(heads) != 1:
        raise ValueError(
            f"{path} needs the weights of one head, a token classifier (classifier) or a question-answering head "
            f"(qa_outputs); it has {len(heads)}"
        )
    prefix = heads[0].removesuffix("weight").removesuffix("classifier.").removesuffix("qa_outputs.")
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def load_tokenizer(name_or_path: str, **kwargs: Any) -> Any:
    """The tokenizer that belongs to an encoder or to a sentence ordering model, with a marker token in it.

    The marker is the tokenizer's CLS token. Where it has none, `[SENTENCE]` is added and takes that part; the
    encoder's embeddings grow by it in `SentenceOrderingModel.from_encoder`.

    Args:
        name_or_path: id on the Hub or a local folder, of an encoder or of a model of ours.
        **kwargs: for `AutoTokenizer.from_pretrained` (`revision`, `token`, `trust_remote_code`). Without
            `trust_remote_code=True` no code of the repository runs, and transformers does not ask whether it may.

    Raises:
        ValueError: for `"cnn"` and `"rnn"`, whose tokenizer is trained on the stories.
        OSError: if there is no such tokenizer.
    """
    if is_scratch_encoder(name_or_path):
        raise ValueError(f"{name_or_path!r} has no pretrained tokenizer: train one on the stories it is to order")
    trusted = bool(kwargs.pop("trust_remote_code", None))  # with None transformers asks on standard input
    kwargs |= _own_config(name_or_path, kwargs)
    tokenizer = _read(
        name_or_path, lambda: AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=trusted, **kwargs)
    )
    if not trusted:
        tokenizer.init_kwargs = without_references(tokenizer.init_kwargs)
    return with_marker(tokenizer)


def _read(name_or_path: str, load: Callable[[], Any]) -> Any:
    """What `load` returns; ValueError in one line for files that transformers or tokenizers fails on."""
    with rust_errors(
        f"the configuration or tokenizer in {name_or_path} is damaged", AttributeError, TypeError, LookupError
    ):
        return load()


@contextmanager
def rust_errors(message: str, *others: type[Exception]) -> Iterator[None]:
    """Raises ValueError for errors of the tokenizers library, whose panics are not an `Exception` in Python.

    A hostile `tokenizer.json` causes them: a regular expression that does not end, for example.

    Args:
        message: what could not be done; the first line of the error follows.
        *others: further errors to treat in the same way.
    """
    try:
        yield
    except BaseException as error:
        if not (type(error) is Exception or type(error).__name__ == "PanicException" or isinstance(error, others)):
            raise
        raise ValueError(f"{message}: {next(iter(str(error).splitlines()), '')[:200]}") from None


def _own_config(name_or_path: str, kwargs: dict[str, Any]) -> dict[str, SentenceOrderingConfig]:
    """The `config` of a model of ours, whose code need not be trusted: it is here. Nothing for other models.

    Without it transformers 5 asks on standard input whether to run the repository's code, and waits for an answer.
    """
    shared = {key: kwargs[key] for key in ("revision", "token") if key in kwargs}
    try:
        entries = _read(name_or_path, lambda: dict(PretrainedConfig.get_config_dict(name_or_path, **shared)[0]))
    except OSError:  # no config.json there
        return {}
    is_ours = entries.get("model_type") == SentenceOrderingConfig.model_type
    return {"config": SentenceOrderingConfig.from_dict(entries)} if is_ours else {}


def refuse_adapter(name_or_path: str, kwargs: dict[str, Any] | None = None) -> None:
    """Raises ValueError if a folder or repository holds a PEFT adapter, which transformers would load by itself.

    An adapter's configuration names another repository for the weights, and modules to import.
    """
    shared = {key: value for key, value in (kwargs or {}).items() if key in ("revision", "token")}
    if is_peft_available() and find_adapter_config_file(name_or_path, **shared) is not None:
        raise ValueError(
            f"{name_or_path} holds a PEFT adapter (adapter_config.json): merge it into its model and save that"
        )


def with_marker(tokenizer: Any) -> Any:
    """The same tokenizer, with a CLS token added to its vocabulary if it had none."""
    if tokenizer.cls_token_id is None:
        tokenizer.add_special_tokens({"cls_token": NEW_MARKER})
    if tokenizer.pad_token_id is None:
        # Padding is masked everywhere, so any token serves; a new one would grow the embeddings for nothing.
        tokenizer.pad_token = tokenizer.sep_token or tokenizer.eos_token or tokenizer.cls_token
    return tokenizer


def input_limit(encoder: nn.Module, tokenizer: Any) -> int | None:
    """The most tokens that an encoder takes, or None where nothing limits it.

    RoBERTa and its kin (XLM-R, MPNet) number positions from `padding_idx + 1` on, so that an embedding of 514 rows
    takes 512 tokens: read from the embedding itself; others (Nyströmformer) have spare rows beyond
    `max_position_embeddings`.
    """
    declared = getattr(encoder.config, "max_position_embeddings", None) or 0
    for name, module in encoder.named_modules():
        if name.split(".")[-1] == "position_embeddings" and isinstance(module, nn.Embedding):
            offset = 0 if module.padding_idx is None else module.padding_idx + 1
            rows = module.num_embeddings - offset
            return min(rows, declared) if declared > 0 else rows
    if declared > 0:
        return declared
    longest = getattr(tokenizer, "model_max_length", None)
    return int(longest) if longest is not None and longest < 1_000_000 else None


def save_tokenizer(tokenizer: Any, folder: str | os.PathLike[str]) -> None:
    """Writes a tokenizer so that transformers from 4.46.3 on reads it, and nothing tells where it came from.

    transformers 5 names a class for generic tokenizers that 4.x does not know, writes extra special tokens as a list,
    which 4.57 rejects, and keeps the local path it was loaded from.
    """
    tokenizer.save_pretrained(folder)
    path = Path(folder) / "tokenizer_config.json"
    entries = without_references(json.loads(path.read_text(encoding="utf-8")))
    for key in _PRIVATE_KEYS:
        entries.pop(key, None)
    entries["tokenizer_class"] = portable_tokenizer_class(tokenizer)
    extra = entries.get("extra_special_tokens")
    if isinstance(extra, list):
        del entries["extra_special_tokens"]
        if extra:
            entries["additional_special_tokens"] = extra
    path.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def portable_tokenizer_class(tokenizer: Any) -> str:
    """The class name to write for a tokenizer, one that every transformers version since 4.46.3 can load."""
    name = type(tokenizer).__name__
    return "PreTrainedTokenizerFast" if name in _GENERIC_CLASSES else name
