"""The benchmarks' scripts from their flags to their results, on made-up stories and a tiny encoder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModel

from benchmarks import base_encoder, nips, objectives, other_ways, passages, readme_tables
from benchmarks.measuring import run_script
from benchmarks.pair_classifier import StoryPairs
from modeling_sentence_ordering import load_tokenizer
from tests.modeling_sentence_ordering.small_encoders import write_encoder
from tests.training.made_up import made_up_stories, write_jsonl
from training.data.batches import Draw
from training.recipe.recipe import Recipe

ROOT = Path(__file__).parents[2]
SCRIPTS = [objectives, other_ways, nips, base_encoder, passages]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    write_jsonl(folder / "train.jsonl", made_up_stories(40))
    write_jsonl(folder / "validation.jsonl", made_up_stories(20, seed=1))
    write_encoder(folder / "tiny-bert", "bert")
    return folder


def call(script: ModuleType, home: Path, monkeypatch: pytest.MonkeyPatch, *flags: str, output: str = "runs") -> int:
    """Runs a script in this process; its exit code."""
    given = [
        "script", "--encoder", str(home / "tiny-bert"), "--data", str(home / "train.jsonl"), "--validation_data",
        str(home / "validation.jsonl"), "--output_dir", str(home / output), "--results", str(home / f"{output}.json"),
        "--max_steps", "2", "--bf16", "false", "--eval_on_start", "false", *flags,
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", given)
    return run_script(script.main)


def results(home: Path, output: str) -> dict[str, Any]:
    text = (home / f"{output}.json").read_text(encoding="utf-8")
    assert str(home.parent) not in text
    assert not [sentence for story in made_up_stories(20, seed=1) for sentence in story if sentence in text]
    values: dict[str, Any] = json.loads(text)
    return values


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("it was done already")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_help_tells_how_to_run_it(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["script", "--help"])
    with pytest.raises(SystemExit) as stop:
        script.main()
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"python -m {script.__name__} " in text
    assert "--results FILE" in text


@pytest.mark.slow
def test_scripts_run_as_they_say() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.objectives", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.slow
def test_objectives_are_measured_once(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--objectives", "pairwise", "--num_permutations", "1", "3")
    assert call(objectives, home, monkeypatch, *flags) == 0, capsys.readouterr().err
    values = results(home, "runs")
    run = values["runs"]["pairwise"]["42"]
    assert (run["recipe"], values["recipe"]["max_steps"]) == ({"objective": "pairwise", "seed": 42}, 2)
    assert list(run["judged"]["validation"]) == ["1", "3"]
    for judged in run["judged"]["validation"].values():
        low, high = judged["intervals"]["kendalls_tau"]
        assert -1 <= low <= judged["kendalls_tau"] <= high <= 1
        assert {"calibration_error", "calibration_error_cross_fitted", "pmr", "seconds"} <= set(judged)
        assert judged["stories"] == 20
    assert [epoch["step"] for epoch in run["epochs"]] == [2]
    assert run["training"]["stories"] == 40

    monkeypatch.setattr(objectives, "run_comparison", refuse)
    assert call(objectives, home, monkeypatch, *flags) == 0
    assert results(home, "runs")["runs"] == values["runs"]
    capsys.readouterr()
    assert call(objectives, home, monkeypatch, *flags, "--learning_rate", "1e-4") == 2
    assert "learning_rate is 3e-05 there and 0.0001 here" in capsys.readouterr().err
    assert call(objectives, home, monkeypatch, "--objective", "listmle") == 2
    assert "use --objectives" in capsys.readouterr().err


def test_other_ways_are_measured_once(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(other_ways, home, monkeypatch, output="ways") == 0, capsys.readouterr().err
    values = results(home, "ways")
    assert {way: list(by_seed) for way, by_seed in values["runs"].items()} == {
        "pairs": ["42"], "centre_chain": ["0"], "best_chain": ["0"],
    }  # fmt: skip
    assert values["runs"]["pairs"]["42"]["training"]["steps"] == 2
    for by_seed in values["runs"].values():
        for run in by_seed.values():
            low, high = run["intervals"]["kendalls_tau"]
            assert -1 <= low <= run["kendalls_tau"] <= high <= 1

    # Trained already: a results file that was lost is made again from the classifier.
    monkeypatch.setattr(other_ways, "train_pair_classifier", refuse)
    (home / "ways.json").unlink()
    assert call(other_ways, home, monkeypatch, output="ways") == 0
    again = results(home, "ways")["runs"]["pairs"]["42"]
    assert again["kendalls_tau"] == values["runs"]["pairs"]["42"]["kendalls_tau"]
    (home / "ways.json").unlink()
    capsys.readouterr()
    assert call(other_ways, home, monkeypatch, "--pair_budget", "2", output="ways") == 2
    assert "pair_budget is 1.0 there and 2.0 here" in capsys.readouterr().err
    assert call(other_ways, home, monkeypatch, "--encoder", "cnn", output="cnn") == 2
    assert "pretrained encoder" in capsys.readouterr().err


def test_pairs_say_which_sentence_comes_first_and_how_long_they_are(home: Path) -> None:
    stories = made_up_stories(5)
    tokenizer = load_tokenizer(str(home / "tiny-bert"))
    pairs = StoryPairs(stories)
    assert len(pairs) == sum(len(story) * (len(story) - 1) for story in stories)
    tokens = [
        [len(tokenizer(sentence, add_special_tokens=False)["input_ids"]) for sentence in story] for story in stories
    ]
    lengths = pairs.lengths(tokens, tokenizer.num_special_tokens_to_add(pair=True))
    seen = set()
    for index in range(len(pairs)):
        one, other, label = pairs[Draw(index, 0, 1.0)]
        story = next(story for story in stories if one in story)
        assert label == (story.index(one) < story.index(other))
        assert lengths[index] == len(tokenizer(one, other)["input_ids"])
        seen.add((one, other))
    assert len(seen) == len(pairs)


def test_abstracts_of_2_to_15_sentences_are_taken(tmp_path: Path) -> None:
    lines = [json.dumps({"sentences": [f"{i}"] * count}) for i, count in enumerate((1, 2, 15, 16))]
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n")
    kept = nips.filtered(tmp_path / "train.jsonl", tmp_path / "runs").read_text().splitlines()
    assert [len(json.loads(line)["sentences"]) for line in kept] == [2, 15]
    (tmp_path / "train.jsonl").write_text(lines[1] + "\nno json\n")
    with pytest.raises(ValueError, match=r"train.jsonl, line 2"):
        nips.filtered(tmp_path / "train.jsonl", tmp_path / "runs")


def test_what_is_trained_on_stories_alone_has_seen_no_abstract() -> None:
    recipe = Recipe(data=["stories.csv"], validation_data=["held_out.csv"], num_train_epochs=3)
    abstracts = {"train": Path("nips_train.jsonl"), "validation": Path("nips_validation.jsonl")}
    epochs = {"nips": 9.0, "both": None}
    found = {source: nips.recipe_for(source, recipe, abstracts, epochs, 512) for source in nips.SOURCES}
    assert found["stories"] == recipe
    assert (found["nips"].data, found["nips"].num_train_epochs) == (["nips_train.jsonl"], 9)
    assert (found["both"].data, found["both"].num_train_epochs) == (["stories.csv", "nips_train.jsonl"], 3)
    assert found["nips"].per_device_train_batch_tokens == found["both"].per_device_train_batch_tokens == 512
    assert found["nips"].validation_data == found["both"].validation_data == ["nips_validation.jsonl"]


def test_an_encoder_in_pieces_is_the_same_in_bfloat16(home: Path, tmp_path: Path) -> None:
    base_encoder.write_pieces(home / "tiny-bert", tmp_path / "pieces", megabytes=1)
    whole, pieces = (
        AutoModel.from_pretrained(folder, dtype=torch.float32) for folder in (home / "tiny-bert", tmp_path / "pieces")
    )
    for name, value in whole.state_dict().items():
        assert torch.equal(value.bfloat16().float(), pieces.state_dict()[name]), name
    with pytest.raises(ValueError, match="not empty"):
        base_encoder.write_pieces(home / "tiny-bert", tmp_path / "pieces", megabytes=1)
    with pytest.raises(ValueError, match="--megabytes 0: embeddings.position_embeddings.weight alone"):
        base_encoder.write_pieces(home / "tiny-bert", tmp_path / "other", megabytes=0)


def test_without_a_gpu_the_base_encoder_is_not_begun(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(base_encoder, "measure_rows", refuse)
    assert call(base_encoder, home, monkeypatch) == 1
    assert "no GPU" in capsys.readouterr().err


def test_readme_shows_results_where_there_are_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "before\n<!-- generated: objectives -->\nas it was\n<!-- end -->\nafter"
    monkeypatch.setattr(readme_tables, "OBJECTIVES", tmp_path / "objectives.json")
    monkeypatch.setattr(readme_tables, "OTHER_WAYS", tmp_path / "other_ways.json")
    assert readme_tables.with_generated_parts(text) == text

    def judged(tau: float) -> dict[str, Any]:
        intervals = {name: [tau - 0.1, tau + 0.1] for name in ("kendalls_tau", "accuracy", "pmr")}
        return {
            "kendalls_tau": tau,
            "accuracy": tau,
            "pmr": tau,
            "stories": 1000,
            "intervals": {"level": 0.95, **intervals},
        }

    def run(tau: float) -> dict[str, Any]:
        return {
            "judged": {"validation": {"1": judged(tau), "8": {**judged(tau), "calibration_error_cross_fitted": 0.02}}},
            "training": {"stories": 20000, "seconds": 90.0},
            "environment": {"hardware": "CPU", "torch": "2", "transformers": "5"},
        }

    recipe = {"encoder": "cnn", "num_train_epochs": 3.0, "per_device_train_batch_size": 16, "learning_rate": 0.001}
    values = {"recipe": recipe, "runs": {"mse": {"1": run(0.5), "2": run(0.6)}, "guide, 3e-05": {"1": run(0.3)}}}
    (tmp_path / "objectives.json").write_text(json.dumps(values))
    (tmp_path / "other_ways.json").write_text(json.dumps({"runs": {"best_chain": {"0": judged(0.1)}}}))
    shown = readme_tables.with_generated_parts(text)
    assert shown.startswith("before\n<!-- generated: objectives -->\n") and shown.endswith("<!-- end -->\nafter")
    assert "| `mse` | 1 | 2 | 0.550 ± 0.050 [0.450, 0.650] |" in shown
    cell = "0.550 ± 0.050 [0.450, 0.650]"
    assert f"|  | 8 | 2 | {cell} | {cell} | {cell} | 0.020 |" in shown
    assert "| the guide's recipe, 3e-05 | 1 | 1 | 0.300 [0.200, 0.400] |" in shown
    assert "| embeddings, best chain |  |  | 0.100 [0.000, 0.200] |" in shown
    assert "1,000 validation stories, 20,000 to train on" in shown
    assert readme_tables.with_generated_parts(shown) == shown


def test_readme_shows_other_texts_where_they_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "<!-- generated: abstracts -->\nas it was\n<!-- end --><!-- generated: long_texts -->\ntoo\n<!-- end -->"
    monkeypatch.setattr(readme_tables, "ABSTRACTS", tmp_path / "nips.json")
    monkeypatch.setattr(readme_tables, "LONG_TEXTS", tmp_path / "long_texts.json")
    assert readme_tables.with_generated_parts(text) == text

    intervals = {"level": 0.95, "kendalls_tau": [0.5, 0.7], "accuracy": [0.3, 0.5], "pmr": [0.1, 0.3]}
    judged = {"kendalls_tau": 0.6, "accuracy": 0.4, "pmr": 0.2, "intervals": intervals}
    kinds = {"nips": {"1": {**judged, "stories": 408}}, "stories": {"1": {**judged, "stories": 1000}}}
    (tmp_path / "nips.json").write_text(json.dumps({"runs": {"both": {"43": {"judged": kinds}}}}))
    row = {"group_size": 10, "sentences": 300.0, "pairs_right": 0.87, "kendalls_tau_within_stories": 0.741}
    row |= {"encoder_calls_of_a_text": 360.0, "seconds_for_a_text": 12.34}
    (tmp_path / "long_texts.json").write_text(json.dumps({"simulation": [], "model": [row]}))
    shown = readme_tables.with_generated_parts(text)
    cells = "0.600 [0.500, 0.700] | 0.400 [0.300, 0.500] | 0.200 [0.100, 0.300]"
    assert f"| abstracts and stories | abstracts | 1 | {cells} |\n|  | stories | 1 | {cells} |" in shown
    assert "408 abstracts and 1,000 stories to judge on" in shown
    assert "| 300 | 10 | 0.870 | 0.741 | 360 | 12.3 |" in shown


@pytest.mark.slow
def test_passages_are_held_against_texts_that_are_cut(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["--passage_sentences", "2", "3", "--max_input_tokens", "40"]
    assert call(passages, home, monkeypatch, *flags, output="passages") == 0
    runs = results(home, "passages")["runs"]
    assert runs["cut"]["42"]["passages"]["stories"] == runs["passages"]["42"]["passages"]["stories"] > 20
    assert runs["cut"]["42"]["whole_texts"]["stories"] == runs["passages"]["42"]["whole_texts"]["stories"] == 20
    monkeypatch.setattr(passages, "run_recipe", refuse)
    assert call(passages, home, monkeypatch, *flags, output="passages") == 0
