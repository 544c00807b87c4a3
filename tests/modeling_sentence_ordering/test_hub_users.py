"""What people do with a Hub model: the scores stay those of the plain model, within a stated tolerance."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import BitsAndBytesConfig, TorchAoConfig, Trainer, TrainingArguments, pipeline

from modeling_sentence_ordering import SentenceOrderingModel, SentenceOrderingPipeline, save_tokenizer
from tests.modeling_sentence_ordering.small_encoders import STORIES, MakeModel, make_batch

# Scores of the tiny model range over about 3. A weight of int8 is rounded to 1/127 of the largest of its row.
EXACT, REORDERED, HALF, INT8 = 0.0, 1e-5, 0.08, 0.3


class Plain:
    """The model, where it was saved, and what it says of a batch."""

    def __init__(self, model: SentenceOrderingModel, tokenizer: Any, batch: dict[str, Any], folder: Path) -> None:
        self.tokenizer, self.batch, self.folder = tokenizer, batch, folder
        model.save_pretrained(folder)
        save_tokenizer(tokenizer, folder)
        self.scores = self.scores_of(model)
        self.answers = SentenceOrderingPipeline(model=model, tokenizer=tokenizer)(STORIES)

    def load(self, **options: Any) -> SentenceOrderingModel:
        return SentenceOrderingModel.from_pretrained(self.folder, **options)

    def scores_of(self, model: Any) -> torch.Tensor:
        inputs = {name: value for name, value in self.batch.items() if name != "labels"}
        with torch.no_grad():
            output = model(**inputs)
        logits: torch.Tensor = output["logits"]
        return logits.detach()

    def order(self, model: Any) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = pipeline("sentence-ordering", model=model, tokenizer=self.tokenizer)(STORIES)
        return answers


@pytest.fixture(scope="module")
def plain(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Plain:
    model, story_tokenizer = make_model("bert", initializer_range=0.3)
    folder = tmp_path_factory.mktemp("plain")
    return Plain(model, story_tokenizer.tokenizer, make_batch(story_tokenizer), folder)


def offloaded(plain: Plain) -> Any:
    return accelerate.cpu_offload(plain.load(), torch.device("cpu"))


def on_disk(plain: Plain) -> Any:
    """What `device_map="auto"` decides on where memory is short."""
    places = {"encoder.embeddings": "disk", "encoder.encoder": "cpu", "dropout": "cpu", "head": "disk"}
    return plain.load(device_map=places, offload_folder=str(plain.folder / "offloaded"))


def torchao_quantized(plain: Plain, dtype: torch.dtype = torch.float32) -> Any:
    quantization = pytest.importorskip("torchao.quantization")
    model = plain.load(dtype=dtype)
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    assert type(model.head.weight) is not nn.Parameter, "the head is quantized, too"
    return model


def torchao_reloaded(plain: Plain) -> Any:
    quantization = pytest.importorskip("torchao.quantization")
    config = TorchAoConfig(quantization.Int8WeightOnlyConfig())
    folder = plain.folder / "torchao"
    plain.load(quantization_config=config).save_pretrained(folder, safe_serialization=False)
    return SentenceOrderingModel.from_pretrained(folder)


def bitsandbytes(plain: Plain) -> Any:
    pytest.importorskip("bitsandbytes")
    return plain.load(quantization_config=BitsAndBytesConfig(load_in_8bit=True), device_map="cpu")


def bitsandbytes_head(plain: Plain) -> Any:
    layers = pytest.importorskip("bitsandbytes").nn
    model = plain.load()
    head = layers.Linear8bitLt(model.head.in_features, 1, has_fp16_weights=False)
    head.load_state_dict(model.head.state_dict())
    model.head = head.to("cpu")
    return model


def saved_and_loaded_by_torch(plain: Plain) -> Any:
    torch.save(plain.load(), plain.folder / "whole.pt")
    return torch.load(plain.folder / "whole.pt", weights_only=False)


def quantized_dynamically(plain: Plain) -> Any:
    return torch.ao.quantization.quantize_dynamic(plain.load(), {nn.Linear}, dtype=torch.qint8)


# what people do: (how, how far scores may move)
USES: dict[str, tuple[Callable[[Plain], Any], float]] = {
    "plain load": (lambda plain: plain.load(), EXACT),
    "bfloat16": (lambda plain: plain.load(dtype=torch.bfloat16), HALF),
    "float16": (lambda plain: plain.load(dtype=torch.float16), HALF),
    "cast to bfloat16": (lambda plain: plain.load().to(torch.bfloat16), HALF),
    "half()": (lambda plain: plain.load().half(), HALF),
    "double()": (lambda plain: plain.load().double(), REORDERED),
    "device_map auto": (lambda plain: plain.load(device_map="auto"), EXACT),
    "device_map to disk": (on_disk, EXACT),
    "cpu_offload": (offloaded, EXACT),
    "torchao": (torchao_quantized, INT8),
    "torchao of bfloat16": (lambda plain: torchao_quantized(plain, torch.bfloat16), INT8),
    "torchao saved and loaded": (torchao_reloaded, INT8),
    "bitsandbytes": (bitsandbytes, INT8),
    "bitsandbytes on the head": (bitsandbytes_head, INT8),
    "quantize_dynamic": (quantized_dynamically, INT8),
    "compile": (lambda plain: torch.compile(plain.load(), backend="eager"), REORDERED),
    "deepcopy": (lambda plain: copy.deepcopy(plain.load()), EXACT),
    "pickle": (lambda plain: pickle.loads(pickle.dumps(plain.load())), EXACT),
    "torch.save": (saved_and_loaded_by_torch, EXACT),
}


@pytest.mark.parametrize("use", USES)
def test_scores_stay_those_of_the_plain_model(use: str, plain: Plain) -> None:
    make, tolerance = USES[use]
    model = make(plain)
    found = plain.scores_of(model)
    assert torch.finfo(found.dtype).bits >= 32
    mask = plain.scores != -100
    torch.testing.assert_close(found.to(plain.scores), plain.scores, rtol=0, atol=tolerance)
    assert found[mask].unique().numel() == int(mask.sum()), "no two sentences tie"
    for answer, expected in zip(plain.order(model), plain.answers, strict=True):
        assert answer["scores"] == pytest.approx(expected["scores"], abs=max(tolerance, REORDERED))


def test_an_exported_model_gives_the_same_scores(plain: Plain) -> None:
    inputs = {name: value for name, value in plain.batch.items() if name != "labels"}
    exported = torch.export.export(plain.load(), (), kwargs=inputs, strict=False)
    torch.testing.assert_close(plain.scores_of(exported.module()), plain.scores, rtol=0, atol=REORDERED)


def test_hooks_on_the_head_fire_and_may_change_scores(plain: Plain) -> None:
    model = plain.load()
    model.head.register_forward_hook(lambda module, inputs, output: output + 1)
    mask = plain.scores != -100
    assert torch.allclose(plain.scores_of(model)[mask], plain.scores[mask] + 1)


LORA: dict[str, dict[str, Any]] = {
    "attention": {"target_modules": ["query", "value"]},
    "head": {"target_modules": ["head"]},
    "all-linear": {"target_modules": "all-linear"},
    "a new head": {"target_modules": ["query"], "modules_to_save": ["head"]},
    "features": {"target_modules": ["query"], "task_type": "FEATURE_EXTRACTION"},
    "tokens": {"target_modules": ["query"], "task_type": "TOKEN_CLS"},
}


@pytest.mark.parametrize("kind", LORA)
def test_lora_is_trained_saved_loaded_and_merged(kind: str, plain: Plain, tmp_path: Path) -> None:
    peft: Any = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = peft.get_peft_model(plain.load(), peft.LoraConfig(r=4, lora_alpha=8, **LORA[kind])).train()
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=0.05)
    for _ in range(3):
        model(**plain.batch).loss.backward()
        optimizer.step()
    without = [name for name, weight in trained.items() if weight.grad is None or not weight.grad.any()]
    assert not without, "each adapter gets a gradient"
    found = plain.scores_of(model.eval())
    assert not torch.allclose(found, plain.scores, atol=0.1), "training changed the scores"

    model.save_pretrained(tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(plain.load(), tmp_path / "adapter").eval()
    assert torch.equal(plain.scores_of(loaded), found)
    expected = plain.order(loaded)
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(plain.scores_of(merged), found, rtol=0, atol=REORDERED)
    merged.save_pretrained(tmp_path / "merged")
    again = SentenceOrderingModel.from_pretrained(tmp_path / "merged")
    for answer, other in zip(plain.order(again), expected, strict=True):
        assert answer["scores"] == pytest.approx(other["scores"], abs=REORDERED)


@pytest.mark.parametrize("task_type", ["FEATURE_EXTRACTION", "TOKEN_CLS"])
def test_a_prompt_before_the_story_moves_no_marker(task_type: str, plain: Plain) -> None:
    """PEFT puts its prompt before the embeddings and passes the collator's marker positions as they were."""
    peft: Any = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = peft.get_peft_model(plain.load(), peft.PromptTuningConfig(num_virtual_tokens=3, task_type=task_type))
    found = plain.scores_of(model.eval())
    prompt = model.get_prompt(batch_size=len(found)).detach()
    embeds = plain.load().get_input_embeddings()(plain.batch["input_ids"])
    longer = {
        "inputs_embeds": torch.cat([prompt, embeds], dim=1),
        "attention_mask": nn.functional.pad(plain.batch["attention_mask"], (3, 0), value=1),
        "marker_positions": torch.where(plain.batch["marker_positions"] < 0, -1, plain.batch["marker_positions"] + 3),
    }
    with torch.no_grad():
        expected = plain.load()(**longer).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=REORDERED)


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("is_adapted", [False, True])
def test_every_weight_takes_part_in_data_parallel_training(is_adapted: bool, plain: Plain, process_group: None) -> None:
    """In its second step `DistributedDataParallel` refuses a model in which a weight received no gradient."""
    model: Any = plain.load()
    if is_adapted:
        peft: Any = pytest.importorskip("peft")
        model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules="all-linear"))
    wrapped = nn.parallel.DistributedDataParallel(model)
    torch.testing.assert_close(plain.scores_of(wrapped.eval()), plain.scores, rtol=0, atol=REORDERED)
    for _ in range(3):
        wrapped.train()(**plain.batch).loss.backward()


def test_predictions_of_a_plain_trainer_do_not_depend_on_the_batch_size(plain: Plain, tmp_path: Path) -> None:
    model = plain.load()
    rows = Dataset.from_dict({"sentences": STORIES, "labels": [list(range(len(story)))[::-1] for story in STORIES]})
    collator = model.data_collator(plain.tokenizer)
    rows = rows.map(collator.tokenize, batched=True)
    found = []
    for batch_size in (1, 3, 4):
        arguments = TrainingArguments(
            str(tmp_path), per_device_eval_batch_size=batch_size, report_to=[], use_cpu=True, disable_tqdm=True
        )
        trainer = Trainer(model, arguments, data_collator=collator, compute_metrics=model.compute_metrics)
        predictions, labels, metrics = trainer.predict(rows)
        assert isinstance(predictions, np.ndarray), "the scores alone"
        np.testing.assert_array_equal(predictions == -100, labels == -100)
        found.append((predictions, {name: metrics[f"test_{name}"] for name in ("accuracy", "kendalls_tau", "pmr")}))
    for predictions, metrics in found[1:]:
        np.testing.assert_allclose(predictions, found[0][0], atol=REORDERED)
        assert metrics == found[0][1]
    for row, expected in zip(found[0][0], plain.scores, strict=True):
        np.testing.assert_allclose(row, expected, atol=REORDERED)
