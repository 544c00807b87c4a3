"""The script that draws the picture of README.md, with a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset_builder import load_stories
from examples.picture_of_a_story import main
from modeling_sentence_ordering import SentenceOrderingModel, load_tokenizer, save_tokenizer
from tests.modeling_sentence_ordering.small_encoders import write_encoder

PICTURE = Path(__file__).parents[2] / "examples" / "pictures" / "story.svg"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    encoder = str(write_encoder(folder / "encoder", "bert"))
    SentenceOrderingModel.from_encoder(encoder).save_pretrained(folder / "model")
    save_tokenizer(load_tokenizer(encoder), folder / "model")
    return folder / "model"


def test_the_script_draws_the_story_of_the_readme(model: Path, tmp_path: Path) -> None:
    drawn = []
    for name in ("a.svg", "b.svg"):
        main(["--model", str(model), "--output", str(tmp_path / name)])
        drawn.append((tmp_path / name).read_text(encoding="utf-8"))
    assert drawn[0] == drawn[1]
    (story,) = (story for story in load_stories(["sample"])["test"] if story["storyid"] == "sample-0306")
    there = PICTURE.read_text(encoding="utf-8")
    for text in (story["storytitle"], *(sentence[:30] for sentence in story["sentences"])):
        assert text in drawn[0] and text in there
    assert drawn[0].splitlines()[0] == there.splitlines()[0], "of one size"


def test_a_story_that_is_not_there_is_named(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--model", str(model), "--output", str(tmp_path / "a.svg"), "--storyid", "none"])
    assert "no story none in the test split" in capsys.readouterr().err
