"""What users of `Trainer` take for granted of `sentence-ordering train`, in each framework."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from modeling_sentence_ordering import SentenceOrderingModel
from tests.training.conftest import Command, run_command
from training.models.model_folder import read_json
from training.recipe.recipe import FRAMEWORKS

Train = Callable[..., Command]


@pytest.fixture
def train(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    monkeypatch.chdir(home)

    def run(*flags: str, folder: str = "model") -> Command:
        fixed = ("--encoder", "tiny-bert", "--data", "stories.jsonl", "--bf16", "false", "--learning_rate", "2e-3")
        return run_command("train", *fixed, "--output_dir", tmp_path / folder, *flags)

    return run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def encoder_weights(home: Path) -> dict[str, torch.Tensor]:
    model = SentenceOrderingModel.from_encoder(str(home / "tiny-bert"))
    return {name: value for name, value in model.state_dict().items() if name.startswith("encoder.")}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_frozen_encoder_keeps_its_weights(framework: str, train: Train, home: Path, tmp_path: Path) -> None:
    done = train("--framework", framework, "--freeze_encoder", "--max_steps", "3")
    assert done.code == 0, done.err
    saved = weights(tmp_path / "model")
    before = encoder_weights(home)
    assert all(torch.equal(saved[name], value) for name, value in before.items() if name in saved)
    assert len(before.keys() & saved.keys()) > 10
    assert saved["head.bias"].abs().max() > 1e-4  # it has been trained: it was zero


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_adapters_are_merged_into_a_model_like_any_other(
    framework: str, train: Train, home: Path, tmp_path: Path
) -> None:
    flags = ("--framework", framework, "--lora", "2", "--max_steps", "6", "--eval_strategy", "steps", "--eval_steps")
    done = train(*flags, "3")
    assert done.code == 0, done.err
    saved, before = weights(tmp_path / "model"), encoder_weights(home)
    assert saved.keys() == before.keys() | {"head.weight", "head.bias"}
    changed = {name for name, value in before.items() if name in saved and not torch.equal(saved[name], value)}
    assert changed and all(saved[name].ndim == 2 and "embeddings" not in name for name in changed)
    model = SentenceOrderingModel.from_pretrained(tmp_path / "model")
    assert {type(module).__module__.split(".")[0] for module in model.modules()}.isdisjoint({"peft"})
    results = read_json(tmp_path / "model" / "results.json")
    evaluated = run_command("evaluate", "--model", tmp_path / "model", "--data", "stories.jsonl", "--output_json",
                            tmp_path / "again.json")  # fmt: skip
    assert evaluated.code == 0, evaluated.err
    assert read_json(tmp_path / "again.json")["loss"] == pytest.approx(results["test"]["loss"], abs=1e-4)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_adapters_are_resumed_and_the_same_in_every_framework(framework: str, train: Train, tmp_path: Path) -> None:
    flags = ("--lora", "2", "--max_steps", "4", "--eval_strategy", "steps", "--eval_steps", "2", "--seed", "5")
    assert train(*flags, "--framework", "trainer", folder="reference").code == 0
    assert train(*flags, "--framework", framework).code == 0
    checkpoints = tmp_path / "model" / "checkpoints"
    for path in checkpoints.glob("*4*"):
        path.rename(tmp_path / path.name)
    if not any(checkpoints.iterdir()):
        pytest.skip("only the last checkpoint was kept")
    done = train(*flags, "--framework", framework, "--resume_from_checkpoint")
    assert done.code == 0, done.err
    one, other = weights(tmp_path / "model"), weights(tmp_path / "reference")
    assert max(float((one[name] - other[name]).abs().max()) for name in one) <= 1e-6


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_finished_run_is_trained_longer(framework: str, train: Train, tmp_path: Path) -> None:
    flags = ("--framework", framework, "--load_best_model_at_end", "false", "--num_train_epochs")
    assert train(*flags, "1").code == 0
    before = weights(tmp_path / "model")
    longer = train(*flags, "2", "--resume_from_checkpoint")
    assert longer.code == 0, longer.err
    rows = (tmp_path / "model" / "training_log.csv").read_text().splitlines()[1:]
    assert max(float(row.split(",")[1]) for row in rows) == 2.0
    assert not torch.equal(before["head.weight"], weights(tmp_path / "model")["head.weight"])
    shorter = train(*flags, "1", "--resume_from_checkpoint")
    assert shorter.code == 2 and "num_train_epochs" in shorter.err


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_any_optimizer_that_transformers_knows(framework: str, train: Train, tmp_path: Path) -> None:
    done = train("--framework", framework, "--optim", "adagrad", "--max_steps", "2")
    assert done.code == 0, done.err
    reference = train("--framework", "trainer", "--optim", "adagrad", "--max_steps", "2", folder="reference")
    assert reference.code == 0
    one, other = weights(tmp_path / "model"), weights(tmp_path / "reference")
    assert max(float((one[name] - other[name]).abs().max()) for name in one) <= 1e-6
    plain = train("--framework", framework, "--max_steps", "2", folder="plain")
    assert plain.code == 0
    assert not torch.equal(one["head.weight"], weights(tmp_path / "plain")["head.weight"])


@pytest.mark.parametrize("name", ["lomo", "galore_adamw_layerwise", "nonsense"])
def test_an_optimizer_that_cannot_follow_the_recipe_is_refused(name: str, train: Train) -> None:
    done = train("--optim", name, "--max_steps", "2")
    assert done.code == 2 and name in done.err


def test_an_optimizer_of_a_package_that_is_missing_is_named(train: Train) -> None:
    done = train("--optim", "schedule_free_adamw", "--max_steps", "2")
    assert done.code == 2 and "schedule_free_adamw" in done.err and done.err.count("\n") == 1


def test_only_the_first_training_stories_are_taken(train: Train, tmp_path: Path) -> None:
    assert train("--max_train_samples", "9", "--max_steps", "1").code == 0
    assert read_json(tmp_path / "model" / "results.json")["training"]["stories"] == 9
    streamed = train("--max_train_samples", "9", "--streaming", "--max_steps", "1", folder="streamed")
    assert streamed.code == 2 and "max_train_samples" in streamed.err


def test_a_limit_on_tokens_is_kept_in_the_config(train: Train, tmp_path: Path) -> None:
    assert train("--max_input_tokens", "24", "--max_steps", "1").code == 0
    assert SentenceOrderingModel.from_pretrained(tmp_path / "model").config.max_input_tokens == 24
    beyond = train("--max_input_tokens", "100000", "--max_steps", "1", folder="beyond")
    assert beyond.code == 2 and "max_input_tokens" in beyond.err


class Recorder(TrainerCallback):
    """A tracker that keeps what it is told."""

    seen: list[tuple[str, int, dict[str, float]]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        Recorder.seen.append(("begin", state.global_step, {"learning_rate": args.learning_rate}))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        Recorder.seen.append(("log", state.global_step, dict(logs)))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        Recorder.seen.append(("end", state.global_step, {}))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_trackers_get_the_rows_of_the_log(
    framework: str, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "recorder", Recorder)
    Recorder.seen.clear()
    flags = ("--framework", framework, "--max_steps", "2", "--logging_steps", "1", "--eval_strategy", "steps")
    done = train(*flags, "--eval_steps", "2", "--report_to", "recorder")
    assert done.code == 0, done.err
    begin, *rows, end = Recorder.seen
    assert begin == ("begin", 0, {"learning_rate": 2e-3}) and end[:2] == ("end", 2)
    assert [step for _, step, _ in rows] == [1, 2, 2]
    assert {"loss", "learning_rate", "grad_norm"} <= rows[0][2].keys()
    assert {"eval_loss", "eval_kendalls_tau", "eval_accuracy"} <= rows[2][2].keys()
    assert not (tmp_path / "model" / "tensorboard").exists()


def test_a_tracker_that_is_unknown_or_missing_is_refused(train: Train) -> None:
    unknown = train("--report_to", "nonsense", "--max_steps", "1")
    assert unknown.code == 2 and "nonsense" in unknown.err
    missing = train("--report_to", "clearml", "--max_steps", "1")
    assert missing.code == 2 and "clearml" in missing.err


def test_lora_is_refused_where_it_cannot_be(train: Train) -> None:
    both = train("--lora", "--freeze_encoder", "--max_steps", "1")
    assert both.code == 2 and "lora" in both.err
    cnn = train("--lora", "--encoder", "cnn", "--max_steps", "1")
    assert cnn.code == 2 and "lora" in cnn.err
