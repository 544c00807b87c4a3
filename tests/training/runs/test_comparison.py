"""How a comparison goes on; whole comparisons are run by the README's test and by `tests/hostile`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.conftest import run_command
from training.recipe.recipe import Recipe, RecipeError
from training.runs.comparison import ComparedEncoder, ComparedRun, plan_runs, run_comparison


def planned(output_dir: Path, **fields: Any) -> list[ComparedRun]:
    recipe = Recipe(encoder="cnn", data=["stories.jsonl"], output_dir=str(output_dir), **fields)
    return plan_runs(recipe, ["trainer"], [ComparedEncoder("cnn", {})], [1], output_dir)


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """A comparison that was begun by a version without a field, and has come to its end."""
    output_dir = tmp_path / "compared"
    (run,) = planned(output_dir)
    folder = Path(run.recipe.output_dir)
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"peak_memory_mb": 1.0, "process_seconds": 2.0}))
    (folder / "results.json").write_text(json.dumps({"training": {"seconds": 1.5}}))
    (folder / "training_log.csv").write_text("step,epoch,loss\n1,0.5,2.0\n")
    (output_dir / "plan.json").write_text("{}")
    run_comparison([run], output_dir, print)
    plan = json.loads((output_dir / "plan.json").read_text())
    assert plan[run.name].pop("gradient_checkpointing") is False
    (output_dir / "plan.json").write_text(json.dumps(plan))
    return output_dir


def test_a_comparison_that_an_earlier_version_began_goes_on(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (outcome,) = run_comparison(planned(done), done, print)
    assert outcome["seconds"] == 1.5 and outcome["log"][0]["step"] == 1
    assert capsys.readouterr().out == ""  # nothing was trained


@pytest.mark.parametrize("field", [{"gradient_checkpointing": True}, {"learning_rate": 0.5}])
def test_a_comparison_by_another_recipe_does_not(done: Path, field: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="another recipe .run cnn-trainer-seed1 differs.: choose another"):
        run_comparison(planned(done, **field), done, print)


@pytest.mark.slow
def test_a_training_py_in_the_working_directory_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "training.py").write_text("raise SystemExit('the training.py of somebody else')")
    recipe = ["--max_steps", "1", "--vocab_size", "200", "--bf16", "false"]
    done = run_command(
        "compare", "--encoders", "cnn", "--frameworks", "trainer", "--data", "sample", "--output_dir", "out", *recipe
    )
    assert done.code == 0, done.err
    (run,) = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))["runs"]
    assert run["encoder"] == "cnn" and run["framework"] == "trainer"
