"""The Hub's rules for the metadata of a README: what it rejects, and what it only warns of.

The Hub's own rules are not public as a whole. These are the ones that its documentation states and that people have met
(the messages are the Hub's where they are known), limited to the fields that a model or data set of ours may have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from .messages import Kind

FRONT_MATTER = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
REPOSITORY = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_][\w.-]*(?:/[A-Za-z0-9_][\w.-]*)?(?<![.-])", re.ASCII)
LANGUAGE = re.compile(r"[a-z]{2,3}")
LANGUAGES_BESIDE = {"code", "multilingual"}
LICENSES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m afl-3.0
artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0
cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0
epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 lgpl-lr isc
lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa
unlicense zlib pddl deepfloyd-if-license fair-noncommercial-research-license intel-research llama2 llama3 llama3.1
llama3.2 llama3.3 llama4 gemma unknown other
"""
TASKS = """
text-classification token-classification table-question-answering question-answering zero-shot-classification
translation summarization feature-extraction text-generation fill-mask sentence-similarity text-to-speech text-to-audio
automatic-speech-recognition audio-to-audio audio-classification audio-text-to-text voice-activity-detection
depth-estimation image-classification object-detection image-segmentation text-to-image image-to-text image-to-image
image-to-video unconditional-image-generation video-classification reinforcement-learning robotics
tabular-classification tabular-regression tabular-to-text table-to-text multiple-choice text-ranking text-retrieval
time-series-forecasting text-to-video image-text-to-text visual-question-answering document-question-answering
zero-shot-image-classification graph-ml mask-generation zero-shot-object-detection text-to-3d image-to-3d
image-feature-extraction video-text-to-text keypoint-detection visual-document-retrieval any-to-any video-to-video other
"""


SPACE_SDKS = ("gradio", "docker", "static")
COLORS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")


def metadata_of(readme: str) -> dict[str, Any]:
    """The metadata of a card that was accepted; {} if it has none."""
    block = FRONT_MATTER.search(readme)
    return (yaml.safe_load(block[1]) if block else None) or {}


def check_card(readme: str, kind: Kind) -> tuple[list[str], list[str]]:
    """Errors and warnings for a whole README.md."""
    try:
        metadata = metadata_of(readme)
    except yaml.YAMLError as error:
        return [f"YAML Metadata Error: {' '.join(str(error).split())}"], []
    if not isinstance(metadata, dict):
        return ["YAML Metadata Error: the metadata must be a mapping"], []
    if not metadata and kind != "space":
        return [], ["empty or missing yaml metadata in repo card"]
    errors = [*_errors_in_lists(metadata), *_errors_in_texts(metadata)]
    rules = {"model": _errors_in_model_index, "dataset": _errors_in_configurations, "space": _errors_in_space}
    errors += rules[kind](metadata)
    return errors, list(_warnings(metadata, kind))


def _entries(metadata: dict[str, Any], field: str) -> Iterator[tuple[str, Any]]:
    """What a field holds, with the name that the Hub gives each of it: `language` or `language[1]`."""
    value = metadata.get(field)
    if isinstance(value, list):
        yield from ((f"{field}[{index}]", entry) for index, entry in enumerate(value))
    elif value is not None:
        yield field, value


def _errors_in_lists(metadata: dict[str, Any]) -> Iterator[str]:
    for field in ("tags", "datasets", "metrics", "task_categories", "size_categories"):
        if not isinstance(metadata.get(field, []), list) and not (field != "tags" and isinstance(metadata[field], str)):
            yield f'"{field}" must be an array'
    rules: dict[str, tuple[Callable[[str], Any], str]] = {
        "license": (LICENSES.split().__contains__, 'must be one of [apache-2.0, mit, …]: "{}" is not'),
        "language": (
            lambda text: text in LANGUAGES_BESIDE or LANGUAGE.fullmatch(text),
            'with value "{}" is not valid. It must be an ISO 639-1, 639-2 or 639-3 code (two/three letters), or a '
            'special value like "code", "multilingual".',
        ),
        "base_model": (
            REPOSITORY.fullmatch,
            'with value "{}" is not valid. Use a model id from https://hf.co/models.',
        ),
        "datasets": (
            REPOSITORY.fullmatch,
            'with value "{}" is not valid. If possible, use a dataset id from https://hf.co/datasets.',
        ),
        "tags": (str.strip, "is not allowed to be empty"),
        "metrics": (str.strip, "is not allowed to be empty"),
    }
    for field, (is_valid, message) in rules.items():
        if field in metadata and not metadata[field] and field in ("license", "base_model"):
            yield f'"{field}" must be a string'
        for name, value in _entries(metadata, field):
            if not isinstance(value, str):
                yield f'"{name}" must be a string'
            elif not is_valid(value):
                yield f'"{name}" {message.format(value)}'


def _errors_in_texts(metadata: dict[str, Any]) -> Iterator[str]:
    for field in ("library_name", "pipeline_tag", "pretty_name", "license_name", "license_link"):
        if field in metadata and not isinstance(metadata[field], str):
            yield f'"{field}" must be a string'


def _errors_in_model_index(metadata: dict[str, Any]) -> Iterator[str]:
    """https://github.com/huggingface/hub-docs/blob/main/modelcard.md"""
    for name, model in _entries(metadata, "model-index"):
        if name == "model-index" or not isinstance(model, dict):
            yield f'"{name}" must be of type {"array" if name == "model-index" else "object"}'
            continue
        yield from _missing(model, name, "name")
        if not isinstance(model.get("results"), list):
            yield f'"{name}.results" must be an array'
            continue
        for result_name, result in _entries(model, "results"):
            yield from _errors_in_result(result, f"{name}.{result_name}")


def _errors_in_result(result: Any, name: str) -> Iterator[str]:
    if not isinstance(result, dict):
        yield f'"{name}" must be of type object'
        return
    yield from _missing(result.get("task"), f"{name}.task", "type")
    data = result.get("dataset")
    for field in ("type", "name"):
        yield from _missing(data, f"{name}.dataset", field)
    for field in ("config", "split", "revision"):
        if isinstance(data, dict) and not isinstance(data.get(field, ""), str):
            yield f'"{name}.dataset.{field}" must be a string'
    metrics = result.get("metrics")
    if not isinstance(metrics, list) or not metrics:
        yield f'"{name}.metrics" is required'
        return
    for index, metric in enumerate(metrics):
        yield from _missing(metric, f"{name}.metrics[{index}]", "type")
        if not isinstance(metric, dict) or metric.get("value") is None:
            yield f'"{name}.metrics[{index}].value" is required'


def _missing(holder: Any, name: str, field: str) -> Iterator[str]:
    value = holder.get(field) if isinstance(holder, dict) else None
    if value is None:
        yield f'"{name}.{field}" is required'
    elif not isinstance(value, str) or not value.strip():
        yield f'"{name}.{field}" must be a string'


def _errors_in_configurations(metadata: dict[str, Any]) -> Iterator[str]:
    """https://huggingface.co/docs/hub/datasets-manual-configuration"""
    for name, configuration in _entries(metadata, "configs"):
        if name == "configs" or not isinstance(configuration, dict):
            yield f'"{name}" must be of type {"array" if name == "configs" else "object"}'
            continue
        yield from _missing(configuration, name, "config_name")
        for file_name, files in _entries(configuration, "data_files"):
            is_path_of_a_split = isinstance(files, dict) and isinstance(files.get("split"), str) and files.get("path")
            if not isinstance(files, str) and not is_path_of_a_split:
                yield f'"{name}.{file_name}" must be a path, or have both a "split" and a "path"'


def _errors_in_space(metadata: dict[str, Any]) -> Iterator[str]:
    """https://huggingface.co/docs/hub/spaces-config-reference"""
    if metadata.get("sdk") not in SPACE_SDKS:
        yield f'"sdk" must be one of [{", ".join(SPACE_SDKS)}]'
    for field in ("colorFrom", "colorTo"):
        if metadata.get(field, "red") not in COLORS:
            yield f'"{field}" must be one of [{", ".join(COLORS)}]'
    for field in ("title", "sdk_version", "python_version", "app_file", "emoji", "short_description"):
        if not isinstance(metadata.get(field, ""), str):
            yield f'"{field}" must be a string'
    if len(str(metadata.get("short_description", ""))) > 60:
        yield '"short_description" length must be less than or equal to 60 characters long'
    for name, model in _entries(metadata, "models"):
        if not isinstance(model, str) or not REPOSITORY.fullmatch(model):
            yield f'"{name}" with value "{model}" is not valid. Use a model id from https://hf.co/models.'


def _warnings(metadata: dict[str, Any], kind: Kind) -> Iterator[str]:
    for name, task in _entries(metadata, "task_categories" if kind == "dataset" else "pipeline_tag"):
        if isinstance(task, str) and task not in TASKS.split():
            yield f'The {name} "{task}" is not in the official list: text-classification, token-classification, …'
