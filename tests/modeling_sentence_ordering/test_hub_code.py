"""What travels with a model: it loads where our packages are not, on other versions, and survives being saved there."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, pipeline

import modeling_sentence_ordering
from modeling_sentence_ordering import (
    SentenceOrderingConfig,
    SentenceOrderingModel,
    SentenceOrderingPipeline,
    StoryTokenizer,
    load_tokenizer,
    save_tokenizer,
)
from modeling_sentence_ordering.configuration_sentence_ordering import AUTO_MAP, CUSTOM_PIPELINES
from tests.modeling_sentence_ordering.small_encoders import (
    ENCODERS,
    STORIES,
    GetFolder,
    MakeModel,
    tokenized,
    word_tokenizer,
)

PACKAGE = Path(modeling_sentence_ordering.__file__).parent
CODE = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
MODELS = [name for name in [*ENCODERS, "cnn", "rnn"] if name != "modernbert"]  # which exists from 4.48 on
NAMES = [*MODELS, "extra tokens", "pairs"]
# Saved again: a tokenizer class of its own and the generic one, an added marker, Unigram, a small encoder, pairs.
SAVED = ["bert", "xlm-roberta", "no-cls", "rnn", "extra tokens", "pairs"]


def load_elsewhere(python: str, home: Path, models: list[dict[str, Any]]) -> dict[str, Any]:
    """What another process makes of these folders, with caches of its own and another working directory."""
    home.mkdir(parents=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    environment |= {"HF_HOME": str(home / "huggingface"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("load_without_our_packages.py")
    result = subprocess.run(
        [python, "-P", str(script)],
        input=json.dumps({"stories": STORIES, "models": models}),
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answer


def job(folder: Path, save_to: Path | None = None, save_pipeline_to: Path | None = None) -> dict[str, Any]:
    saving = {"save_to": save_to, "save_pipeline_to": save_pipeline_to}
    return {"folder": str(folder), **{key: value and str(value) for key, value in saving.items()}}


def assert_same_numbers(found: dict[str, Any], folder: Path, model_folder: Path) -> None:
    """As our own package computes them in this process."""
    model, tokenizer = SentenceOrderingModel.from_pretrained(model_folder), load_tokenizer(str(model_folder))
    order = SentenceOrderingPipeline(model=model, tokenizer=tokenizer)
    calibrated = model.config.confidence_temperature is not None
    options: dict[str, Any] = {"moves": True} | ({"pairwise": True, "ties": 0.7, "score": True} if calibrated else {})
    expected = order([*STORIES, []], **options)
    answer = found["loaded"][str(folder)]
    order.story_tokenizer.max_input_tokens = 40
    long_text = order([sentence for story in STORIES for sentence in story])
    assert answer["long answer"]["order"] == long_text["order"]
    assert answer["long answer"]["scores"] == pytest.approx(long_text["scores"], abs=1e-4)
    assert answer["task"] == "sentence-ordering"
    assert [one["order"] for one in answer["answers"]] == [one["order"] for one in expected]
    for one, other in zip(answer["answers"], expected, strict=True):
        assert one["scores"] == pytest.approx(other["scores"], rel=1e-6, abs=1e-6)
        assert list(one) == list(other) and one["moved"] == other["moved"] and one.get("layers") == other.get("layers")
        if "coherence" in other:
            assert one["coherence"]["joints"] == pytest.approx(other["coherence"]["joints"])
            assert [cell for row in one["pairwise"] for cell in row] == pytest.approx(
                [cell for row in other["pairwise"] for cell in row]
            )
        assert one.get("confidence") == (pytest.approx(other["confidence"]) if "confidence" in other else None)
    for logits, story in zip(
        answer["logits"], tokenized(StoryTokenizer(tokenizer, model.config), STORIES), strict=True
    ):
        with torch.no_grad():
            ours = model(input_ids=torch.tensor([story.input_ids])).logits[0].tolist()
        assert logits == pytest.approx(ours, rel=1e-6, abs=1e-6)


def assert_complete(folder: Path) -> None:
    """All code of the package, unchanged, and a config that names it as it stands there."""
    for name in CODE:
        assert (folder / name).read_bytes() == (PACKAGE / name).read_bytes(), name
    text = (folder / "config.json").read_text(encoding="utf-8")
    config = json.loads(text)
    assert config["auto_map"] == AUTO_MAP
    assert config["custom_pipelines"] == CUSTOM_PIPELINES
    assert "_name_or_path" not in text and "--" not in text and str(folder.parent.parent) not in text


@pytest.fixture(scope="module")
def originals(
    model_folder: GetFolder, make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    extra = tmp_path_factory.mktemp("extra tokens")
    tokenizer = word_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["[EXTRA]"]})
    fields: dict[str, Any] = {"objective": "listmle", "confidence_temperature": 0.5}
    SentenceOrderingModel.from_encoder("rnn", tokenizer=tokenizer, **fields).save_pretrained(extra)
    save_tokenizer(tokenizer, extra)
    pairs = tmp_path_factory.mktemp("pairs")
    of_pairs = {"head": "pairs", "context_layers": 1, "objective": "pairwise", "confidence_temperature": 0.5}
    model, story_tokenizer = make_model("bert", initializer_range=0.1, **of_pairs)
    model.save_pretrained(pairs)
    save_tokenizer(story_tokenizer.tokenizer, pairs)
    return {**{name: model_folder(name) for name in MODELS}, "extra tokens": extra, "pairs": pairs}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("saved elsewhere")


@pytest.fixture(scope="module")
def on_this_version(originals: dict[str, Path], saved: Path) -> dict[str, Any]:
    jobs = [job(originals[name], saved / "5" / name, saved / "5 pipeline" / name) for name in SAVED]
    jobs += [job(originals[name]) for name in NAMES if name not in SAVED]
    return load_elsewhere(sys.executable, saved / "home 5", jobs)


@pytest.fixture(scope="module")
def on_the_old_version(
    originals: dict[str, Path], saved: Path, on_this_version: dict[str, Any], old_transformers_python: str
) -> dict[str, Any]:
    jobs = [job(originals[name], saved / "4" / name, saved / "4 pipeline" / name) for name in SAVED]
    jobs += [job(saved / "5 pipeline" / name, saved / "5 then 4" / name) for name in SAVED]
    jobs += [job(originals[name]) for name in NAMES if name not in SAVED]
    return load_elsewhere(old_transformers_python, saved / "home 4", jobs)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_gives_the_same_numbers_without_our_packages(
    name: str, originals: dict[str, Path], on_this_version: dict[str, Any]
) -> None:
    assert int(on_this_version["transformers"].partition(".")[0]) >= 5
    assert_same_numbers(on_this_version, originals[name], originals[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_model_gives_the_same_numbers_on_the_oldest_version(
    name: str, originals: dict[str, Path], on_the_old_version: dict[str, Any]
) -> None:
    assert on_the_old_version["transformers"] == "4.46.3"
    assert_same_numbers(on_the_old_version, originals[name], originals[name])


@pytest.mark.parametrize("name", SAVED)
def test_what_was_loaded_elsewhere_and_saved_there_is_complete(
    name: str, saved: Path, on_this_version: dict[str, Any]
) -> None:
    for way in ("5", "5 pipeline"):
        assert_complete(saved / way / name)


@pytest.mark.parametrize("name", SAVED)
def test_what_the_oldest_version_saved_is_complete(name: str, saved: Path, on_the_old_version: dict[str, Any]) -> None:
    for way in ("4", "4 pipeline", "5 then 4"):
        assert_complete(saved / way / name)


def test_it_loads_again_after_it_was_saved_elsewhere(
    originals: dict[str, Path], saved: Path, on_this_version: dict[str, Any]
) -> None:
    folders = {saved / way / name: name for way in ("5", "5 pipeline") for name in SAVED}
    again = load_elsewhere(sys.executable, saved / "home 5 again", [job(folder) for folder in folders])
    for folder, name in folders.items():
        assert_same_numbers(again, folder, originals[name])


def test_it_loads_again_after_the_oldest_version_saved_it(
    originals: dict[str, Path], saved: Path, on_the_old_version: dict[str, Any], old_transformers_python: str
) -> None:
    """4 → 4, 5 → 4 (loaded and saved), 4 → 5 and 5 → 4 → 5."""
    folders = {saved / way / name: name for way in ("4", "4 pipeline", "5 then 4") for name in SAVED}
    for python, home in ((old_transformers_python, "home 4 again"), (sys.executable, "home 5 at last")):
        again = load_elsewhere(python, saved / home, [job(folder) for folder in folders])
        for folder, name in folders.items():
            assert_same_numbers(again, folder, originals[name])
    for name in SAVED:
        assert_same_numbers(on_the_old_version, saved / "5 pipeline" / name, originals[name])


@cache
def imported(name: str) -> frozenset[str]:
    """The files of the package that one of its files imports itself."""
    tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1)
    return frozenset(f"{node.module}.py" for node in nodes)


ENTRIES = [*AUTO_MAP.values(), CUSTOM_PIPELINES["sentence-ordering"]["impl"], "handler.EndpointHandler"]


@pytest.mark.parametrize("entry", [str(value).partition(".")[0] + ".py" for value in ENTRIES])
def test_each_entry_names_all_the_files_it_needs(entry: str) -> None:
    """From a folder, transformers up to 5.9 copies only what the entry's own file imports."""
    needed: set[str] = set()
    waiting = [entry]
    while waiting:
        for name in imported(waiting.pop()) - needed:
            needed.add(name)
            waiting.append(name)
    assert needed - {entry} <= imported(entry)


def test_the_model_names_every_file_of_the_package() -> None:
    """It is the model's file that transformers follows when a loaded model is saved again."""
    entry = AUTO_MAP["AutoModel"].partition(".")[0] + ".py"
    assert imported(entry) == CODE - {entry}
    pipeline_entry = CUSTOM_PIPELINES["sentence-ordering"]["impl"].partition(".")[0] + ".py"  # type: ignore[attr-defined]
    assert pipeline_entry in CODE


def test_a_saved_model_brings_all_code(originals: dict[str, Path]) -> None:
    for folder in originals.values():
        assert_complete(folder)


def test_our_own_loading_asks_nothing_and_runs_no_code_of_a_folder(
    originals: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is not registered, transformers 5 asks on standard input whether to trust a folder's code."""
    asked = []

    def ask(question: str) -> str:
        asked.append(question)
        return "n"

    monkeypatch.setattr("builtins.input", ask)
    for folder in originals.values():
        tokenizer = load_tokenizer(str(folder))
        assert tokenizer.cls_token_id == SentenceOrderingModel.from_pretrained(folder).config.marker_token_id
    with pytest.raises(ValueError, match="a sentence ordering model already"):
        SentenceOrderingModel.from_encoder(str(originals["bert"]))
    folder = originals["bert"]
    AutoTokenizer.from_pretrained(folder)
    assert type(AutoConfig.from_pretrained(folder)) is SentenceOrderingConfig
    assert type(AutoModel.from_pretrained(folder)) is SentenceOrderingModel
    assert type(pipeline("sentence-ordering", model=str(folder))) is SentenceOrderingPipeline
    assert not asked


def test_extra_special_tokens_survive_in_the_form_that_every_version_reads(tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["[EXTRA]", "[MORE]"]})
    save_tokenizer(tokenizer, tmp_path)
    entries = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert entries["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert entries["additional_special_tokens"] == ["[EXTRA]", "[MORE]"]
    assert not isinstance(entries.get("extra_special_tokens"), list)
    again = load_tokenizer(str(tmp_path))
    assert again.convert_tokens_to_ids(["[EXTRA]", "[MORE]"]) == tokenizer.convert_tokens_to_ids(["[EXTRA]", "[MORE]"])
    assert {"[EXTRA]", "[MORE]"} <= set(again.all_special_tokens)
    assert not list(tmp_path.glob("*.tmp"))


def test_a_tokenizer_tells_nothing_of_the_machine_it_was_on(tmp_path: Path, make_model: MakeModel) -> None:
    _, story_tokenizer = make_model("bert")
    save_tokenizer(story_tokenizer.tokenizer, tmp_path)
    entries = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert not {"name_or_path", "is_local", "local_files_only", "tokenizer_file"} & set(entries)
