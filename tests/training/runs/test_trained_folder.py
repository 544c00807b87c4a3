"""What `sentence-ordering train` leaves: a complete repository, the same again for the same recipe, and safe."""

from __future__ import annotations

import csv
import getpass
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import modeling_sentence_ordering
from dataset_builder import load_stories, story_hash
from modeling_sentence_ordering import SentenceOrderingModel, SentenceOrderingPipeline, StoryTokenizer, load_tokenizer
from tests.training.conftest import TRAIN_FLAGS, Command, Trained, run_command
from tests.training.made_up import made_up_stories, write_jsonl
from training.data.stories import TokenizedStories
from training.evaluation.calibration import calibration_error, fit_temperature, judged_pairs
from training.evaluation.predictions import predict
from training.frameworks.run import TrainingRun
from training.frameworks.training_log import COLUMNS
from training.models.trained_model import load_trained_model
from training.recipe.recipe import FRAMEWORKS

CODE = {path.name for path in Path(modeling_sentence_ordering.__file__).parent.glob("*.py")} - {"__init__.py"}
LOADER = Path(__file__).parents[2] / "modeling_sentence_ordering" / "load_without_our_packages.py"


@pytest.fixture
def train(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Command]:
    """The command with the flags of the model that all tests share, and others that win over them."""
    monkeypatch.chdir(home)

    def run(*flags: str | Path) -> Command:
        return run_command("train", *TRAIN_FLAGS, "--output_dir", tmp_path / "model", *flags)

    return run


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every file."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def rows_of(folder: Path) -> list[dict[str, float]]:
    with open(folder / "training_log.csv", newline="", encoding="utf-8") as source:
        reader = csv.DictReader(source)
        rows = [{key: float(value) for key, value in row.items() if value} for row in reader]
    assert tuple(reader.fieldnames or ()) == COLUMNS
    return rows


def test_the_folder_is_complete_and_nothing_unfinished_is_left(trained: Trained) -> None:
    names = {path.name for path in trained.folder.iterdir()}
    assert names == CODE | {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md", "recipe.yaml",
        "results.json", "training_log.csv", "loss_curves.png", "position_heatmap.png", "training_stories.txt",
        "tensorboard", "checkpoints",
    }  # fmt: skip
    assert not [path for path in trained.folder.rglob("*") if "unfinished" in path.name]


def test_everybody_may_read_what_the_umask_lets_them(trained: Trained) -> None:
    (trained.home / "probe").touch()
    expected = stat.S_IMODE((trained.home / "probe").stat().st_mode)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in trained.folder.iterdir() if path.is_file()}
    assert modes == dict.fromkeys(modes, expected)


def test_no_file_tells_where_it_was_made(trained: Trained) -> None:
    secrets = [str(trained.home), os.path.expanduser("~") + "/", sys.prefix, str(Path(__file__).parents[3])]
    secrets += [name for name in (f"/{getpass.getuser()}/", socket.gethostname()) if len(name) > 4]
    for path in trained.folder.rglob("*"):
        if path.is_file() and path.relative_to(trained.folder).parts[0] not in ("checkpoints", "tensorboard"):
            content = path.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in content], path.name


def test_it_loads_in_another_process_without_our_packages(trained: Trained, tmp_path: Path) -> None:
    stories = [["Tom baked a cake.", "It rained.", "She opened the umbrella."], ["It rained.", "Tom baked."]]
    work = {"stories": stories, "models": [{"folder": str(trained.folder), "save_to": None, "save_pipeline_to": None}]}
    environment = os.environ | {"HF_HOME": str(tmp_path / "huggingface")}
    result = subprocess.run(
        [sys.executable, "-P", str(LOADER)], input=json.dumps(work), capture_output=True, text=True, cwd=tmp_path,
        env=environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])["loaded"][str(trained.folder)]
    order = SentenceOrderingPipeline(
        model=SentenceOrderingModel.from_pretrained(trained.folder), tokenizer=load_tokenizer(str(trained.folder))
    )
    for answer, expected in zip(found["answers"], order([*stories, []]), strict=True):
        assert answer["order"] == expected["order"]
        assert answer["scores"] == pytest.approx(expected["scores"], rel=1e-5)


def test_the_results_say_how_it_was_before_and_after(trained: Trained) -> None:
    results = trained.results
    assert list(results) == [
        "before_training",
        "training",
        "validation",
        "test",
        "calibration",
        "environment",
        "analysis",
    ]
    assert results["before_training"]["split"] == "test"
    assert results["training"]["stories"] == 48
    assert results["training"]["seconds"] > 0
    assert (results["validation"]["stories"], results["test"]["stories"]) == (4, 8)
    assert results["test"]["loss"] < results["before_training"]["loss"]
    assert {"python", "torch", "transformers", "datasets", "device"} <= set(results["environment"])
    for split in ("before_training", "validation", "test"):
        assert f"tau {results[split]['kendalls_tau']:.3f}" in trained.command.out


def test_how_sure_the_model_is_was_fitted_on_the_validation_stories(trained: Trained) -> None:
    calibration = trained.results["calibration"]
    assert list(calibration) == ["temperature", "pairs", "calibration_error"]
    stories = load_stories([str(trained.home / "stories.jsonl")])
    assert calibration["pairs"] == sum(len(story) - 1 for story in stories["validation"]["sentences"])
    model, tokenizer = load_trained_model(str(trained.folder))
    assert model.config.confidence_temperature == calibration["temperature"]
    for split in ("validation", "test"):
        pairs = judged_pairs(predict(model, TokenizedStories(stories[split], StoryTokenizer(tokenizer, model.config))))
        assert calibration["calibration_error"][split] == pytest.approx(
            calibration_error(pairs, calibration["temperature"]), abs=1e-6
        )
        if split == "validation":
            assert calibration["temperature"] == pytest.approx(fit_temperature(pairs), rel=1e-4)
    assert f"confidence: temperature {calibration['temperature']:.3f}, calibration error" in trained.command.out
    assert not list(trained.folder.glob(".unfinished*"))


def test_without_validation_stories_nothing_is_said_of_confidence(train: Any, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "test"):
        write_jsonl(folder / f"{split}.jsonl", made_up_stories(10))
    result = train("--data", folder, "--max_steps", "1")
    assert result.code == 0, result.err
    assert "calibration" not in json.loads((tmp_path / "model" / "results.json").read_text(encoding="utf-8"))
    assert load_trained_model(str(tmp_path / "model"))[0].config.confidence_temperature is None
    assert "confidence" not in result.out


def test_the_command_shows_a_story_that_was_put_in_order(trained: Trained) -> None:
    lines = trained.command.out.splitlines()
    story = load_stories([str(trained.home / "stories.jsonl")])["test"][0]["sentences"]
    start = lines.index("A story from the test split, shuffled:") + 1
    shuffled = [line.strip() for line in lines[start : start + len(story)]]
    ordered = [line.strip() for line in lines[start + len(story) + 1 : start + 2 * len(story) + 1]]
    assert shuffled != story
    assert sorted(shuffled) == sorted(story)
    places = [int(line[1]) for line in ordered]
    assert ordered == [f"[{place}] {story[place - 1]}" for place in places]
    order = SentenceOrderingPipeline(
        model=SentenceOrderingModel.from_pretrained(trained.folder), tokenizer=load_tokenizer(str(trained.folder))
    )
    assert order(shuffled)["sentences"] == [story[place - 1] for place in places]


def test_the_recipe_says_what_was_decided_on_the_way(trained: Trained) -> None:
    recipe = yaml.safe_load((trained.folder / "recipe.yaml").read_text(encoding="utf-8"))
    assert (recipe["encoder"], recipe["data"]) == ("tiny-bert", ["stories.jsonl"])
    assert (recipe["learning_rate"], recipe["bf16"], recipe["num_train_epochs"]) == (2e-3, False, 3)
    assert "output_dir" not in recipe


def test_the_log_has_every_loss_and_every_evaluation_once(trained: Trained) -> None:
    rows = rows_of(trained.folder)
    losses = [row for row in rows if "loss" in row]
    evaluations = [row for row in rows if "eval_loss" in row]
    assert [row["step"] for row in losses] == list(range(2, 19, 2))
    assert [row["step"] for row in evaluations] == [6, 12, 18]
    assert [row["epoch"] for row in evaluations] == [1, 2, 3]
    assert len(losses) + len(evaluations) == len(rows)
    assert all(set(row) == {"step", "epoch", "loss", "learning_rate", "grad_norm"} for row in losses)
    best = max(evaluations, key=lambda row: row["eval_kendalls_tau"])
    assert trained.results["validation"]["kendalls_tau"] == pytest.approx(best["eval_kendalls_tau"])


def test_tensorboard_shows_what_the_log_holds(trained: Trained) -> None:
    events = EventAccumulator(str(trained.folder / "tensorboard")).Reload()
    for tag, column in (("training/loss", "loss"), ("validation/kendalls_tau", "eval_kendalls_tau")):
        shown = [(event.step, event.value) for event in events.Scalars(tag)]
        logged = [(row["step"], row[column]) for row in rows_of(trained.folder) if column in row]
        assert shown == [(step, pytest.approx(value)) for step, value in logged]


@pytest.mark.parametrize("name", ["loss_curves.png", "position_heatmap.png"])
def test_curves_and_heatmap_are_pictures(name: str, trained: Trained) -> None:
    with Image.open(trained.folder / name) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300


def test_the_hashes_are_those_of_the_training_stories(trained: Trained) -> None:
    stories = load_stories([str(trained.home / "stories.jsonl")])["train"]
    hashes = (trained.folder / "training_stories.txt").read_text(encoding="utf-8").split()
    assert hashes == sorted(story_hash(story["sentences"]) for story in stories)


def test_the_written_recipe_makes_the_same_model_again(trained: Trained, train: Any, tmp_path: Path) -> None:
    """Bit by bit, from the recipe alone."""
    again = tmp_path / "again"
    result = run_command("train", "--config", trained.folder / "recipe.yaml", "--output_dir", again)
    assert result.code == 0, result.err
    for name in ("model.safetensors", "config.json", "training_log.csv", "recipe.yaml", "loss_curves.png"):
        assert (again / name).read_bytes() == (trained.folder / name).read_bytes(), name


@pytest.mark.parametrize("framework", [name for name in FRAMEWORKS if name != "trainer"])
def test_another_framework_makes_the_same_folder(framework: str, trained: Trained, train: Any, tmp_path: Path) -> None:
    result = train("--framework", framework)
    assert result.code == 0, result.err
    assert {path.name for path in (tmp_path / "model").iterdir()} == {path.name for path in trained.folder.iterdir()}
    found, expected = (load_file(folder / "model.safetensors") for folder in (tmp_path / "model", trained.folder))
    assert max(float((found[name] - tensor).abs().max()) for name, tensor in expected.items()) < 1e-4
    for row, other in zip(rows_of(tmp_path / "model"), rows_of(trained.folder), strict=True):
        assert row == pytest.approx(other, rel=1e-4)


def test_with_validation_data_all_other_stories_are_trained_on(train: Any, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "dev.jsonl", made_up_stories(5, seed=3))
    result = train("--validation_data", path, "--max_steps", "2")
    assert result.code == 0, result.err
    results = json.loads((tmp_path / "model" / "results.json").read_text(encoding="utf-8"))
    assert (results["training"]["stories"], results["validation"]["stories"]) == (60, 5)
    assert results["before_training"]["split"] == "validation"
    assert "test" not in results


def test_no_evaluation_while_training_is_possible_too(train: Any, tmp_path: Path) -> None:
    result = train("--eval_strategy", "no", "--no_eval_on_start", "--max_steps", "3")
    assert result.code == 0, result.err
    results = json.loads((tmp_path / "model" / "results.json").read_text(encoding="utf-8"))
    assert list(results) == ["training", "validation", "test", "calibration", "environment", "analysis"]
    assert [row["step"] for row in rows_of(tmp_path / "model")] == [2, 3]


def test_gradient_checkpointing_makes_the_same_model(trained: Trained, train: Any, tmp_path: Path) -> None:
    assert train("--gradient_checkpointing").code == 0
    found, expected = (load_file(folder / "model.safetensors") for folder in (tmp_path / "model", trained.folder))
    for name, tensor in expected.items():
        assert (found[name] - tensor).abs().max() < 1e-4, name


def test_a_folder_with_something_in_it_is_refused_and_left_alone(train: Any, tmp_path: Path) -> None:
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "sub" / "thesis.txt").write_text("all I have")
    before = snapshot(tmp_path)
    result = train()
    assert result.code == 2
    assert "is not empty" in result.err and "--overwrite_output_dir" in result.err
    assert snapshot(tmp_path) == before


def test_what_is_replaced_is_the_run_and_not_the_readme(train: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    assert train("--max_steps", "2").code == 0
    (folder / "README.md").write_text("Mine.", encoding="utf-8")  # whole: without the markers of a generated section
    (folder / "notes.txt").write_text("Mine, too.", encoding="utf-8")
    (folder / "model-00001-of-00002.safetensors").write_text("old shard")
    weights = (folder / "model.safetensors").read_bytes()
    result = train("--overwrite_output_dir", "--max_steps", "3")
    assert result.code == 0, result.err
    assert (folder / "README.md").read_text(encoding="utf-8").endswith("\n---\nMine.")
    assert "and the metadata of README.md" in result.out
    assert (folder / "notes.txt").exists()
    assert not (folder / "model-00001-of-00002.safetensors").exists()
    assert (folder / "model.safetensors").read_bytes() != weights
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"checkpoint-3", "stories.json"}
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert max(row["step"] for row in rows_of(folder)) == 3


def test_nothing_is_replaced_by_a_run_that_cannot_begin(train: Any, tmp_path: Path) -> None:
    assert train("--max_steps", "2").code == 0
    before = snapshot(tmp_path)
    for wrong in (("--encoder", "none/there/is"), ("--data", "missing.csv"), ("--early_stopping_patience", "-1")):
        assert train("--overwrite_output_dir", *wrong).code == 2
        assert snapshot(tmp_path) == before


def test_a_loss_that_is_no_number_is_a_failure_in_one_line(train: Any, tmp_path: Path) -> None:
    result = train("--learning_rate", "1e30", "--eval_strategy", "steps", "--eval_steps", "1", "--logging_steps", "1")
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert "lower --learning_rate" in result.err
    checkpoints = list((tmp_path / "model" / "checkpoints").glob("*/trainer_state.json"))
    assert checkpoints
    assert not (tmp_path / "model" / "model.safetensors").exists()


def test_the_model_is_written_before_anything_else_can_go_wrong(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no checkpoint at all, what was trained must outlive a failing evaluation."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(TrainingRun, "evaluate", fail)
    result = train("--eval_strategy", "no", "--no_eval_on_start", "--max_steps", "2")
    assert (result.code, result.err) == (1, "sentence-ordering: the disk is full\n")
    assert (tmp_path / "model" / "model.safetensors").exists()
    assert (tmp_path / "model" / "tokenizer_config.json").exists()


def test_stories_too_long_for_the_encoder_are_trained_on_and_none_of_them_is_shown(train: Any, tmp_path: Path) -> None:
    long = [[f"Tom baked {'a cake and ' * 60}{n} {place}." for place in range(4)] for n in range(12)]
    result = train("--data", write_jsonl(tmp_path / "long.jsonl", long), "--max_steps", "2")
    assert result.code == 0, result.err
    assert "were beyond the encoder's limit" not in result.out, "they are judged in windows, as they are ordered"
    assert "A story from" not in result.out


def test_early_stopping_needs_stories_to_validate_on(train: Any, tmp_path: Path, home: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "test"):
        write_jsonl(folder / f"{split}.jsonl", made_up_stories(10))
    result = train("--data", folder, "--early_stopping_patience", "1")
    assert result.code == 2
    assert "--early_stopping_patience needs validation stories" in result.err


def test_the_folder_may_be_the_one_that_one_stands_in(home: Path, tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "my-name"
    folder.mkdir()
    monkeypatch.chdir(folder)
    flags = [*TRAIN_FLAGS, "--encoder", str(home / "tiny-bert"), "--data", str(home / "stories.jsonl")]
    result = run_command("train", *flags, "--max_steps", "1", "--output_dir", ".")
    assert result.code == 0, result.err
    assert "# my-name\n" in (folder / "README.md").read_text(encoding="utf-8")
