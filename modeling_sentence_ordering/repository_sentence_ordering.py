"""What a repository holds beside the weights: loading encoders and tokenizers, and saving and pushing whole models."""

from __future__ import annotations

import importlib
import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatch
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
    logging,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import find_adapter_config_file, hub, is_peft_available

from .configuration_sentence_ordering import (
    OWN_REFERENCES,
    SCRATCH_ENCODERS,
    SentenceOrderingConfig,
    forget_references,
    hub_id,
    is_scratch_encoder,
    references_in,
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


logger = logging.get_logger(__name__)

# A push adds files and removes none: weights of an earlier push, shards or a single file, would be loaded instead.
STALE_WEIGHTS = [
    "model*.safetensors",
    "model.safetensors.index.json",
    "pytorch_model*.bin",
    "pytorch_model.bin.index.json",
    "onnx/*",
]
TOKENIZER_FILES = [
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
]
# The line with which the generated part of a card begins; and what is written below it when it is out of date.
_GENERATED = re.compile("^<!-- generated by sentence-ordering: begin.*-->$", re.MULTILINE)
_TRAINED_FURTHER = "> The model was trained further since this was written: the results below are of earlier weights."


def add_tokenizer(config: SentenceOrderingConfig, folder: str | os.PathLike[str]) -> None:
    """Puts the tokenizer of the repository or folder that a model was loaded from beside the saved model.

    Nothing happens where there is a tokenizer already, or the model was never loaded from anywhere. A tokenizer that
    cannot be found any more is a warning: the model itself is saved.
    """
    source = getattr(config, "_name_or_path", None)
    if not source or (Path(folder) / "tokenizer_config.json").exists():
        return
    try:
        tokenizer = load_tokenizer(source)
    except (OSError, ValueError) as error:
        reason = next((line for line in str(error).splitlines() if line), type(error).__name__)
        logger.warning(f"The tokenizer was not saved with the model; save it with save_tokenizer. {reason}")
        return
    save_tokenizer(tokenizer, folder)


def complete_card(folder: str | os.PathLike[str], config: SentenceOrderingConfig, repo_id: str) -> None:
    """Fills into the card's metadata what `pipeline(model=...)` and the Hub need, and leaves the rest as it is.

    A card that `sentence-ordering train` wrote has results of other weights than those that are being pushed here: it
    says so from now on, and its `model-index` goes.

    Args:
        folder: where the card is, if there is one.
        config: of the model, which may know where it was loaded from.
        repo_id: the repository that is pushed to.
    """
    path = Path(folder) / "README.md"
    if not path.exists():
        return
    card = hub.ModelCard.load(path)
    card.data.library_name = "transformers"
    card.data.pipeline_tag = card.data.pipeline_tag or "sentence-ordering"
    card.data.tags = list(dict.fromkeys([*(card.data.tags or []), "sentence-ordering"]))
    source = hub_id(getattr(config, "_name_or_path", None))
    if source not in (None, repo_id) and not card.data.get("base_model"):
        card.data.base_model = source
    if (section := _GENERATED.search(card.text)) is not None:
        card.data.eval_results = None
        if _TRAINED_FURTHER not in card.text:
            card.text = f"{card.text[: section.end()]}\n\n{_TRAINED_FURTHER}\n{card.text[section.end() :]}"
    card.save(path)


def upload(
    folder: str | os.PathLike[str],
    repo_id: str,
    older: dict[str, float],
    *,
    commit_message: str | None,
    revision: str | None = None,
    create_pr: bool = False,
    token: Any = None,
    commit_description: str | None = None,
) -> Any:
    """Uploads a saved model in one commit, in which weights that no longer belong are deleted.

    A tokenizer that the repository has already is kept: whoever pushed it may have changed it. transformers 4 saves
    into the folder that is called as the repository, if there is one: what lay there before, such as checkpoints, is
    no part of the model.

    Args:
        folder: where everything has been saved.
        repo_id: the repository; it exists.
        older: when each file of the folder was last changed before the model was saved there, in seconds.
        commit_message: first line of the commit.
        revision: branch, made if there is none.
        create_pr, token, commit_description: as `HfApi.create_commit` has them.
    """
    # The Hub's client: transformers depends on it, and its upload of a folder may be several commits.
    client = importlib.import_module("huggingface_hub")
    api = client.HfApi(token=token)
    if revision is not None and not create_pr and not revision.startswith("refs/"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    present = set(api.list_repo_files(repo_id, revision=revision))
    paths = {path.name: path for path in sorted(Path(folder).iterdir()) if path.is_file()}
    new = {
        name
        for name, path in paths.items()
        if (_is_one_of(name, TOKENIZER_FILES) and "tokenizer_config.json" not in present)
        or (not _is_one_of(name, TOKENIZER_FILES) and path.stat().st_mtime > older.get(name, -1.0))
    }
    for name in sorted(new):
        _check_file(paths[name])
    gone = sorted(name for name in present - new if _is_one_of(name, STALE_WEIGHTS))
    return api.create_commit(
        repo_id,
        [client.CommitOperationDelete(path_in_repo=name) for name in gone]
        + [client.CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(paths[name])) for name in sorted(new)],
        commit_message=commit_message or "Upload model",
        commit_description=commit_description,
        revision=revision,
        create_pr=create_pr,
    )


def _check_file(path: Path) -> None:
    """Refuses a link, whose target may be any file of this machine, and a configuration that names foreign code.

    Raises:
        ValueError: and nothing was pushed.
    """
    if path.is_symlink():
        raise ValueError(f"{path.name} is a link: put a copy of the file there if it is to be public")
    if path.suffix != ".json":
        return
    try:
        foreign = set(references_in(json.loads(path.read_text(encoding="utf-8")))) - OWN_REFERENCES
    except (ValueError, RecursionError):
        return  # nobody loads it
    if foreign:
        raise ValueError(f"{path.name} names code of somebody else ({min(foreign)[:100]}): remove the entry")


def _is_one_of(name: str, patterns: list[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
