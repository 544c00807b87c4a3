"""The recipe: its defaults, where its values come from, what it refuses, and what of it may be published."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modeling_sentence_ordering import OBJECTIVES as MODEL_OBJECTIVES
from modeling_sentence_ordering import configuration_sentence_ordering as model_config
from training.commands.command_line import program_parser
from training.commands.parsing import recipe_of
from training.recipe.file import named_recipe, read_recipe_file, recipe_names
from training.recipe.recipe import (
    HEADS,
    OBJECTIVES,
    READINGS,
    TARGET_SCALES,
    Recipe,
    RecipeError,
    computes_in_bf16,
    shareable,
)
from training.recipe.settings import settings_of

NEEDED: dict[str, Any] = {"encoder": "org/encoder", "data": ["sample"], "output_dir": "out"}
NEEDED_FLAGS = ["--encoder", "org/encoder", "--data", "sample", "--output_dir", "out"]


def recipe_from(flags: list[str]) -> Recipe:
    return recipe_of(program_parser()[0].parse_args(["train", *flags]))


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_defaults_are_those_of_the_project() -> None:
    recipe = recipe_from(NEEDED_FLAGS)
    assert recipe == Recipe(**NEEDED)
    expected: dict[str, Any] = {
        "framework": "trainer",
        "objective": "mse",
        "target_scale": "index",
        "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 3,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "seed": 42,
        "shuffle_sentences": "fresh",
        "train_sampling_strategy": "group_by_length",
        "load_best_model_at_end": True,
        "metric_for_best_model": "kendalls_tau",
        "test_size": 0.2,
        "validation_size": 0.3,
        "data_seed": 42,
        "split_sentences": None,
    }
    assert {name: getattr(recipe, name) for name in expected} == expected
    recipe.check()


@pytest.mark.parametrize(("encoder", "rate"), [("org/encoder", 3e-5), ("minilm", 3e-5), ("cnn", 1e-3), ("rnn", 1e-3)])
def test_the_default_learning_rate_depends_on_the_encoder_unless_it_is_given(encoder: str, rate: float) -> None:
    recipe = Recipe(**{**NEEDED, "encoder": encoder})
    assert recipe.learning_rate is None
    assert recipe.resolved().learning_rate == rate
    assert dataclasses.replace(recipe, learning_rate=0.5).resolved().learning_rate == 0.5


@pytest.mark.parametrize("able", [True, False])
def test_bf16_is_what_the_hardware_has_unless_it_is_given(able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.recipe.recipe.computes_in_bf16", lambda: able)
    recipe = Recipe(**NEEDED)
    assert recipe.resolved().bf16 is able
    assert dataclasses.replace(recipe, bf16=not able).resolved().bf16 is (not able)


@pytest.mark.parametrize(
    ("capability", "amx", "avx512", "expected"),
    [
        ((8, 0), False, False, True),
        ((9, 0), False, False, True),
        ((7, 5), True, True, False),
        (None, True, False, True),
        (None, False, True, True),
        (None, False, False, False),
    ],
)
def test_which_hardware_has_bf16(
    capability: tuple[int, int] | None, amx: bool, avx512: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert computes_in_bf16() is expected


@pytest.mark.parametrize("name", ["recipe.yaml", "recipe.json"])
def test_flags_win_over_the_file_and_the_file_over_the_defaults(name: str, tmp_path: Path) -> None:
    values = {"learning_rate": 1e-4, "seed": 7, "data": "mine.csv", "bf16": False, "eval_on_start": False}
    text = json.dumps(values) if name.endswith("json") else yaml.safe_dump(values)
    flags = ["--config", write(tmp_path / name, text), "--seed", "8", "--encoder", "cnn", "--output_dir", "out"]
    recipe = recipe_from(flags)
    assert (recipe.learning_rate, recipe.seed, recipe.data) == (1e-4, 8, ["mine.csv"])
    assert (recipe.bf16, recipe.eval_on_start, recipe.weight_decay) == (False, False, 0.01)
    assert recipe_from([*flags, "--bf16", "--eval_on_start", "true"]).bf16 is True
    assert recipe_from([*flags, "--eval_on_start", "true"]).eval_on_start is True
    assert recipe_from([*flags, "--data", "sample", "b.csv"]).data == ["sample", "b.csv"]
    assert recipe_from([f"--config={flags[1]}", *flags[2:]]) == recipe


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("learning_rate: 3e-5", "learning_rate", 3e-5),  # which YAML takes for text
        ("num_train_epochs: 2", "num_train_epochs", 2.0),
        ("warmup_steps: 100", "warmup_steps", 100.0),
        ("max_steps: 20.0", "max_steps", 20),
        ("data: a.csv", "data", ["a.csv"]),
        ("data: [a.csv, b.csv]", "data", ["a.csv", "b.csv"]),
        ("learning_rate: null", "learning_rate", None),
        ("eval_strategy: no", "eval_strategy", "no"),  # which YAML takes for false
        ("encoder_config: {num_filters: 32}", "encoder_config", '{"num_filters": 32}'),
        ("encoder_config: '{\"num_filters\": 32}'", "encoder_config", '{"num_filters": 32}'),
    ],
)
def test_values_of_a_file_get_the_type_of_their_field(text: str, field: str, value: Any, tmp_path: Path) -> None:
    (read,) = read_recipe_file(write(tmp_path / "recipe.yaml", text)).items()
    assert read == (field, value)
    assert type(read[1]) is type(value)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("learning_rat: 1", ["'learning_rat'", "'learning_rate'"]),
        ("zzzzz: 1", ["'zzzzz'"]),
        ("- 1\n- 2", ["mapping"]),
        ("", ["mapping"]),
        ("a: [1\nb: 2", ["YAML"]),
        ('{"seed": 1,,}', ["YAML"]),
        ("seed: 1.5", ["seed", "whole number", "1.5"]),
        ("seed: .inf", ["seed", "whole number", "inf"]),
        ("seed: true", ["seed", "whole number", "True"]),
        ("seed: null", ["seed", "whole number", "None"]),
        ("seed: -1", ["seed", "between 0 and 4294967295", "-1"]),
        ("learning_rate: fast", ["learning_rate", "number", "'fast'"]),
        ("learning_rate: 0", ["learning_rate", "above 0"]),
        ("bf16: 1", ["bf16", "true or false", "1"]),
        ("objective: mea", ["objective", "'mea'", "mse", "pairwise"]),
        ("encoder: [cnn]", ["encoder", "text", "['cnn']"]),
        ("encoder: null", ["encoder", "text", "None"]),
        ("data: 3", ["data", "list", "3"]),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_one_line(text: str, facts: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", text)
    with pytest.raises(RecipeError) as refusal:
        read_recipe_file(path)
    assert all(fact in str(refusal.value) for fact in [path, *facts]), refusal.value
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [None, b"seed: \xff"])
def test_a_file_that_cannot_be_read_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match="cannot read the recipe .*recipe.yaml: "):
        read_recipe_file(path)


def test_names_are_those_of_the_modeling_package() -> None:
    """The recipe repeats them because importing the package would make `--help` wait for torch."""
    assert set(OBJECTIVES) == set(MODEL_OBJECTIVES)
    assert (HEADS, READINGS, TARGET_SCALES) == (
        model_config.HEADS, model_config.READINGS, model_config.TARGET_SCALES)  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "facts"),
    [
        (["--seed", "-1"], ["--seed", "between 0 and 4294967295", "-1"]),
        (["--test_size=1"], ["--test_size", "above 0 and below 1"]),
        (["--objective", "mea"], ["objective", "'mea'", "did you mean mse", "pairwise"]),
        (["--bf16", "perhaps"], ["--bf16", "true or false", "'perhaps'"]),
        (["--max_steps", "1e3"], ["--max_steps", "whole number", "'1e3'"]),
    ],
)
def test_a_flag_is_checked_by_what_the_field_states(
    flags: list[str], facts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        recipe_from([*NEEDED_FLAGS, *flags])
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(fact in error for fact in facts), error


def test_flags_may_have_hyphens() -> None:
    assert recipe_from([*NEEDED_FLAGS, "--max-steps", "3", "--no-eval-on-start", "--data-seed=7"]) == Recipe(
        **NEEDED, max_steps=3, eval_on_start=False, data_seed=7)  # fmt: skip


def test_every_default_is_a_value_that_its_field_allows() -> None:
    for name, setting in settings_of(Recipe).items():
        assert setting.parse(getattr(Recipe(), name)) == setting.default, name


IMPOSSIBLE = [
    ("encoder", ""), ("data", []), ("output_dir", ""),
    ("data", [{"sentences": ["It rained.", "She left."]}]), ("validation_data", [["It rained.", "She left."]]),
    ("framework", "keras"), ("objective", "mae"), ("target_scale", "log"), ("lr_scheduler_type", "up"),
    ("optim", "lomo"), ("shuffle_sentences", "never"), ("train_sampling_strategy", "sorted"),
    ("eval_strategy", "daily"), ("metric_for_best_model", "bleu"),
    ("learning_rate", 0.0), ("learning_rate", -1e-5), ("learning_rate", float("nan")), ("learning_rate", float("inf")),
    ("per_device_train_batch_size", 0), ("per_device_eval_batch_size", -1), ("gradient_accumulation_steps", 0),
    ("num_train_epochs", -1.0), ("num_train_epochs", 0.0), ("num_train_epochs", float("nan")),
    ("max_steps", 0), ("max_steps", -2), ("warmup_steps", -0.1), ("weight_decay", -0.01),
    ("adam_beta1", 1.0), ("adam_beta1", -0.1), ("adam_beta2", 1.0), ("adam_epsilon", -1.0), ("max_grad_norm", -1.0),
    ("seed", -1), ("seed", 2**32), ("data_seed", -1), ("data_seed", 2**32), ("vocab_size", 63),
    ("eval_steps", 0), ("logging_steps", 0), ("early_stopping_patience", -1), ("save_total_limit", 0),
    ("dataloader_num_workers", -1),
    ("test_size", 0.0), ("test_size", 1.0), ("validation_size", 0.0), ("validation_size", 1.0), ("test_size", -0.2),
    ("passage_sentences", [1, 5]), ("passage_sentences", [5]), ("passage_sentences", [5, 4]),
    ("passage_sentences", ["a", "b"]), ("passage_sentences", 5), ("passage_sentences", "5 9"),
    ("encoder_config", "{"), ("encoder_config", "[1]"), ("encoder_config", '{"num_layers": 2}'),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), IMPOSSIBLE, ids=lambda value: str(value)[:30])
def test_what_cannot_be_meant_is_refused_in_one_line_that_names_the_field(field: str, value: Any) -> None:
    recipe = Recipe(**{**NEEDED, field: value})
    with pytest.raises(RecipeError) as refusal:
        recipe.check()
    assert field in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_early_stopping_needs_evaluations() -> None:
    with pytest.raises(RecipeError, match="--early_stopping_patience needs evaluations"):
        Recipe(**NEEDED, early_stopping_patience=2, eval_strategy="no").check()


@pytest.mark.parametrize(
    "fields",
    [
        {"max_steps": 1, "num_train_epochs": 0.0},
        {"warmup_steps": 0.0, "weight_decay": 0.0, "max_grad_norm": 0.0, "adam_beta1": 0.0},
        {"encoder": "rnn", "encoder_config": '{"num_layers": 2}'},
        {"num_train_epochs": 0.5, "seed": 0, "data_seed": 2**32 - 1},
    ],
)
def test_what_is_unusual_but_possible_is_not_refused(fields: dict[str, Any]) -> None:
    Recipe(**{**NEEDED, **fields}).check()


@given(st.floats(0.01, 20), st.integers(1, 1000), st.integers(-1, 50).filter(bool), st.floats(0.001, 30))
def test_steps_and_warm_up(epochs: float, per_epoch: int, max_steps: int, warmup: float) -> None:
    recipe = Recipe(**NEEDED, num_train_epochs=epochs, max_steps=max_steps, warmup_steps=warmup)
    total = recipe.total_steps(per_epoch)
    if max_steps > 0:
        assert total == max_steps
    else:
        assert total >= 1 and epochs * per_epoch <= total < epochs * per_epoch + 1
    expected = warmup * total if warmup < 1 else int(warmup)
    assert expected <= recipe.warmup(total) < expected + 1


def test_what_is_published_has_no_folder_of_this_machine(tmp_path: Path) -> None:
    recipe = Recipe(
        encoder=str(tmp_path / "models" / "my-bert"),
        data=[str(tmp_path / "a.csv"), "sample", "../b.csv", "data/c.csv", "./../../private/d.csv", "~/e.csv", "org/f"],
        validation_data=[f"{tmp_path}/dev/"],
        output_dir=str(tmp_path / "out"),
        resume_from_checkpoint=str(tmp_path / "out" / "checkpoints"),
        overwrite_output_dir=True,
    )
    values = shareable(recipe)
    assert values["encoder"] == "my-bert"
    assert values["data"] == ["a.csv", "sample", "b.csv", "data/c.csv", "d.csv", "e.csv", "org/f"]
    assert values["validation_data"] == ["dev"]
    assert not {"output_dir", "resume_from_checkpoint", "overwrite_output_dir"} & set(values)
    assert str(tmp_path) not in yaml.safe_dump(values)


def test_what_is_published_says_everything_that_decides_the_model() -> None:
    recipe = Recipe(**NEEDED, seed=3, validation_data=["v.csv"], encoder_config=None).resolved()
    values = shareable(recipe)
    assert Recipe(**values, output_dir="out") == recipe
    assert set(values) >= {spec.name for spec in dataclasses.fields(Recipe)} - {
        "output_dir", "resume_from_checkpoint", "overwrite_output_dir", "report_to", "encoder_config", "reading",
        "max_input_tokens", "max_train_samples", "lora", "split_sentences", "passage_sentences",
        "head_learning_rate", "attn_implementation", "per_device_train_batch_tokens",
        "head", "pair_size", "context_layers"}  # fmt: skip


def test_numbers_of_numpy_become_plain_ones() -> None:
    numbers: dict[str, Any] = {"seed": np.int64(3), "learning_rate": np.float64(1e-4), "max_steps": np.int32(2)}
    recipe = Recipe(encoder="cnn", **numbers)
    values = [recipe.seed, recipe.learning_rate, recipe.max_steps]
    assert values == [3, 1e-4, 2] and [type(value) for value in values] == [int, float, int]


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_of_the_package_can_be_run_and_flags_override_it(name: str) -> None:
    fields = named_recipe(name)
    given = ["--encoder", "cnn", "--data", "sample", "--output_dir", "out", "--recipe", name]
    recipe = recipe_from([*given, "--num_train_epochs", "1"])
    recipe.check()
    assert {key: getattr(recipe, key) for key in fields} == {**fields, "num_train_epochs": 1.0}


def test_the_guide_s_recipe_is_the_default_objective() -> None:
    assert {"guide", "small", "base"} <= set(recipe_names())
    default = Recipe()
    assert (default.objective, default.resolved().learning_rate) == ("mse", 3e-5)
    assert named_recipe("guide")["objective"] == default.objective


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(RecipeError, match="guide"):
        recipe_from(["--encoder", "cnn", "--data", "sample", "--output_dir", "out", "--recipe", "nonsense"])
