"""The model card: metadata that the Hub accepts, code that works, the run's numbers; nothing of a person's is lost."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, RepoCard

from model_card.card import name_repository, render_model_card, write_model_card
from tests.hub_server import Hub
from tests.model_card.facts import ANALYSIS, EXAMPLE, METRICS, RECIPE, RESULTS, facts
from tests.model_card.rendered import html_of


def render(**changes: Any) -> str:
    return render_model_card(facts(**changes))


def with_analysis(**changes: Any) -> dict[str, Any]:
    return {**RESULTS, "analysis": {**ANALYSIS, **changes}}


def tables(card: str) -> list[list[list[str]]]:
    """Each table's rows of cells."""
    found = re.findall(r"(?:^\|.*\|\n)+", card + "\n", re.MULTILINE)
    return [
        [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]
        for table in found
    ]


def evaluations(card: str) -> Any:
    """The results in the metadata as the Hub's client reads them."""
    return ModelCard(card).data["eval_results"]


def training(card: str) -> dict[str, str]:
    """The table on the training."""
    return {name: value for name, value in tables(card)[-1][2:]}


def test_the_metadata_are_what_the_hub_reads() -> None:
    data = ModelCard(render(license="mit", language=("en",), datasets=["me/stories"])).data.to_dict()
    assert {key: value for key, value in data.items() if key != "model-index"} == {
        "library_name": "transformers",
        "pipeline_tag": "sentence-ordering",
        "tags": ["sentence-ordering"],
        "metrics": ["kendalls_tau", "accuracy", "pmr"],
        "base_model": "org/encoder",
        "license": "mit",
        "language": "en",
        "datasets": ["me/stories"],
    }
    assert ModelCard(render(language=("en", "fr"))).data["language"] == ["en", "fr"]


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_model_index_has_each_metric_of_the_judged_split(split: str) -> None:
    results = RESULTS if split == "test" else {key: value for key, value in RESULTS.items() if key != "test"}
    found = evaluations(render(results=results))
    assert {entry.metric_type: entry.metric_value for entry in found} == {
        name: results[split][name] for name in ("kendalls_tau", "accuracy", "pmr")
    }
    assert {(entry.task_type, entry.dataset_split) for entry in found} == {("sentence-ordering", split)}
    assert {entry.dataset_name for entry in found} == {"stories.csv, größer & $better.csv"}


def test_data_on_the_hub_are_named_by_their_id() -> None:
    card = render(recipe={**RECIPE, "data": ["me/stories"]}, datasets=["me/stories"])
    assert {entry.dataset_type for entry in evaluations(card)} == {"me/stories"}
    assert "[me/stories](https://huggingface.co/datasets/me/stories)" in card


def test_what_is_not_on_the_hub_is_no_metadata() -> None:
    """A local name there is rejected by the Hub; in the text it is fine."""
    card = ModelCard(render(base_model=None))
    assert not {"base_model", "datasets", "language"} & set(card.data.to_dict())
    assert card.data["license"] == "unknown"
    assert training(card.text)["Encoder"] == "my-bert"


CARDS: list[dict[str, Any]] = [
    {},
    {"language": ("en", "de"), "license": "cc-by-nc-sa-4.0", "datasets": ["me/a", "me/b"], "base_model": None},
    {"results": {key: RESULTS[key] for key in ("training", "environment")}},
    {"recipe": {**RECIPE, "data": ["sample"]}, "examples": [EXAMPLE], "quoted_under": "apache-2.0"},
    {"recipe": {**RECIPE, "data": ["!?"]}},
]


@pytest.mark.skipif(
    "ENDPOINT" not in inspect.getsource(RepoCard.validate),
    reason="this huggingface_hub asks huggingface.co itself, wherever the Hub is",
)
@pytest.mark.parametrize("changes", CARDS)
def test_the_hub_accepts_the_card(changes: dict[str, Any], hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(render(**changes), encoding="utf-8")
    code = "from huggingface_hub import ModelCard; ModelCard.load('README.md').validate()"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=hub.environment(tmp_path), capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert [request.path for request in hub.requests] == ["/api/validate-yaml"]


def test_the_results_are_those_of_the_run_beside_chance_and_the_order_shown() -> None:
    assert tables(render())[0] == [
        ["", "Kendall's tau", "Accuracy", "Perfect match ratio"],
        ["---", "---:", "---:", "---:"],
        ["**This model**", "**0.713**<br>(0.703 to 0.724)", "**0.612**<br>(0.601 to 0.622)",
         "**0.250**<br>(0.235 to 0.267)"],
        ["Before training", "-0.013", "0.612", "0.250"],
        ["Input order", "0.000", "0.199", "0.008"],
        ["Random order", "0.000", "0.200", "0.008"],
    ]  # fmt: skip
    text = render()
    assert "On the 7,373 stories of the test split (36,865 sentences)" in text
    assert "95% confidence intervals" in text and "2,000 bootstrap resamples" in text
    assert "On the 3,160 validation stories: Kendall's tau 0.738," in text
    chosen = {**RECIPE, "load_best_model_at_end": True, "eval_strategy": "epoch"}
    assert "The checkpoint was selected" in render(recipe=chosen)


def test_what_was_not_measured_is_not_spoken_of() -> None:
    without = {key: value for key, value in RESULTS.items() if key not in ("before_training", "validation")}
    assert "Before training" not in render(results=without) and "validation" not in render(results=without)
    other = {**RESULTS, "before_training": {**RESULTS["before_training"], "split": "validation"}}
    assert "Before training" not in render(results=other)
    intervals = {key: ANALYSIS["intervals"][key] for key in ("level", "resamples", "seed")}
    card = render(results=with_analysis(intervals=intervals))
    assert "confidence intervals" not in card and "**0.713** |" in card
    nothing = render(results={key: RESULTS[key] for key in ("training", "environment")}, heatmap=None)
    assert "Not measured" in nothing and "model-index" not in nothing and "heatmap" not in nothing


def test_a_limit_of_the_measurement_is_said() -> None:
    intervals = {**ANALYSIS["intervals"], "pmr": [0.0, 0.0]}
    assert "All stories have the same perfect match ratio" in render(results=with_analysis(intervals=intervals))
    assert "All stories have the same" not in render()
    cut = {**RESULTS, "test": {**METRICS, "dropped_sentences": 1234}}
    assert "1,234 of these sentences" in render(results=cut)
    assert "of these sentences" not in render()


def test_positions_and_numbers_of_sentences_have_tables() -> None:
    assert tables(render())[1] == [
        ["True position", "1", "2", "3", "4", "5"],
        ["---", *["---:"] * 5],
        ["Accuracy", "0.510", "0.520", "0.530", "0.540", "0.550"],
        ["Sentences", *["7,373"] * 5],
    ]
    assert "All stories have 5 sentences." in render()
    rows = [
        {"sentences": 3, "stories": 1000, "accuracy": 0.5, "kendalls_tau": 0.6, "pmr": 0.4},
        {"sentences": 4, "stories": 10, "accuracy": 0.25, "kendalls_tau": -0.5, "pmr": 0.0},
    ]
    assert tables(render(results=with_analysis(by_sentences=rows)))[2][2:] == [
        ["3", "1,000", "0.600", "0.500", "0.400"],
        ["4", "10", "-0.500", "0.250", "0.000"],
    ]


def test_partial_orders_have_a_table_if_the_model_is_calibrated() -> None:
    assert tables(render())[2] == [
        ["`ties`", "Asserted pairs", "Precision", "Recall", "Tau-b"],
        ["---", *["---:"] * 4],
        ["whole order", "100.0%", "85.6%", "85.6%", "0.712"],
        ["0.80", "75.0%", "91.2%", "68.4%", "0.650"],
        ["0.99", "0.0%", "–", "0.0%", "0.000"],
    ]
    assert "Partial orders" not in render(results=with_analysis(partial_orders=[]))


def test_many_positions_are_joined_to_a_table_that_fits() -> None:
    rows = [{"position": place, "accuracy": float(place == 2), "sentences": 30 if place == 2 else 10}
            for place in range(1, 26)]  # fmt: skip
    header, _, accuracy, sentences = tables(render(results=with_analysis(by_position=rows)))[1]
    assert header == ["True position", *[f"{start}–{start + 2}" for start in range(1, 25, 3)], "25"]
    assert accuracy[1:3] == ["0.600", "0.000"]
    assert sentences[1:3] == ["50", "30"] and sentences[-1] == "10"


def test_examples_are_shown_with_what_went_wrong_and_how_they_were_chosen() -> None:
    card = render(examples=[EXAMPLE], quoted_under="cc-by-4.0")
    assert "This is the worst by Kendall's tau of 100 stories, drawn at random (seed 42) from the test split." in card
    assert "`cc-by-4.0`" in card and "### The worst: tau -0.333" in card
    assert "2 of 3 pairs" in card and "Sentence 3" in card and "2 positions too early" in card
    assert [row[:2] for row in tables(card)[3][2:]] == [["1", "**3**"], ["2", "**1**"], ["3", "**2**"]]
    html = html_of(card)
    for words in ("Tom &lt;b&gt;mixed&lt;/b&gt; flour | eggs.", "He *baked*.", "`It` was [good](x)."):
        assert f'<td style="text-align:left">{words}</td>' in html
    assert "## Examples" not in render()


@pytest.mark.parametrize(
    ("order", "words"),
    [([0, 1, 2], "Every sentence is at its true position."), ([0, 2, 1], "1 of 3 pairs"),
     ([0, 2, 1], "1 position too late"), ([2, 1, 0], "3 of 3 pairs"), ([1, 2, 3, 0], "3 positions too late")],
)  # fmt: skip
def test_what_went_wrong_is_counted(order: list[int], words: str) -> None:
    example = type(EXAMPLE)("best", [f"{place}" for place in order], order, 0.5)
    assert words in render(examples=[example], quoted_under="mit")


def test_where_not_all_stories_could_be_chosen_from_it_is_said() -> None:
    rows = [*ANALYSIS["by_sentences"], {**ANALYSIS["by_sentences"][0], "sentences": 11}]
    card = render(results=with_analysis(by_sentences=rows), examples=[EXAMPLE], quoted_under="mit")
    assert "of 100 stories with at most 10 sentences, drawn at random" in card
    every = with_analysis(examples={**ANALYSIS["examples"], "candidates": 100})
    assert "of the 100 stories in the test split." in render(results=every, examples=[EXAMPLE])
    cut = {**RESULTS, "test": {**METRICS, "dropped_sentences": 1}}
    assert "of 100 stories that fit in the encoder, drawn" in render(results=cut, examples=[EXAMPLE])


def test_the_recipe_is_there_to_be_used_again() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", render(), re.DOTALL)
    assert yaml.safe_load(block) == RECIPE
    fence = {**RECIPE, "data": ["```.csv"]}
    (block,) = re.findall(r"````yaml\n(.*?)````", render(recipe=fence), re.DOTALL)
    assert yaml.safe_load(block) == fence


def test_how_it_was_trained_is_told() -> None:
    rows = training(render())
    assert rows["Training stories"] == "42,132, of 5 sentences" and rows["Parameters"] == "66,362,880"
    assert (rows["Framework"], rows["Training time"], rows["Hardware"]) == ("Lightning", "12 seconds", "cpu")
    assert training(render(training_sentences=(3, 9)))["Training stories"] == "42,132, of 3 to 9 sentences"
    assert "python 3.11.7, sentence-ordering 0.1.0, torch 2.13.0." in render()
    for seconds, words in ((600, "10 minutes"), (9000, "2.5 hours")):
        results = {**RESULTS, "training": {"seconds": seconds, "stories": 1}}
        assert training(render(results=results))["Training time"] == words


def test_limits_follow_from_the_facts() -> None:
    card = render()
    assert "at most 512 tokens" in card and "single training run (seed 7)" in card
    assert "The language of the stories was not stated." in card
    assert "Language of the stories: `en`." in render(language=("en",))
    assert "tokens at once" not in render(max_input_tokens=None)
    assert "biases" in card and "biases" not in render(base_model=None)


def test_the_code_names_the_model_and_is_python() -> None:
    use, train = re.findall(r"```python\n(.*?)```", render(name='my "best" model'), re.DOTALL)
    for block in (use, train):
        compile(block, "card", "exec")
        assert "trust_remote_code=True" in block
    assert r'model="my \"best\" model"' in use and '\nrepo = "my \\"best\\" model"\n' in train
    assert len([line for line in train.splitlines() if line]) <= 20


def test_nothing_is_left_to_fill_in() -> None:
    text = render().replace("$better", "")
    assert not re.search(r"\$\w|\{\{|None|nan\b", text)
    assert "](loss_curves.png)" in text and "](position_heatmap.png)" in text


def test_the_card_is_the_readme_of_the_folder(tmp_path: Path) -> None:
    assert write_model_card(tmp_path, facts()) is True
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n") and "\n# my-model\n" in card
    assert os.listdir(tmp_path) == ["README.md"]
    assert write_model_card(tmp_path, facts()) is True
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == card


def test_a_readme_that_a_person_wrote_gets_metadata_and_keeps_its_text(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("Mine.")
    assert write_model_card(tmp_path, facts()) is False
    card = ModelCard.load(tmp_path / "README.md")
    assert card.text == "Mine." and card.data.pipeline_tag == "sentence-ordering"


def test_the_example_names_the_repository_and_nothing_else_changes(tmp_path: Path) -> None:
    assert name_repository(tmp_path, "me/mine") is False
    write_model_card(tmp_path, facts())
    path = tmp_path / "README.md"
    before = path.read_text().replace("# my-model", '# Mine\n\npipeline("sentence-ordering", model="my-model")')
    path.write_text(before)
    assert name_repository(tmp_path, r"me/\1") is True
    head, section = before.split("<!-- generated by", 1)
    assert path.read_text() == head + "<!-- generated by" + section.replace('="my-model"', r'="me/\\1"').replace(
        'repo = "my-model"', r'repo = "me/\\1"'
    )
    assert name_repository(tmp_path, r"me/\1") is False
    assert os.listdir(tmp_path) == ["README.md"]


def test_the_card_says_what_the_head_decides() -> None:
    score, pairs = render(), render(head="pairs")
    assert "sorted by score" in score and "log-odds" not in score
    assert "log-odds" in pairs and "sorted by score" not in pairs
