"""Model folders with a trap: a configuration file that names code, which leaves a mark if anybody runs it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling_sentence_ordering.configuration_sentence_ordering import AUTO_MAP, CUSTOM_PIPELINES

# What a story on standard input could say to a question.
ANSWERS = "y\n1\nyes\n\n" * 50
_CODE = """
import pathlib
pathlib.Path({mark!r}).mkdir(exist_ok=True)

class Evil:
    pass
"""

# Where code may lie: in the folder, or in another one, named as transformers names other repositories.
PLACES = {"own": "evil.Evil", "other": "{other}--evil.Evil", "hub": "somebody/evil--evil.Evil"}
_AUTO = ("AutoConfig", "AutoModel", "AutoModelForTokenClassification")

# How `auto_map` may be written, given the reference.
FORMS: dict[str, Callable[[str], Any]] = {
    "string": lambda reference: reference,
    "list": lambda reference: [reference, reference],
    "slow": lambda reference: [reference, None],
    "fast": lambda reference: [None, reference],
    "short list": lambda reference: [reference],
    "dict": lambda reference: dict.fromkeys((*_AUTO, "AutoTokenizer"), reference),
    "dict of lists": lambda reference: dict.fromkeys((*_AUTO, "AutoTokenizer"), [None, reference]),
    "own names": lambda reference: {**AUTO_MAP, "AutoTokenizer": [reference, reference]},
}


@dataclass(frozen=True)
class Trap:
    """One way to name code.

    Attributes:
        file: the configuration file.
        entries: what is set in it, given the reference to the code.
        where: path of keys in the file to the mapping that `entries` are set in.
    """

    file: str
    entries: Callable[[str], dict[str, Any]]
    where: tuple[str, ...] = ()


def _form(name: str) -> Callable[[str], dict[str, Any]]:
    return lambda reference: {"auto_map": FORMS[name](reference)}


TRAPS: dict[str, Trap] = {
    **{f"config.json: {form}": Trap("config.json", _form(form)) for form in FORMS},
    **{f"tokenizer_config.json: {form}": Trap("tokenizer_config.json", _form(form)) for form in FORMS},
    **{
        f"backbone_config: {form}": Trap("config.json", _form(form), ("backbone_config",))
        for form in ("string", "dict", "dict of lists")
    },
    "backbone_config of an unknown kind": Trap(
        "config.json", lambda r: {"model_type": "unheard-of", **_form("dict")(r)}, ("backbone_config",)
    ),
    "backbone_config in backbone_config": Trap(
        "config.json", lambda r: {"text_config": {"model_type": "bert", **_form("dict")(r)}}, ("backbone_config",)
    ),
    "config.json of an unknown kind": Trap("config.json", lambda r: {"model_type": "unheard-of", **_form("dict")(r)}),
    "custom_pipelines": Trap("config.json", lambda r: {"custom_pipelines": _pipelines(r)}),
    "configuration_files": Trap("config.json", lambda r: {"configuration_files": ["config.4.0.0.json"]}),
    "tokenizer of an unknown class": Trap(
        "tokenizer_config.json", lambda r: {"tokenizer_class": "Evil", **_form("list")(r)}
    ),
    "a slow tokenizer": Trap(
        "tokenizer_config.json", lambda r: {"tokenizer_class": "BertTokenizer", **_form("slow")(r)}
    ),
    "attn_implementation": Trap("config.json", lambda r: {"attn_implementation": "somebody/evil"}),
    "_attn_implementation of the encoder": Trap(
        "config.json", lambda r: {"_attn_implementation": "somebody/evil"}, ("backbone_config",)
    ),
    "processor_config.json": Trap("processor_config.json", lambda r: {"processor_class": "Evil", **_processor(r)}),
    "preprocessor_config.json": Trap("preprocessor_config.json", lambda r: _processor(r)),
    "generation_config.json": Trap("generation_config.json", lambda r: {"custom_generate": r, **_form("dict")(r)}),
    "adapter_config.json": Trap(
        "adapter_config.json",
        lambda r: {
            "peft_type": "LORA",
            "base_model_name_or_path": r.partition("--")[0],
            "auto_mapping": {"base_model_class": "Evil", "parent_library": "evil"},
            "megatron_config": {"a": 1},
            "megatron_core": "evil",
        },
    ),
}


def _pipelines(reference: str) -> dict[str, Any]:
    entry = {**CUSTOM_PIPELINES["sentence-ordering"], "impl": reference}
    return {"sentence-ordering": entry, "text-classification": entry}


def _processor(reference: str) -> dict[str, Any]:
    return {"auto_map": dict.fromkeys(("AutoProcessor", "AutoImageProcessor", "AutoFeatureExtractor"), reference)}


def set_trap(name: str, place: str, good: Path, folder: Path) -> Path:
    """Copies a model's or an encoder's folder and sets a trap in the copy.

    Args:
        name: key of `TRAPS`.
        place: key of `PLACES`.
        good: the folder to copy.
        folder: where the copy goes; must not exist.

    Returns:
        A path that exists as soon as any of the code has run.
    """
    mark, other = folder.parent / f"{folder.name}-sprung", folder.parent / f"{folder.name}-other"
    shutil.copytree(good, folder, ignore=shutil.ignore_patterns("checkpoints", "tensorboard", "*.png"))
    shutil.copytree(folder, other)
    for there in (folder, other):
        (there / "evil.py").write_text(_CODE.format(mark=str(mark)), encoding="utf-8")
        (there / "custom_generate").mkdir()
        (there / "custom_generate" / "generate.py").write_text(_CODE.format(mark=str(mark)), encoding="utf-8")
    reference = PLACES[place].format(other=other)
    trap = TRAPS[name]
    path = folder / trap.file
    values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    entries = values
    for key in trap.where:
        entries = entries.setdefault(key, {})
    entries |= trap.entries(reference)
    path.write_text(json.dumps(values), encoding="utf-8")
    # transformers reads this one instead where `configuration_files` says so.
    versioned = {**json.loads((good / "config.json").read_text(encoding="utf-8")), **_form("dict")(reference)}
    (folder / "config.4.0.0.json").write_text(json.dumps(versioned), encoding="utf-8")
    return mark
