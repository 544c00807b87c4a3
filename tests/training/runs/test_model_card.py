"""The card that `sentence-ordering train` writes: the run's numbers, a person's words kept, nothing quoted unasked."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from dataset_builder import load_stories
from model_card.markdown import number
from tests.training.conftest import TRAIN_FLAGS, Command, Trained, run_command
from tests.training.made_up import made_up_stories
from training.recipe.recipe import Recipe
from training.runs.card_options import CardOptions

QUICK = ["--max_steps", "2"]


@pytest.fixture
def train(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Command]:
    """A short run into the folder `model`; later flags win."""
    monkeypatch.chdir(home)

    def run(*flags: str | Path) -> Command:
        command = run_command("train", *TRAIN_FLAGS, *QUICK, "--output_dir", tmp_path / "model", *flags)
        assert command.code == 0, command.err
        return command

    return run


def readme(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def write_rocstories(path: Path, delimiter: str = ",", header: bool = True) -> list[list[str]]:
    """Five sentences a story, in the columns of ROCStories."""
    stories = made_up_stories(30, shortest=5, longest=5)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        if header:
            writer.writerow(["storyid", "storytitle", *(f"sentence{place}" for place in range(1, 6))])
        writer.writerows(([f"id-{i}", "A title", *story] if header else story) for i, story in enumerate(stories))
    return stories


def quoted(folder: Path, stories: list[list[str]]) -> set[str]:
    """The sentences of these stories that stand in a text of the folder."""
    texts = "".join((folder / name).read_text("utf-8") for name in ("README.md", "results.json", "recipe.yaml"))
    return {sentence for story in stories for sentence in story if sentence in texts}


def test_the_code_that_trains_the_model_further_runs_without_our_packages(trained: Trained, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n([^`]*repo = .*?)```", readme(trained.folder), re.DOTALL)
    assert f'repo = "{trained.folder.name}"' in code
    hidden = ("modeling_sentence_ordering", "dataset_builder", "training", "model_card")
    hide = f"import sys\nfor name in {hidden}:\n    sys.modules[name] = None\n"
    show = "print(trainer.state.global_step, sorted(trainer.evaluate()))\n"
    (tmp_path / trained.folder.name).symlink_to(trained.folder)
    ended = subprocess.run(
        [sys.executable, "-c", hide + code + show],
        cwd=tmp_path,
        env=os.environ | {"HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    steps, names = ended.stdout.splitlines()[-1].split(" ", 1)
    assert int(steps) == 3 and "eval_kendalls_tau" in names
    assert (tmp_path / "trained-further" / "model.safetensors").is_file()


def test_the_metadata_equal_the_results(trained: Trained) -> None:
    data = ModelCard.load(trained.folder / "README.md").data
    for result in data["eval_results"]:
        assert result.metric_value == trained.results["test"][result.metric_type]
        assert (result.dataset_split, result.dataset_name) == ("test", "stories.jsonl")
    assert [result.metric_type for result in data["eval_results"]] == data["metrics"]
    assert data["license"] == "unknown"
    assert not {"language", "datasets", "base_model"} & set(data.to_dict())


def test_the_numbers_in_the_text_are_those_of_the_results(trained: Trained) -> None:
    card, results = readme(trained.folder), trained.results
    analysis = results["analysis"]
    model = next(line for line in card.splitlines() if "**This model**" in line)
    for name in ("kendalls_tau", "accuracy", "pmr"):
        low, high = analysis["intervals"][name]
        assert f"**{number(results['test'][name])}**<br>({number(low)} to {number(high)})" in model
        assert low <= results["test"][name] <= high
    for row, values in (("Random order", analysis["baselines"]["random_order"]),
                        ("Input order", analysis["baselines"]["input_order"]),
                        ("Before training", results["before_training"])):  # fmt: skip
        assert f"| {row} | {number(values['kendalls_tau'])} | {number(values['accuracy'])} |" in card
    by_position = " | ".join(number(row["accuracy"]) for row in analysis["by_position"])
    assert f"| Accuracy | {by_position} |" in card
    assert sum(row["stories"] for row in analysis["by_sentences"]) == results["test"]["stories"]


def test_stories_of_files_are_quoted_only_under_a_licence(trained: Trained, train: Any, tmp_path: Path) -> None:
    stories = load_stories([str(trained.home / "stories.jsonl")])["test"]["sentences"]
    assert not quoted(trained.folder, stories) and "## Examples" not in readme(trained.folder)
    train("--license", "cc-by-4.0", "--model_license", "mit", "--language", "en", "fr")
    shown = quoted(tmp_path / "model", stories)
    examples = json.loads((tmp_path / "model" / "results.json").read_text("utf-8"))["analysis"]["examples"]["stories"]
    assert shown == {sentence for story in examples for sentence in stories[story["story"]]}
    card = readme(tmp_path / "model")
    assert "The licence of the stories is `cc-by-4.0`." in card
    for story in examples:
        place, first = 1, stories[story["story"]][story["order"][0]]
        assert re.search(rf"\| {place} \| \**{story['order'][0] + 1}\** \| {re.escape(first)} \|", card)
    data = ModelCard(card).data
    assert (data["license"], data["language"]) == ("mit", ["en", "fr"])


@pytest.mark.parametrize("name", ["stories.csv", "stories.tsv", "headless.tsv"])
def test_stories_in_the_layout_of_rocstories_are_never_quoted(name: str, train: Any, tmp_path: Path) -> None:
    stories = write_rocstories(tmp_path / name, "," if name.endswith("csv") else "\t", header=name != "headless.tsv")
    command = train("--data", tmp_path / name, "--license", "cc0-1.0", "--model_license", "mit")
    assert "wrote" in command.out
    assert not quoted(tmp_path / "model", stories)
    assert "## Examples" not in readme(tmp_path / "model")


def test_nor_where_they_only_validate(train: Any, tmp_path: Path) -> None:
    stories = write_rocstories(tmp_path / "dev.csv")
    train("--validation_data", tmp_path / "dev.csv", "--license", "mit")
    assert not quoted(tmp_path / "model", stories)


@pytest.mark.parametrize(
    ("fields", "licence", "language"),
    [
        ({"encoder": "cnn", "data": ["sample"]}, "apache-2.0", ("en",)),
        ({"encoder": "minilm", "data": ["sample"], "validation_data": ["sample"]}, "apache-2.0", ("en",)),
        ({"encoder": "org/bert", "data": ["sample"]}, "unknown", ("en",)),
        ({"encoder": "cnn", "data": ["sample", "a.csv"]}, "unknown", None),
        ({"encoder": "cnn", "data": ["sample"], "validation_data": ["a.csv"]}, "unknown", None),
    ],
)
def test_what_is_known_of_rights_without_a_word(fields: Any, licence: str, language: Any) -> None:
    stated = CardOptions().stated_for(Recipe(**fields))
    assert (stated.model_license, stated.language) == (licence, language)
    assert stated.license == ("apache-2.0" if language else None)
    said = CardOptions("mit", "other", ("de",))
    assert said.stated_for(Recipe(**fields)) == said


def test_the_sample_is_quoted_without_a_word(train: Any, tmp_path: Path) -> None:
    train("--encoder", "cnn", "--data", "sample", "--num_train_epochs", "1")
    card = readme(tmp_path / "model")
    assert card.count("\n### The ") == 3
    assert "The licence of the stories is `apache-2.0`." in card
    assert ModelCard(card).data["license"] == "apache-2.0"


def test_what_a_person_wrote_survives_a_second_training(train: Any, tmp_path: Path) -> None:
    train()
    path = tmp_path / "model" / "README.md"
    first = readme(tmp_path / "model")
    mine = first.replace("# model\n", "# Märchen\n").replace("license: unknown", "license: mit  # asked\nmine: 1")
    path.write_bytes((mine + "\n## Thanks\r\n").encode())
    command = train("--overwrite_output_dir", "--max_steps", "8", "--model_license", "cc0-1.0")
    assert "the generated section of README.md" in command.out
    second = path.read_bytes().decode()
    assert "# Märchen" in second and second.endswith("## Thanks\r\n")
    assert "license: mit  # asked" in second and "mine: 1" in second
    results = json.loads((tmp_path / "model" / "results.json").read_text("utf-8"))
    values = {result.metric_type: result.metric_value for result in ModelCard(second).data["eval_results"]}
    assert values == {name: results["test"][name] for name in values}
    assert values != {result.metric_type: result.metric_value for result in ModelCard(first).data["eval_results"]}
    assert f"**{number(results['test']['kendalls_tau'])}**" in second
    assert second.count("## Results") == 1


def test_a_licence_that_nobody_has_changed_follows_the_flag(train: Any, tmp_path: Path) -> None:
    train()
    train("--overwrite_output_dir", "--model_license", "mit")
    assert ModelCard(readme(tmp_path / "model")).data["license"] == "mit"
