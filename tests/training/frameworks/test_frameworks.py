"""What every framework must do alike: the recipe's steps, its seeds, its best weights, and going on after a kill."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from modeling_sentence_ordering import SentenceOrderingModel
from tests.training.framework_runs import (
    Killed,
    WatchedLog,
    WatchedRun,
    assert_same_weights,
    make_run,
    resume,
    train,
    weights_of,
)
from training.data.stories import training_loader
from training.evaluation import predictions as evaluation
from training.evaluation.predictions import evaluate
from training.frameworks.checkpoints import last_checkpoint
from training.frameworks.optimization import build_optimizer, build_schedule, seed_step
from training.frameworks.protocol import Framework, load_framework, refuse_unsupported
from training.frameworks.run import TrainingRun
from training.models.encoders import checkpoint_activations
from training.recipe.recipe import Recipe, RecipeError

MakeRecipe = Callable[..., Recipe]


def plain_loop(run: TrainingRun) -> Iterator[dict[str, float]]:
    """The reference: the recipe in a dozen lines of PyTorch. Yields loss, learning rate and norm of each step."""
    recipe, model = run.recipe, run.model
    loader = training_loader(run.training, recipe)
    size = recipe.gradient_accumulation_steps
    total = recipe.total_steps(len(loader) // size)
    optimizer = build_optimizer(model, recipe)
    schedule = build_schedule(optimizer, recipe, total)
    model.train()
    step = 0
    while step < total:
        loader.set_epoch(step // (len(loader) // size))
        batches = list(loader)
        for start in range(0, len(batches), size):
            if step == total:
                return
            seed_step(recipe, step)
            losses = []
            for batch in batches[start : start + size]:
                losses.append(model(**batch).loss / size)
                losses[-1].backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm or math.inf)
            rate = schedule.get_last_lr()[0]
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            loss = float(torch.stack(losses).detach().sum())
            yield {"step": step, "loss": loss, "learning_rate": float(rate), "grad_norm": float(norm.detach())}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {
            "per_device_train_batch_size": 3,
            "gradient_accumulation_steps": 3,
            "max_steps": 13,
            "shuffle_sentences": "fixed",
        },
        {
            "max_grad_norm": 0.0,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 3,
            "weight_decay": 0.5,
            "optim": "adamw_torch",
        },
    ],
    ids=["defaults", "accumulation", "other values"],
)
def test_training_is_the_recipe_and_nothing_else(recipe_for: MakeRecipe, fields: dict[str, Any]) -> None:
    """Weights, losses, learning rates and norms of a plain loop; evaluations in between change nothing."""
    recipe = recipe_for(**fields, load_best_model_at_end=False)
    trained = train(recipe)
    reference = make_run(recipe_for(**fields))
    expected = list(plain_loop(reference))
    assert len(trained.log.losses) == len(expected) > 10
    for row, step in zip(trained.log.losses, expected, strict=True):
        assert {name: row[name] for name in step} == pytest.approx(step, rel=1e-4)
    assert_same_weights(trained, reference, rtol=1e-4, atol=1e-5)
    assert not all(torch.equal(a, b) for a, b in zip(
        weights_of(reference.model).values(), weights_of(make_run(recipe_for(**fields)).model).values(), strict=True
    ))  # fmt: skip


def test_four_batches_of_four_are_one_batch_of_sixteen(home: Path, recipe_for: MakeRecipe) -> None:
    """In float64, where Adam does not blow rounding up; 48 stories and 10 out of 58 leave an uneven last step."""

    def prepare(model: SentenceOrderingModel) -> None:
        model.double()
        model.dropout.p = 0.0

    shared = {
        "encoder": str(home / "calm-bert"),
        "train_sampling_strategy": "random",
        "num_train_epochs": 3,
        "load_best_model_at_end": False,
        "eval_strategy": "no",
        "test_size": 0.1,  # 54 stories to train on: three steps of 16 and one of 6, in batches of 2, 2, 1 and 1
        "max_grad_norm": 5.0,  # of about 80 to 150: it matters that clipping comes after the average
    }
    large = train(recipe_for(**shared, per_device_train_batch_size=16), prepare=prepare)
    small = train(recipe_for(**shared, per_device_train_batch_size=4, gradient_accumulation_steps=4), prepare=prepare)
    assert len(large.training) == 54
    assert [row["step"] for row in small.log.losses] == list(range(1, 13))
    for one, four in zip(large.log.losses, small.log.losses, strict=True):
        assert four == pytest.approx(one, rel=1e-5)
    assert_same_weights(large, small, rtol=0, atol=1e-5)


def test_the_seed_decides_everything(recipe_for: MakeRecipe) -> None:
    """The same to the last bit, whatever drew random numbers before; another seed, another model."""
    first = train(recipe_for())
    torch.rand(3)
    again = train(recipe_for())
    assert_same_weights(first, again)
    assert first.log.rows == again.log.rows
    other = train(recipe_for(seed=7))
    assert [row["loss"] for row in other.log.losses] != [row["loss"] for row in first.log.losses]


def test_dropout_is_on_in_training_and_off_in_evaluation(recipe_for: MakeRecipe) -> None:
    seen = []

    def watch(model: SentenceOrderingModel) -> None:
        model.register_forward_pre_hook(lambda module, _: seen.append((torch.is_grad_enabled(), module.training)))

    train(recipe_for(), prepare=watch)
    assert set(seen) == {(True, True), (False, False)}


@pytest.mark.parametrize("head", ["score", "pairs"])
def test_a_run_that_was_killed_within_an_epoch_ends_as_if_it_had_not_been(head: str, recipe_for: MakeRecipe) -> None:
    fields = {"eval_strategy": "steps", "eval_steps": 4, "gradient_accumulation_steps": 2, "num_train_epochs": 4,
              "per_device_train_batch_size": 4, "head": head, "objective": "pairwise", "context_layers": 1}  # fmt: skip
    whole = train(recipe_for(**fields))  # 24 steps, 6 in an epoch
    recipe = recipe_for(**fields)
    killed = train(recipe, killed_after=17)
    framework = load_framework(recipe.framework)
    assert framework.checkpoint_step(last_checkpoint(framework, killed.checkpoints)) == 16
    resumed = resume(recipe, killed)
    assert_same_weights(resumed, whole)
    assert resumed.log.rows == whole.log.rows


def scripted(monkeypatch: pytest.MonkeyPatch, log: Callable[[], WatchedLog], **series: list[float]) -> None:
    """Lets the evaluations of a run find what is written here, one value for each evaluation."""
    steady = {"accuracy": 0.5, "kendalls_tau": 0.5, "pmr": 0.5, "loss": 1.0}

    def value(name: str) -> float:
        values = series.get(name, [steady[name]])
        return values[min(len(log().evaluations), len(values) - 1)]

    def metrics(*_: Any, **__: Any) -> dict[str, float | int]:
        judged = {name: value(name) for name in steady if name != "loss"}
        return {**judged, "mean_logits": 0.0, "std_logits": 0.0, "stories": 4, "sentences": 16,
                "dropped_sentences": 0, "unscored_stories": 0}  # fmt: skip

    monkeypatch.setattr(evaluation, "ordering_metrics", metrics)
    monkeypatch.setattr(evaluation, "objective_loss", lambda *_, **__: torch.tensor(value("loss"), dtype=torch.float64))


SERIES = {
    "kendalls_tau": [0.1, 0.5, 0.3, 0.5],  # of equals the first
    "accuracy": [0.2, 0.1, 0.4, 0.3],
    "pmr": [0.3, 0.2, 0.1, 0.0],
    "loss": [3.0, 2.5, 2.75, 2.0],
}


def run_scripted(monkeypatch: pytest.MonkeyPatch, recipe: Recipe, run: WatchedRun) -> WatchedRun:
    scripted(monkeypatch, lambda: run.log, **SERIES)
    load_framework(recipe.framework).train(run)
    return run


@pytest.mark.parametrize(("metric", "best"), [("kendalls_tau", 2), ("accuracy", 3), ("pmr", 1), ("loss", 4)])
def test_the_best_weights_by_the_chosen_metric_are_kept(
    metric: str, best: int, recipe_for: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(metric_for_best_model=metric, num_train_epochs=4)
    run = run_scripted(monkeypatch, recipe, make_run(recipe))
    assert [row["step"] for row in run.log.evaluations] == [6, 12, 18, 24]
    assert [row["eval_loss"] for row in run.log.evaluations] == SERIES["loss"]
    assert_same_weights(run, run.log.weights[6 * best])


def test_the_last_weights_are_kept_if_the_recipe_says_so(
    recipe_for: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(num_train_epochs=3, load_best_model_at_end=False)
    run = run_scripted(monkeypatch, recipe, make_run(recipe))
    assert_same_weights(run, run.log.weights[18])


def test_training_stops_when_it_gets_no_better_and_a_resumed_run_stops_at_the_same_place(
    recipe_for: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"early_stopping_patience": 2, "num_train_epochs": 6, "metric_for_best_model": "loss"}
    series = {"loss": [3.0, 2.0, 2.5, 2.25, 1.0]}
    runs: list[WatchedRun] = []
    scripted(monkeypatch, lambda: runs[-1].log, **series)

    def begin(recipe: Recipe, **options: Any) -> WatchedRun:
        runs.append(make_run(recipe, **options))
        return runs[-1]

    whole = begin(recipe_for(**fields))
    load_framework(whole.recipe.framework).train(whole)
    assert [row["eval_loss"] for row in whole.log.evaluations] == [3.0, 2.0, 2.5, 2.25]
    assert_same_weights(whole, whole.log.weights[12])

    recipe = recipe_for(**fields)
    framework = load_framework(recipe.framework)
    killed = begin(recipe, killed_after=19)
    with pytest.raises(Killed):
        framework.train(killed)
    resumed = begin(recipe)
    checkpoint = last_checkpoint(framework, killed.checkpoints)
    resumed.log.continue_from(killed.log.rows, framework.checkpoint_step(checkpoint))
    framework.train(resumed, checkpoint)
    assert resumed.log.rows == whole.log.rows
    assert_same_weights(resumed, whole)


@pytest.mark.parametrize("last", [{"max_steps": 8}, {"early_stopping_patience": 2, "num_train_epochs": 6}])
def test_a_finished_run_is_not_trained_further(
    last: dict[str, int], recipe_for: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process may have ended before the model was written. The best is neither the last nor the first."""
    recipe = recipe_for(**last, eval_strategy="steps", eval_steps=3, metric_for_best_model="loss",
                        lr_scheduler_type="constant")  # fmt: skip
    runs = [make_run(recipe)]
    scripted(monkeypatch, lambda: runs[-1].log, loss=[3.0, 2.0, 2.5, 2.5, 1.0])
    load_framework(recipe.framework).train(runs[0])
    runs.append(resume(recipe, runs[0]))
    assert runs[1].log.rows == runs[0].log.rows
    assert_same_weights(runs[1], runs[0].log.weights[6])
    assert_same_weights(runs[0], runs[0].log.weights[6])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"eval_strategy": "no"}, []),
        ({"eval_strategy": "epoch"}, [6, 12]),
        ({"eval_strategy": "epoch", "max_steps": 8}, [6, 8]),
        ({"eval_strategy": "steps", "eval_steps": 5}, [5, 10, 12]),
        ({"eval_strategy": "steps", "eval_steps": 100}, [12]),
    ],
)
def test_evaluations_and_checkpoints_come_when_the_recipe_says(
    fields: dict[str, Any], expected: list[int], recipe_for: MakeRecipe
) -> None:
    recipe = recipe_for(**fields, load_best_model_at_end=False)
    run = train(recipe)
    assert [row["step"] for row in run.log.evaluations] == expected
    for row in run.log.evaluations:
        assert row["epoch"] == pytest.approx(row["step"] / 6)
    framework = load_framework(recipe.framework)
    last = last_checkpoint(framework, run.checkpoints)
    assert (last and framework.checkpoint_step(last)) == (expected[-1] if expected else None)


def test_what_is_logged_is_what_evaluation_finds(recipe_for: MakeRecipe) -> None:
    run = train(recipe_for(load_best_model_at_end=False))
    metrics = evaluate(run.model, run.validation, batch_size=3)
    logged = run.log.evaluations[-1]
    assert {name: logged[f"eval_{name}"] for name in ("loss", "accuracy", "kendalls_tau", "pmr")} == pytest.approx(
        {name: metrics[name] for name in ("loss", "accuracy", "kendalls_tau", "pmr")}, rel=1e-5
    )


def test_losses_are_averaged_over_the_steps_since_the_last_entry_and_none_is_left_out(recipe_for: MakeRecipe) -> None:
    every = train(recipe_for(num_train_epochs=1)).log.losses
    some = train(recipe_for(num_train_epochs=1, logging_steps=4)).log.losses
    assert [row["step"] for row in some] == [4, 6]
    losses = [row["loss"] for row in every]
    assert [row["loss"] for row in some] == pytest.approx([sum(losses[:4]) / 4, sum(losses[4:]) / 2], rel=1e-4)
    assert [row["learning_rate"] for row in some] == pytest.approx(
        [every[3]["learning_rate"], every[5]["learning_rate"]]
    )


def test_nothing_is_written_into_the_model_s_config(recipe_for: MakeRecipe) -> None:
    run = make_run(recipe_for(max_steps=2))
    before = set(run.model.config.to_dict())
    load_framework(run.recipe.framework).train(run)
    assert set(run.model.config.to_dict()) == before


def test_gradient_checkpointing_computes_twice_and_changes_nothing(recipe_for: MakeRecipe) -> None:
    calls = []

    def watch(model: SentenceOrderingModel) -> None:
        query = model.encoder.encoder.layer[0].attention.self.query
        query.register_forward_hook(lambda module, *_: calls.append(1) if module.training else None)

    def watch_and_enable(model: SentenceOrderingModel) -> None:
        checkpoint_activations(model)
        watch(model)

    plain = train(recipe_for(num_train_epochs=1), prepare=watch)
    forward = len(calls)
    run = train(recipe_for(num_train_epochs=1, gradient_checkpointing=True), prepare=watch_and_enable)
    assert forward == 6
    assert len(calls) == 3 * forward
    assert_same_weights(run, plain, rtol=1e-5, atol=1e-6)


def test_bf16_computes_in_bf16_and_keeps_the_weights_in_float32(recipe_for: MakeRecipe) -> None:
    seen = set()

    def watch(model: SentenceOrderingModel) -> None:
        def look(_: Any, __: Any, output: torch.Tensor) -> None:
            if torch.is_grad_enabled():
                seen.add(output.dtype)

        model.encoder.encoder.layer[0].attention.self.query.register_forward_hook(look)

    run = train(recipe_for(num_train_epochs=1, bf16=True), prepare=watch)
    assert seen == {torch.bfloat16}
    assert {tensor.dtype for tensor in run.model.parameters()} == {torch.float32}
    seen.clear()
    marker = run.model.config.marker_token_id
    run.model(input_ids=torch.tensor([[marker, 5, marker, 6]]))
    assert seen == {torch.float32}, "autocast is still around the model after training"


def test_a_folder_without_a_whole_checkpoint_has_none(recipe_for: MakeRecipe, tmp_path: Path) -> None:
    framework: Framework = load_framework(recipe_for().framework)
    assert last_checkpoint(framework, tmp_path / "none") is None
    (tmp_path / "some" / "checkpoint-5").mkdir(parents=True)
    with pytest.raises(ValueError, match="checkpoint"):
        framework.checkpoint_step(tmp_path / "some" / "checkpoint-5")
    assert last_checkpoint(framework, tmp_path / "some") is None


def test_a_field_that_a_framework_cannot_follow_is_refused_with_its_reason(make_recipe: MakeRecipe) -> None:
    class Half:
        REFUSED = {"max_grad_norm": "it cannot clip"}

    refuse_unsupported(make_recipe(), Half)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="--max_grad_norm is not for --framework trainer: it cannot clip"):
        refuse_unsupported(make_recipe(max_grad_norm=0.5), Half)  # type: ignore[arg-type]
