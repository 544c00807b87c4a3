"""The script that draws the picture of README.md, with a tiny model."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path

import pytest

from dataset_builder import load_stories
from examples.picture_of_a_story import main
from modeling_sentence_ordering import SentenceOrderingModel, load_tokenizer, save_tokenizer
from tests.modeling_sentence_ordering.small_encoders import write_encoder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    encoder = str(write_encoder(folder / "encoder", "bert"))
    SentenceOrderingModel.from_encoder(encoder).save_pretrained(folder / "model")
    save_tokenizer(load_tokenizer(encoder), folder / "model")
    return folder / "model"


def test_the_script_draws_the_median_story(model: Path, tmp_path: Path) -> None:
    examples = [{"chosen": "best", "story": 1}, {"chosen": "median", "story": 7}]
    (model / "results.json").write_text(json.dumps({"analysis": {"examples": {"stories": examples}}}))
    story = load_stories("sample")["test"][7]
    drawn = []
    for name, flags in (("a.svg", []), ("b.svg", ["--storyid", story["storyid"]])):
        main(["--model", str(model), "--output", str(tmp_path / name), *flags])
        drawn.append((tmp_path / name).read_text(encoding="utf-8"))
    assert drawn[0] == drawn[1]
    assert story["storytitle"] in unescape(drawn[0])


def test_a_story_that_is_not_there_is_named(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--model", str(model), "--output", str(tmp_path / "a.svg"), "--storyid", "none"])
    assert "no story none in the test split" in capsys.readouterr().err
