"""The benchmarks of speed on a tiny encoder: that every side does the same work, and what is made of their figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import inference_speed, scaling, side_by_side, speed_tables, training_speed
from benchmarks.guide_pipeline import guide_dataset, guide_orders, guide_trainer, load_guide_model
from benchmarks.inference_sides import WORK, agreement
from benchmarks.inference_sides import measure_side as measure_inference
from benchmarks.measuring import run_script
from benchmarks.readme_tables import with_generated_parts
from benchmarks.step_profile import StepProfile
from benchmarks.training_sides import BARE, Stretch, measure_side, train_bare
from modeling_sentence_ordering import SentenceOrderingModel
from tests.modeling_sentence_ordering.small_encoders import write_encoder
from tests.training.conftest import run_command
from tests.training.framework_runs import assert_same_weights, make_run, train
from tests.training.made_up import made_up_stories, write_jsonl
from training.inference.onnx_model import NEEDS
from training.models.model_folder import save_model
from training.recipe.recipe import FRAMEWORKS, Recipe


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speed")
    write_jsonl(folder / "stories.jsonl", made_up_stories(120))
    write_encoder(folder / "tiny-bert", "bert", initializer_range=0.1)
    model = SentenceOrderingModel.from_encoder(str(folder / "tiny-bert"))
    save_model(model, SentenceOrderingModel.load_tokenizer(str(folder / "tiny-bert")), folder / "model")
    guide, tokenizer = load_guide_model(str(folder / "tiny-bert"))
    guide.save_pretrained(folder / "guide")
    tokenizer.save_pretrained(folder / "guide")
    return folder


@pytest.fixture
def recipe(home: Path) -> dict[str, Any]:
    return {
        "encoder": str(home / "tiny-bert"),
        "data": [str(home / "stories.jsonl")],
        "per_device_train_batch_size": 8,
        "bf16": False,
    }


def test_the_bare_loop_trains_as_the_frameworks_do(recipe: dict[str, Any], tmp_path: Path) -> None:
    options = {**recipe, "max_steps": 20, "gradient_accumulation_steps": 2, "eval_strategy": "no"}
    runs = [
        Recipe(**options, framework=name, output_dir=str(tmp_path / name)).resolved() for name in ("trainer", "poutyne")
    ]
    bare = make_run(runs[0])
    bare.model.train()
    train_bare(bare)
    for other in runs:
        assert_same_weights(bare, train(other))


def test_all_sides_do_the_same_work(recipe: dict[str, Any]) -> None:
    told = {"recipe": recipe, "warm": 2, "steps": 5, "profile": True}
    found = {loop: measure_side({**told, "loop": loop}) for loop in (BARE, *FRAMEWORKS)}
    work = {(run["stories"], run["tokens"], run["padded"]) for run in found.values()}
    assert len(work) == 1 and next(iter(work))[0] == 40
    for loop, run in found.items():
        shares = run["shares"]
        assert sum(shares.values()) == pytest.approx(1)
        assert all(shares[part] > 0 for part in ("batches", "forward", "loss", "backward", "clipping", "optimizer"))
        assert (shares["logging"] > 0) == (loop != BARE)
        assert run["seconds"] > 0 and run["peak_memory"] > 2**20


def test_arithmetic_is_counted_on_real_tokens(recipe: dict[str, Any]) -> None:
    run = measure_side({"recipe": recipe, "loop": BARE, "warm": 1, "steps": 3, "arithmetic": True})
    config = SentenceOrderingModel.from_encoder(recipe["encoder"]).config.backbone_config
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    of_weights = 6 * layers * (4 * width * width + 2 * width * inner) * run["tokens"]
    done = run["arithmetic"]["operations_per_second"] * run["seconds"]
    least = 12 * layers * width * run["tokens"] ** 2 / run["stories"]  # of attention, were all stories of equal length
    assert of_weights + least <= done < of_weights + 1.5 * least
    assert run["arithmetic"]["share"] > 0
    assert run["arithmetic"]["dtype"] == "float32"


def test_a_part_is_measured_without_those_that_it_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("benchmarks.step_profile.time.perf_counter", lambda: now)

    def work(seconds: float) -> None:
        nonlocal now
        now += seconds

    profile = StepProfile()
    inner = profile.timed("loss", work)

    def outer() -> None:
        work(2)
        inner(5)

    profile.timed("forward", outer)()
    work(3)
    shares = profile.shares()
    assert (shares["loss"], shares["forward"], shares["framework"]) == (0.5, 0.2, 0.3)
    profile.restart()
    work(1)
    assert profile.shares()["framework"] == 1


def test_the_guide_pads_to_512_and_has_its_loss(home: Path, tmp_path: Path) -> None:
    model, tokenizer = load_guide_model(str(home / "guide"))
    stories = made_up_stories(12, seed=4)
    full, short = (guide_dataset(stories, tokenizer, padding) for padding in ("max_length", "longest"))
    assert {len(ids) for ids in full["input_ids"]} == {512}
    for padded, row in zip(full, short, strict=True):
        length = len(row["input_ids"])
        assert (padded["input_ids"][:length], padded["labels"][:length]) == (row["input_ids"], row["labels"])
    rescued = SentenceOrderingModel.from_token_classification(str(home / "guide"), tokenizer=tokenizer)
    metrics = [
        guide_trainer(model, tokenizer, str(tmp_path / name), evaluation=data).evaluate()
        for name, data in (("full", full), ("short", short))
    ]
    assert metrics[0]["eval_kendalls_tau"] == metrics[1]["eval_kendalls_tau"]
    losses = []
    for row in short:
        ids = torch.tensor([row["input_ids"]])
        labels = torch.tensor([[label for label in row["labels"] if label >= 0]])
        with torch.no_grad():
            losses.append(float(rescued(input_ids=ids, labels=labels).loss))
    # Trainer averages batches of 8 and 4; the stories of both count alike in ours.
    expected = 8 / 12 * np.mean(losses[:8]) + 4 / 12 * np.mean(losses[8:])
    for found in metrics:
        assert found["eval_loss"] == pytest.approx(expected, rel=1e-4)


def test_every_way_to_order_gives_the_same_answer(home: Path) -> None:
    told: dict[str, Any] = {
        "model": str(home / "model"),
        "guide_model": str(home / "guide"),
        "data": [str(home / "stories.jsonl")],
    }
    stories = made_up_stories(9, seed=5)
    single, batched = (WORK["plain_loop"]({**told, "batch_size": size})(stories) for size in (1, 4))
    assert single == batched
    assert [answer["order"] for answer in WORK["pipeline"](told)(stories)] == [
        answer.order for answer in WORK["order"](told)(stories)
    ]
    guide, tokenizer = load_guide_model(told["guide_model"])
    alone = guide_orders(stories, guide.eval(), tokenizer, padding="longest")
    assert WORK["guide_ordering"](told)(stories) == alone
    for work, options in (
        ("our_evaluation", {"bf16": True}), ("guide_evaluation", {"padding": "longest"}), ("order", {"bf16": True}),
    ):  # fmt: skip
        assert measure_inference({"work": work, "stories": 20, **told, **options})["stories"] == 20


@pytest.mark.slow
def test_onnx_is_held_against_torch(home: Path, tmp_path: Path) -> None:
    for name in NEEDS:
        pytest.importorskip(name, reason="needs ONNX: pip install -e '.[onnx]'")
    model = tmp_path / "model"
    (home / "model").rename(model)
    try:
        assert run_command("export", "--model", model, "--quantize").code == 0
        found = agreement(str(model), [str(home / "stories.jsonl")])
    finally:
        model.rename(home / "model")
    assert found["stories"] == 120
    assert found["onnx"]["largest_difference"] < 1e-4
    assert found["onnx"]["same_order"] >= 119 and 0 <= found["onnx-int8"]["same_order"] <= 120


@pytest.mark.slow
def test_a_script_from_its_flags_to_its_results(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "speed.json"
    side = "bare loop, batches of 4"
    given = [
        "script", "--encoder", str(home / "tiny-bert"), "--data", str(home / "stories.jsonl"), "--rounds", "1",
        "--steps", "3", "--batch_sizes", "4", "--results", str(results), "--only", side,
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", given)
    assert run_script(training_speed.main) == 0, capsys.readouterr().err
    values = json.loads(results.read_text())
    assert values["figures"][side]["stories_per_second"]["median"] > 0
    assert str(home) not in json.dumps(values["figures"])
    monkeypatch.setattr(sys, "argv", [*given, "another"])
    assert run_script(training_speed.main) == 2
    assert "--only 'another': the sides are" in capsys.readouterr().err


@pytest.mark.slow
def test_a_side_that_fails_is_named() -> None:
    with pytest.raises(RuntimeError, match="odd: exit code"):
        side_by_side.measure_sides("training_speed", {"odd": {"nothing": 1}}, 1, lambda found: None)


def test_ratios_are_made_within_a_round() -> None:
    slow, fast = [1.0, 2.0, 4.0], [10.0, 20.0, 40.0]
    assert side_by_side.ratios(fast, slow) == {"median": 10, "min": 10, "max": 10}
    runs = {
        "guide": [{"stories": 8, "seconds": 4.0, "tokens": 400, "padded": 4096, "peak_memory": 2**30}],
        "trainer, batches of 8": [{"stories": 80, "seconds": 2.0, "tokens": 800, "padded": 820, "peak_memory": 2**29}],
        "bare loop, batches of 8": [
            {"stories": 80, "seconds": 1.6, "tokens": 800, "padded": 820, "peak_memory": 2**29}
        ],
    }
    found = training_speed.conclusions(runs)
    compared = found["ratios_of_stories_per_second"]
    assert compared["trainer, batches of 8 / guide"]["median"] == 20
    assert compared["trainer, batches of 8 / bare loop, batches of 8"]["median"] == 0.8
    assert found["figures"]["guide"]["peak_memory_mib"]["median"] == 1024
    starts = {"start, order": [{"stories": 1, "seconds": 3.0}], "start, guide": [{"stories": 1, "seconds": 6.0}]}
    assert inference_speed.conclusions(starts)["ratios_of_speed"]["start, order / start, guide"]["median"] == 2


def test_the_line_through_the_largest_numbers(tmp_path: Path) -> None:
    runs = [
        {"task": "order", "stories": count, "seconds": 5 + count / 100, "peak_memory_mib": 500.0}
        for count in (100, 1000, 10_000)
    ]
    found = scaling.lines(runs)["order"]
    assert found["seconds_for_a_story"] == pytest.approx(0.01) and found["seconds_to_start"] == pytest.approx(5)
    assert found["hours_for_a_million"] == pytest.approx(1e4 / 3600)
    scaling.plot(runs, tmp_path / "lines.svg")
    assert "<svg" in (tmp_path / "lines.svg").read_text()


def test_what_is_measured_are_the_steps_after_the_first() -> None:
    assert Stretch(warm=3, steps=4).total == 7


def test_readme_shows_speed_where_it_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("training_speed", "step_profile", "recipe_options", "inference_speed", "scaling")
    text = "".join(f"<!-- generated: {name} -->\nas it was\n<!-- end -->\n" for name in names)
    for name in ("TRAINING", "INFERENCE", "EVALUATION", "SCALING"):
        monkeypatch.setattr(speed_tables, name, tmp_path / f"{name}.json")
    assert with_generated_parts(text) == text

    def run(speed: float, **more: Any) -> list[dict[str, Any]]:
        return [{"stories": speed, "seconds": 1.0, "tokens": 99, "padded": 100, "peak_memory": 2**30, **more}]

    shares = {part: 1 / len(speed_tables.PARTS) for part in speed_tables.PARTS}
    arithmetic = {"share": 0.625, "dtype": "float32"}
    training = {
        "guide": run(2), "bare loop, batches of 8": run(50), "trainer, batches of 8": run(49),
        "profile of trainer": run(40, shares=shares), "option bf16": run(60, arithmetic=arithmetic),
        "option torch_compile": run(30),
    }  # fmt: skip
    environment = {"hardware": "CPU", "torch": "2", "transformers": "5"}
    values: dict[str, Any] = {"environment": environment, **training_speed.conclusions(training)}
    (tmp_path / "TRAINING.json").write_text(json.dumps(values))
    inference = {"order, guide": run(4), "order, bf16": run(200), "start, order": run(1), "start, guide": run(1)}
    agreement = {"stories": 480, "onnx": {"same_order": 480, "largest_difference": 3e-6}}
    agreement["onnx-int8"] = {"same_order": 450, "largest_difference": 0.07}
    values = {"environment": environment, "rounds": 3, "stories": 400, "agreement": agreement}
    evaluation = inference_speed.conclusions({"evaluate, bf16": run(90), "evaluate, guide": run(3)})
    (tmp_path / "EVALUATION.json").write_text(json.dumps({"stories": 2000, **evaluation}))
    (tmp_path / "INFERENCE.json").write_text(json.dumps({**values, **inference_speed.conclusions(inference)}))
    runs = [{"task": "order", "stories": n, "seconds": n / 100, "peak_memory_mib": 500.0} for n in (1000, 10_000)]
    (tmp_path / "SCALING.json").write_text(json.dumps({"runs": runs, "lines": scaling.lines(runs)}))
    shown = with_generated_parts(text)
    assert "| Trainer, batches of 8 | 49.0 | 24× [24, 24] |  | 0.98× [0.98, 0.98] | 1,024 MiB | 1.0% |" in shown
    assert f"| Trainer | {' | '.join(['11.1%'] * 9)} |" in shown
    assert "| `torch_compile` | 30.0 | 0.50× [0.50, 0.50] | 1,024 MiB |  |" in shown
    assert "| `bf16` | 60.0 |  | 1,024 MiB | 62% |" in shown
    assert "| order, bf16 | 200 a second | 50× [50, 50] |  | 1,024 MiB |" in shown
    assert "480 of the 480 stories of the sample in" in shown and "int8 450 of them, by 0.07" in shown
    assert "With 2,000 stories instead of 400, evaluating in bf16 is 30× [30, 30]." in shown
    assert "| `order` | 10 s, 500 MiB | 100 s, 500 MiB | 2.8 h |" in shown
