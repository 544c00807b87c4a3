"""`--fsdp` and `--fp16`: refused where there is no GPU, and otherwise handed to the frameworks as they want it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.strategies import FSDPStrategy
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from transformers.models.bert.modeling_bert import BertLayer

from modeling_sentence_ordering import SentenceOrderingModel
from tests.modeling_sentence_ordering.small_encoders import ENCODERS, write_encoder
from tests.training.conftest import run_command
from tests.training.framework_runs import assert_same_weights, make_run
from training.frameworks.lightning.framework import CachedAutocast, build_strategy, build_trainer
from training.frameworks.optimization import parameter_groups, remember_dimensions
from training.frameworks.protocol import load_framework, resolved_for
from training.frameworks.trainer.framework import training_arguments
from training.models.sharded_model import gathered_weights, layer_classes, whole_model
from training.recipe.recipe import Recipe
from training.system.processes import Processes

MakeRecipe = Callable[..., Recipe]
NEEDED = {"encoder": "bert-base-cased", "data": ["sample"], "output_dir": "out"}


@pytest.mark.parametrize("framework", ["trainer", "lightning"])
@pytest.mark.parametrize("flag", ["fsdp", "fp16"])
def test_both_are_refused_without_a_gpu(framework: str, flag: str, home: Path, tmp_path: Path) -> None:
    assert not torch.cuda.is_available()
    command = ["train", "--encoder", str(home / "tiny-bert"), "--data", "sample", "--output_dir", str(tmp_path / "new")]
    result = run_command(*command, "--framework", framework, f"--{flag}")
    assert result.code == 2
    assert result.err == f"sentence-ordering: --{flag} needs CUDA GPUs, and this machine has none: leave it out\n"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--fp16", "--bf16"], "--fp16 and --bf16 cannot be combined"),
        (["--fsdp", "--encoder", "rnn"], "--fsdp shards a pretrained encoder, and 'rnn' is not one"),
        (["--fsdp"], "--fsdp shards a model over several GPUs: start a process for each, torchrun … train --fsdp"),
        (["--fp16", "--framework", "poutyne"], "--fp16 is not for --framework poutyne: Poutyne does not scale the "
         "loss, and small gradients would vanish; try trainer or lightning"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(
    flags: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.frameworks.protocol.has_gpu", lambda: True)
    command = ["train", "--encoder", "tiny-bert", "--data", "sample", "--output_dir", str(tmp_path / "new")]
    result = run_command(*command, *flags)
    assert (result.code, result.err.count("\n")) == (2, 1) and complaint in result.err


@pytest.mark.parametrize(
    ("has_gpu", "has_bf16", "given", "bf16", "fp16"),
    [
        (True, False, {}, False, True),
        (True, True, {}, True, False),
        (False, False, {}, False, False),
        (True, True, {"fp16": True}, False, True),
        (True, False, {"fp16": False}, False, False),
        (True, False, {"bf16": False}, False, False),
        (True, False, {"framework": "poutyne"}, False, False),
    ],
)
def test_half_precision_is_what_the_hardware_has_unless_it_is_given(
    has_gpu: bool, has_bf16: bool, given: dict[str, object], bf16: bool, fp16: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("training.recipe.recipe.computes_in_bf16", lambda: has_bf16)
    monkeypatch.setattr("training.recipe.recipe.has_gpu", lambda: has_gpu)
    recipe = dataclasses.replace(Recipe(**NEEDED), **given)  # type: ignore[arg-type]
    resolved = resolved_for(recipe, load_framework(recipe.framework))
    assert (resolved.bf16, resolved.fp16) == (bf16, fp16)
    resolved.check()


@pytest.mark.parametrize("name", sorted(set(ENCODERS)))
def test_an_encoder_is_cut_into_its_layers(name: str, tmp_path: Path) -> None:
    write_encoder(tmp_path / name, name)
    model = SentenceOrderingModel.from_encoder(str(tmp_path / name))
    (layer,) = layer_classes(model)
    within = {id(weight) for part in model.modules() if isinstance(part, layer) for weight in part.parameters()}
    outside = [name for name, weight in model.encoder.named_parameters() if id(weight) not in within]
    assert within
    assert not [name for name in outside if any(part in name for part in (".attention.", ".attn.", ".ffn."))]


def test_trainer_is_told_to_shard_everything_and_to_save_it_whole(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(fsdp=True)
    arguments = training_arguments(recipe, make_run(recipe), 12)
    assert arguments.fsdp_plugin_args == {
        "fsdp_version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "transformer_cls_names_to_wrap": "BertLayer",
        "cpu_ram_efficient_loading": False,
        "state_dict_type": "FULL_STATE_DICT",
        "reshard_after_forward": True,
    }
    assert training_arguments(make_recipe(), make_run(make_recipe()), 12).fsdp_plugin_args is None


def test_lightning_is_told_to_shard_everything_and_to_save_it_whole(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(fsdp=True, framework="lightning")
    run = make_run(recipe)
    run.processes = Processes(0, 2, 0, 2)
    strategy = build_strategy(run)
    assert isinstance(strategy, FSDPStrategy)
    assert strategy._state_dict_type == "full"
    assert strategy.sharding_strategy.name == "FULL_SHARD"
    policy = strategy.kwargs["auto_wrap_policy"]
    assert isinstance(policy, ModuleWrapPolicy)
    assert policy._module_classes == {BertLayer}
    # Lightning goes as far as to look for the GPUs.
    with pytest.raises(ValueError, match="requires a GPU accelerator"):
        build_trainer(run, 12, [])


def test_fp16_is_computed_with_a_scaled_loss() -> None:
    assert CachedAutocast("16-mixed", "cpu").scaler is not None
    assert CachedAutocast("16-mixed", "cpu").autocast_context_manager().fast_dtype is torch.float16
    assert CachedAutocast("bf16-mixed", "cpu").scaler is None
    assert CachedAutocast("bf16-mixed", "cpu").autocast_context_manager().fast_dtype is torch.bfloat16


@pytest.fixture
def alone() -> Iterator[None]:
    """A group of this process alone, in which a model can be cut as among several."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_a_model_that_was_cut_is_put_together(home: Path, alone: None) -> None:
    model = SentenceOrderingModel.from_encoder(str(home / "tiny-bert"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    mesh = init_device_mesh("cpu", (1,))
    for layer in model.modules():
        if type(layer) in layer_classes(model):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert all(hasattr(parameter, "full_tensor") for parameter in model.parameters())
    whole = whole_model(model, gathered_weights(model))
    assert not any(hasattr(parameter, "full_tensor") for parameter in whole.parameters())
    assert_same_weights(whole, before)


def test_flat_pieces_of_weights_decay_as_the_weights_do(home: Path, alone: None) -> None:
    """Lightning's FSDP makes all that it cuts flat, and biases and norms are known by their single dimension."""

    def ids(groups: list[dict[str, Any]]) -> list[list[int]]:
        return [[id(parameter) for parameter in group["params"]] for group in groups]

    model = SentenceOrderingModel.from_encoder(str(home / "tiny-bert"))
    expected = ids(parameter_groups(model, 0.1))
    remember_dimensions(model)
    with pytest.warns(UserWarning, match="NO_SHARD"):
        cut = FullyShardedDataParallel(
            model, auto_wrap_policy=ModuleWrapPolicy({BertLayer}), use_orig_params=True, device_id=torch.device("cpu")
        )
    for parameter in cut.parameters():  # of one process they stay whole
        parameter.data = parameter.data.flatten()
    assert ids(parameter_groups(cut, 0.1)) == expected
    assert all(expected)
