"""ONNX: the same scores as torch's for every encoder that can be exported, words for those that cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dataset_builder import Story
from modeling_sentence_ordering import SentenceOrderingModel, StoryTokenizer, load_tokenizer
from tests.modeling_sentence_ordering.small_encoders import ENCODERS, STORIES, make_batch, word_tokenizer, write_encoder
from tests.training.conftest import Trained, run_command
from training.inference.onnx_export import ExportFailed, check_scores, export_onnx
from training.inference.onnx_model import OnnxModel, load_onnx_model
from training.inference.ordering import order_stories

ONNX, INT8 = "onnx/model.onnx", "onnx/model_quantized.onnx"


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model with both ONNX files in its folder, as the command leaves it."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    shutil.copytree(trained.folder, folder)
    done = run_command("export", "--model", folder, "--quantize")
    assert done.code == 0, done.err
    assert (folder / ONNX).is_file() and (folder / INT8).stat().st_size < (folder / ONNX).stat().st_size
    assert [line.split()[0] for line in done.out.splitlines()] == ["wrote", "wrote", "next:"] and done.err == ""
    assert not list(folder.rglob("*unfinished*"))
    return folder


def ordered(model: Path, stories: Path, output: Path, *flags: str) -> list[dict[str, Any]]:
    done = run_command("order", "--model", model, stories, "--output", output, *flags)
    assert done.code == 0, done.err
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    """Stories of all lengths, one of which is longer than the encoder takes."""
    some = [[f"{word} number {place} of {count}." for place in range(count)] for count, word in enumerate("abcdefghi")]
    some.append([f"Sentence {place} of a text that goes on and on, and on." for place in range(60)])
    path = tmp_path / "stories.jsonl"
    path.write_text("".join(json.dumps({"sentences": story}) + "\n" for story in some if story), encoding="utf-8")
    return path


@pytest.mark.parametrize("flags", [(), ("--num_permutations", "3", "--batch_size", "4")])
def test_order_is_the_same_with_onnx_runtime(
    exported: Path, stories: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    torchs = ordered(exported, stories, tmp_path / "torch.jsonl", *flags)
    others = ordered(exported, stories, tmp_path / "onnx.jsonl", "--backend", "onnx", *flags)
    assert len(torchs) == 9
    for one, other in zip(torchs, others, strict=True):
        assert one["order"] == other["order"]
        assert other["scores"] == pytest.approx(one["scores"], abs=1e-4)


def test_int8_orders_nearly_the_same(exported: Path, stories: Path, tmp_path: Path) -> None:
    torchs = ordered(exported, stories, tmp_path / "torch.jsonl")
    int8 = ordered(exported, stories, tmp_path / "int8.jsonl", "--backend", "onnx-int8")
    differences = [
        abs(a - b) for one, other in zip(torchs[:-1], int8[:-1], strict=True)
        for a, b in zip(one["scores"], other["scores"], strict=True)
    ]  # fmt: skip
    assert 0 < max(differences) < 0.5
    assert all(sorted(answer["order"]) == list(range(len(answer["sentences"]))) for answer in int8)


QUICK = ("roberta", "cnn", "rnn")


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in ENCODERS if name not in QUICK)]
)
def test_every_encoder_gives_its_scores_or_says_why_not(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    if name in ("cnn", "rnn"):
        tokenizer = word_tokenizer()
        model = SentenceOrderingModel.from_encoder(name, tokenizer=tokenizer)
    else:
        write_encoder(tmp_path / "encoder", name)
        tokenizer = load_tokenizer(str(tmp_path / "encoder"))
        model = SentenceOrderingModel.from_encoder(str(tmp_path / "encoder"), reading="marker_and_mean")
    with torch.no_grad():
        model.head.weight.normal_(0, 1)
    try:
        (path,) = export_onnx(model, tokenizer, tmp_path)
    except ExportFailed as error:
        assert name == "rnn" and "cannot export the" in str(error) and "\n" not in str(error)
        assert not (tmp_path / ONNX).exists()
        return
    inputs = make_batch(StoryTokenizer(tokenizer, model.config))
    inputs.pop("labels")
    with torch.inference_mode():
        expected = model(**inputs)
    found = OnnxModel(path, model.config)(**inputs)
    assert torch.equal(found.sentence_mask, expected.sentence_mask)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=0)


def test_pair_logits_are_exported_and_decoded_as_with_torch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = word_tokenizer()
    fields: dict[str, Any] = {"head": "pairs", "pair_size": 4, "context_layers": 1, "objective": "pairwise"}
    model = SentenceOrderingModel.from_encoder("cnn", tokenizer=tokenizer, initializer_range=0.1, **fields)
    (path,) = export_onnx(model, tokenizer, tmp_path)
    exported, story_tokenizer = OnnxModel(path, model.config), StoryTokenizer(tokenizer, model.config)
    inputs = make_batch(story_tokenizer)
    inputs.pop("labels")
    with torch.inference_mode():
        torch.testing.assert_close(exported(**inputs).pair_logits, model(**inputs).pair_logits, atol=1e-4, rtol=0)
    stories = [Story(tuple(sentences), str(i)) for i, sentences in enumerate([*STORIES, STORIES[0] * 4])]
    models: list[Any] = [model, exported]
    one, other = ([answer.order for answer in order_stories(way, tokenizer, stories)] for way in models)
    assert one == other
    with torch.no_grad():
        model.head.query.weight.neg_()
    with pytest.raises(ExportFailed, match="logits"):
        check_scores(model, exported, story_tokenizer)


def test_a_file_of_other_weights_is_not_used(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported, folder)
    load_onnx_model(str(folder), "onnx")
    model = SentenceOrderingModel.from_pretrained(folder)
    with torch.no_grad():
        model.head.bias.add_(1)
    model.save_pretrained(folder)
    with pytest.raises(ValueError, match="exported from other weights.*sentence-ordering export --model"):
        load_onnx_model(str(folder), "onnx")
    assert run_command("export", "--model", folder).code == 0
    load_onnx_model(str(folder), "onnx")
    with pytest.raises(ValueError, match=f"has no {INT8}.*--quantize"):  # it was of the old weights
        load_onnx_model(str(folder), "onnx-int8")


def test_exported_to_a_folder_of_its_own(trained: Trained, stories: Path, tmp_path: Path) -> None:
    done = run_command("export", "--model", trained.folder, "--output", tmp_path / "out")
    assert done.code == 0, done.err
    assert not list((tmp_path / "out").glob("*.safetensors"))
    other = ordered(tmp_path / "out", stories, tmp_path / "other.jsonl", "--backend", "onnx")
    assert [a["order"] for a in other] == [a["order"] for a in ordered(trained.folder, stories, tmp_path / "a.jsonl")]
    again = run_command("export", "--model", trained.folder, "--output", tmp_path / "out")
    assert again.code == 2 and "contains a model" in again.err


def test_what_was_not_exported_or_is_broken_is_refused_in_one_line(
    trained: Trained, exported: Path, stories: Path, tmp_path: Path
) -> None:
    missing = run_command("order", "--model", trained.folder, stories, "--backend", "onnx")
    assert missing.code == 2 and f"has no {ONNX}" in missing.err
    shutil.copytree(exported, tmp_path / "model")
    (tmp_path / "model" / ONNX).write_bytes(b"no graph")
    broken = run_command("order", "--model", tmp_path / "model", stories, "--backend", "onnx")
    assert broken.code == 2 and "cannot be loaded" in broken.err
    assert len(missing.err.splitlines()) == len(broken.err.splitlines()) == 1
