"""The room of Lightning: what Trainer makes of a recipe, checkpoints that go on anywhere, interrupts, and silence."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from tests.modeling_sentence_ordering.small_encoders import write_encoder
from tests.training.conftest import TRAIN_FLAGS, Trained, run_command
from tests.training.small_runs import (
    Weights,
    assert_same_steps,
    difference,
    interrupt_after,
    small_run,
    train,
    weights,
)
from tests.training.system.test_interrupted import FLAGS, start
from training.frameworks.checkpoints import last_checkpoint
from training.frameworks.lightning import framework as with_lightning
from training.frameworks.lightning.checkpoints import WholeCheckpointIO
from training.frameworks.lightning.recipe_callback import named_checkpoints
from training.frameworks.run import TrainingRun
from training.frameworks.training_log import TrainingFailed, read_training_log
from training.models.model_folder import read_json


def lightning_run(folder: Path, home: Path, **fields: Any) -> TrainingRun:
    return small_run(folder, home / "tiny-bert", "lightning", **fields)


def resume(folder: Path, whole: TrainingRun, step: int, **fields: Any) -> tuple[TrainingRun, list[Weights]]:
    """Goes on after a step of a run, of which nothing later is there."""
    run = small_run(folder, Path(whole.recipe.encoder), "lightning", **fields)
    if whole.validation is None:
        run.splits = {}
    run.checkpoints.mkdir()
    for number, path in named_checkpoints(whole.checkpoints).items():
        if number <= step:
            shutil.copy(path, run.checkpoints)
    checkpoint = last_checkpoint(with_lightning, run.checkpoints)
    assert checkpoint is not None and with_lightning.checkpoint_step(checkpoint) == step
    run.log.continue_from(whole.log.rows, step)
    return run, train(run, checkpoint)


def test_refuses_nothing() -> None:
    assert with_lightning.REFUSED == {}


@pytest.mark.parametrize(
    ("encoder", "fields"),
    [
        # Its layers share their weights: whether autocast casts them once or each time makes a difference.
        pytest.param("albert", {"bf16": True, "max_steps": 9}, id="bfloat16, shared weights"),
        pytest.param("bert", {"max_grad_norm": 0.0, "max_steps": 9, "optim": "adamw_torch"}, id="no clipping"),
        pytest.param(
            "bert",
            {"gradient_accumulation_steps": 3, "dataloader_num_workers": 1, "num_train_epochs": 1.5},
            id="workers, three batches, fraction of an epoch",
        ),
        pytest.param(
            "bert",
            {"shuffle_sentences": "fixed", "train_sampling_strategy": "random", "lr_scheduler_type": "cosine"}
            | {"warmup_steps": 4, "gradient_accumulation_steps": 1, "num_train_epochs": 2},
            id="other order and schedule",
        ),
    ],
)
def test_other_recipes_give_the_weights_and_the_log_of_trainer(
    tmp_path: Path, encoder: str, fields: dict[str, Any]
) -> None:
    folder = write_encoder(tmp_path / "encoder", encoder, initializer_range=0.1, hidden_dropout_prob=0.1)
    ours, theirs = (small_run(tmp_path / name, folder, name, **fields) for name in ("lightning", "trainer"))
    steps, expected = train(ours), train(theirs)
    assert_same_steps(steps, expected)
    assert difference(weights(ours), weights(theirs))[0] == 0
    assert ours.log.rows == theirs.log.rows


@pytest.mark.parametrize(
    ("fields", "validates", "saved"),
    [
        ({"eval_strategy": "steps", "eval_steps": 3}, True, [3, 6, 9, 12, 14]),
        ({"eval_strategy": "steps", "eval_steps": 4}, False, [4, 8, 12, 14]),
        ({"eval_strategy": "epoch"}, True, [6, 12, 14]),
        ({"eval_strategy": "epoch", "dataloader_num_workers": 1}, False, [6, 12, 14]),
    ],
)
def test_goes_on_from_any_checkpoint_as_if_it_had_not_stopped(
    home: Path, tmp_path: Path, fields: dict[str, Any], validates: bool, saved: list[int]
) -> None:
    """Within an epoch (6 steps) and at its end: the same steps, weights and log, checkpoints and best weights."""
    fields = {**fields, "max_steps": 14, "save_total_limit": 9}
    whole = lightning_run(tmp_path / "whole", home, **fields)
    if not validates:
        whole.splits = {}
    steps = train(whole)
    assert sorted(named_checkpoints(whole.checkpoints)) == saved
    for step in saved:
        run, rest = resume(tmp_path / f"from {step}", whole, step, **fields)
        assert_same_steps(rest, steps[step:])
        assert difference(weights(run), weights(whole))[0] == 0
        assert run.log.rows == whole.log.rows
        assert sorted(named_checkpoints(run.checkpoints)) == saved


def test_a_run_that_was_stopped_early_stays_so(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taus = iter([0.3, 0.2, 0.1])
    metrics = ("accuracy", "pmr", "loss", "mean_logits", "std_logits")
    judged = "training.frameworks.lightning.scored_stories.evaluation_metrics"
    monkeypatch.setattr(judged, lambda *_: {"kendalls_tau": next(taus), **dict.fromkeys(metrics, 0.5)})
    fields = {"early_stopping_patience": 2, "eval_strategy": "steps", "eval_steps": 2, "max_steps": 20}
    whole = lightning_run(tmp_path / "whole", home, save_total_limit=9, **fields)
    steps = train(whole)
    assert len(steps) == 6
    assert difference(weights(whole), steps[1])[0] == 0
    run, rest = resume(tmp_path / "resumed", whole, 6, **fields)
    assert rest == []
    assert difference(weights(run), steps[1])[0] == 0


def test_keeps_the_best_checkpoint_and_the_latest(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taus = iter([0.1, 0.3, 0.2, 0.3, 0.1])
    metrics = ("accuracy", "pmr", "loss", "mean_logits", "std_logits")
    monkeypatch.setattr(
        "training.frameworks.lightning.scored_stories.evaluation_metrics",
        lambda *_: {"kendalls_tau": next(taus), **dict.fromkeys(metrics, 0.5)},
    )
    fields = {"eval_strategy": "steps", "eval_steps": 2, "max_steps": 10, "save_total_limit": 2}
    run = lightning_run(tmp_path, home, **fields)
    steps = train(run)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [
        "checkpoint-10.ckpt", "checkpoint-4.ckpt", "checkpoint-8.ckpt",
    ]  # fmt: skip
    assert difference(weights(run), steps[3])[0] == 0  # the first of two equals, and no difference is too small


def test_a_best_checkpoint_that_is_gone_is_missed(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taus = iter([0.3, 0.2, 0.1])
    metrics = ("accuracy", "pmr", "loss", "mean_logits", "std_logits")
    monkeypatch.setattr(
        "training.frameworks.lightning.scored_stories.evaluation_metrics",
        lambda *_: {"kendalls_tau": next(taus), **dict.fromkeys(metrics, 0.5)},
    )
    fields = {"eval_strategy": "steps", "eval_steps": 2, "max_steps": 6}
    whole = lightning_run(tmp_path / "whole", home, save_total_limit=9, **fields)
    steps = train(whole)
    (whole.checkpoints / "checkpoint-2.ckpt").unlink()
    with pytest.warns(UserWarning, match="best checkpoint.*step 2"):
        run, _ = resume(tmp_path / "resumed", whole, 6, **fields)
    assert difference(weights(run), steps[-1])[0] == 0


def test_a_checkpoint_holds_nothing_but_plain_values(home: Path, tmp_path: Path) -> None:
    run = lightning_run(tmp_path, home, max_steps=2, early_stopping_patience=3)
    train(run)
    content = torch.load(run.checkpoints / "checkpoint-2.ckpt", weights_only=True)
    assert content["global_step"] == 2
    assert content["hyper_parameters"]["learning_rate"] == run.recipe.learning_rate
    assert content["callbacks"]["EarlyStopping{'monitor': 'val_kendalls_tau', 'mode': 'max'}"]["patience"] == 3


def test_what_is_cut_off_or_something_else_is_no_checkpoint(home: Path, tmp_path: Path) -> None:
    run = lightning_run(tmp_path, home, max_steps=2)
    train(run)
    whole = run.checkpoints / "checkpoint-2.ckpt"
    (run.checkpoints / "checkpoint-7.ckpt").write_bytes(whole.read_bytes()[:2000])
    (run.checkpoints / "checkpoint-8.ckpt").mkdir()
    (run.checkpoints / "checkpoint-x.ckpt").write_bytes(whole.read_bytes())
    torch.save({"global_step": 9}, run.checkpoints / "checkpoint-9.ckpt")
    for name in ("checkpoint-7.ckpt", "checkpoint-8.ckpt", "checkpoint-9.ckpt", "checkpoint-10.ckpt"):
        with pytest.raises(ValueError, match=name) as error:
            with_lightning.checkpoint_step(run.checkpoints / name)
        assert "\n" not in str(error.value)
    assert last_checkpoint(with_lightning, run.checkpoints) == whole


def test_a_checkpoint_has_its_name_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save_half(_: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError("no space left on device")

    checkpoint = tmp_path / "folder" / "checkpoint-1.ckpt"
    monkeypatch.setattr(torch, "save", save_half)
    with pytest.raises(OSError, match="no space"):
        WholeCheckpointIO().save_checkpoint({}, checkpoint)
    assert list(checkpoint.parent.iterdir()) == []


def test_a_checkpoint_of_another_model_is_refused_in_one_line(home: Path, tmp_path: Path) -> None:
    run = lightning_run(tmp_path / "one", home, max_steps=2)
    train(run)
    encoder = write_encoder(tmp_path / "encoder", "distilbert")
    other = small_run(tmp_path / "other", encoder, "lightning", max_steps=2)
    with pytest.raises(ValueError, match="^the checkpoint is of another model: .*$"):
        train(other, run.checkpoints / "checkpoint-2.ckpt")


def test_a_loss_that_is_no_number_comes_out_as_it_is(home: Path, tmp_path: Path) -> None:
    run = lightning_run(tmp_path, home, max_steps=20, logging_steps=3, eval_strategy="no")
    with torch.no_grad():
        run.model.head.bias.fill_(float("nan"))
    with pytest.raises(TrainingFailed, match="loss is nan at step 1, of the stories "):
        train(run)
    assert read_training_log(run.log.path) == []


def test_ctrl_c_comes_out_and_works_the_next_time(home: Path, tmp_path: Path) -> None:
    fields = {"eval_strategy": "steps", "eval_steps": 2, "max_steps": 8, "save_total_limit": 9}
    handler = signal.getsignal(signal.SIGINT)
    run = lightning_run(tmp_path / "interrupted", home, **fields)
    hook = interrupt_after(5)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(run)
    finally:
        hook.remove()
    assert signal.getsignal(signal.SIGINT) is handler
    whole = lightning_run(tmp_path / "whole", home, **fields)
    train(whole)
    resumed, _ = resume(tmp_path / "resumed", run, 4, **fields)
    assert difference(weights(resumed), weights(whole))[0] == 0
    assert resumed.log.rows == whole.log.rows


def test_ctrl_c_before_training_comes_out_and_works_the_next_time(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(with_lightning.StoryDataModule, "setup", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(lightning_run(tmp_path, home))
    assert signal.getsignal(signal.SIGINT) is handler


def test_the_command_exits_with_130_after_ctrl_c(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    hook = interrupt_after(2)
    try:
        command = run_command("train", *TRAIN_FLAGS, "--framework", "lightning", "--output_dir", tmp_path / "model")
    finally:
        hook.remove()
    assert (command.code, command.err) == (130, "sentence-ordering: interrupted\n")


def test_sigterm_ends_the_process_as_it_would_any_other(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = signal.signal(signal.SIGTERM, lambda *_: None)  # whatever happens, the tests go on
    hook = register_optimizer_step_post_hook(lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        with pytest.raises(SystemExit) as stop:
            train(lightning_run(tmp_path, home, max_steps=4))
    finally:
        hook.remove()
        signal.signal(signal.SIGTERM, old)
    assert stop.value.code == 143


@pytest.fixture(scope="module")
def killed(home: Path) -> Iterator[Path]:
    """The folder of a command that was killed at some moment after its second checkpoint."""
    folder = home / "killed-lightning"
    process = start(["train", *FLAGS, "--framework", "lightning", "--output_dir", folder.name], home)
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and len(named_checkpoints(folder / "checkpoints")) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.5))
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
        yield folder
    finally:
        process.kill()
        process.wait()


def test_a_killed_command_that_is_resumed_makes_the_model_of_one_that_was_not(
    killed: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    flags = [*FLAGS, "--framework", "lightning"]
    whole = run_command("train", *flags, "--output_dir", "whole-lightning")
    assert whole.code == 0, whole.err
    resumed = run_command("train", *flags, "--output_dir", killed, "--resume_from_checkpoint")
    assert resumed.code == 0, resumed.err
    for name in ("model.safetensors", "config.json", "recipe.yaml"):
        assert (killed / name).read_bytes() == (home / "whole-lightning" / name).read_bytes(), name
    rows, expected = (read_training_log(folder / "training_log.csv") for folder in (killed, home / "whole-lightning"))
    assert rows == expected


def test_says_nothing_without_a_terminal(
    home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run = lightning_run(tmp_path, home, max_steps=12, early_stopping_patience=5)
    capfd.readouterr()
    train(run)
    assert capfd.readouterr() == ("", "")
    assert [record.getMessage() for record in caplog.records if "lightning" in record.name] == []


@pytest.mark.filterwarnings("error:.*:UserWarning")
def test_nothing_is_warned_of(home: Path, tmp_path: Path) -> None:
    fields = {"max_steps": 8, "eval_strategy": "steps", "eval_steps": 4, "save_total_limit": 9}
    run = lightning_run(tmp_path / "whole", home, **fields)
    train(run)
    resume(tmp_path / "resumed", run, 4, **fields)


def test_the_command_gives_the_same_folder_and_results_as_with_trainer(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.home)
    folder = tmp_path / "model"
    command = run_command("train", *TRAIN_FLAGS, "--framework", "lightning", "--output_dir", folder)
    assert command.code == 0, command.err
    assert {path.name for path in folder.iterdir()} == {path.name for path in trained.folder.iterdir()}
    results = read_json(folder / "results.json")
    for split in ("before_training", "validation", "test"):
        assert results[split] == trained.results[split]
    for name in ("training_log.csv", "model.safetensors"):
        assert (folder / name).read_bytes() == (trained.folder / name).read_bytes()
