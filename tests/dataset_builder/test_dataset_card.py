"""The card of a built data set: metadata and text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard

from dataset_builder import SAMPLE_FILE, build_dataset
from dataset_builder.dataset_card import BuiltStories, CardMarkup, dataset_card
from dataset_builder.parquet_format import WrittenSplit
from model_card.markdown import as_text
from model_card.renewal import BEGIN, END, HINT, renewed_card, write_card
from tests.hub_server.cards import check_card

WriteRoc = Callable[..., Path]

# As the command hands it in.
MARKUP = CardMarkup(as_text, before=(HINT, BEGIN), behind=(END,), write=write_card)


def card_of(**values: Any) -> str:
    """The card of made-up values."""
    lengths = values.setdefault("lengths", {"train": {3: 10}})
    written = {split: WrittenSplit(sum(counts.values()), 500, 200) for split, counts in lengths.items()}
    described: dict[str, Any] = {
        "sources": [("a.jsonl", "JSON Lines", None)],
        "files": {"shuffled": written},
        "seed": 42,
    }
    return dataset_card(
        BuiltStories(markup=MARKUP, **{**described, "test_size": 0.2, "validation_size": 0.3, **values})
    )


def write_stories(path: Path, lengths: list[int]) -> str:
    lines = (
        json.dumps({"sentences": [f"Number {n}, {place}." for place in range(some)]}) for n, some in enumerate(lengths)
    )
    path.write_text("\n".join(lines))
    return str(path)


def test_of_a_table_of_five_sentences(write_roc: WriteRoc, tmp_path: Path) -> None:
    built = build_dataset([str(write_roc(1_200))], tmp_path / "built", seed=9, markup=MARKUP)
    card = DatasetCard.load(tmp_path / "built" / "README.md")
    data = card.data.to_dict()
    assert data["size_categories"] == ["1K<n<10K"]
    assert data["tags"] == ["sentence-ordering", "rocstories-layout"]
    assert "license" not in data and "language" not in data, "whose stories they are is not known"
    assert [(config["config_name"], config.get("default")) for config in data["configs"]] == [
        ("shuffled", True),
        ("guide", None),
    ]
    text = card.text
    for split, count in built.stories.items():
        assert f"| `{split}` | {count:,} | {5 * count:,} | 5 |" in text
    for column in ("storyid", "storytitle", "sentences", "labels", "sentence1` … `sentence5", "so_targets", "text"):
        assert f"| `{column}` |" in text
    for said in ("with seed 9.", "seed 9: ", "`test_size=0.2`", "1,000 rows", "| stories.csv | CSV | none |",
                 "No story is in more than one split.", "asks its users to register",
                 "@inproceedings{mostafazadeh"):  # fmt: skip
        assert said in text, said
    assert "keep them" not in text, "there were no splits"
    assert "Sentence 0, of" not in text, "no licence, no examples"
    assert str(tmp_path) not in card.content
    assert check_card(card.content, "dataset") == ([], [])


def test_the_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    build_dataset([SAMPLE_FILE], tmp_path / "built", markup=MARKUP)
    for info in DatasetCard.load(tmp_path / "built" / "README.md").data.to_dict()["dataset_info"]:
        files = (tmp_path / "built" / info["config_name"]).iterdir()
        assert info["download_size"] == sum(file.stat().st_size for file in files)
        assert info["dataset_size"] == sum(split["num_bytes"] for split in info["splits"])
        assert [(split["name"], split["num_examples"]) for split in info["splits"]] == [
            ("train", 1440), ("validation", 108), ("test", 252)
        ]  # fmt: skip


def test_of_the_sample(tmp_path: Path) -> None:
    build_dataset(["sample"], tmp_path / "built", repo_id="alice/sample", markup=MARKUP)
    card = DatasetCard.load(tmp_path / "built" / "README.md")
    assert (card.data.license, card.data.language) == ("apache-2.0", ["en"])
    assert 'load_dataset("alice/sample")' in card.text
    assert card.text.count("| Label | Sentence |") == 3
    assert "ROCStories" not in card.text


def test_examples_need_a_licence_and_are_of_the_first_split(tmp_path: Path) -> None:
    source = write_stories(tmp_path / "stories.jsonl", [3, 4, 3, 5, 2, 3, 3, 3, 3, 3])
    for folder, license in (("without", None), ("with", "cc-by-4.0")):
        build_dataset([source], tmp_path / folder, license=license, language=["en", "fr"], markup=MARKUP)
    without, card = (DatasetCard.load(tmp_path / folder / "README.md") for folder in ("without", "with"))
    assert "Examples" not in without.text and "Number" not in without.text
    assert (card.data.license, card.data.language) == ("cc-by-4.0", ["en", "fr"])
    table = json.loads((tmp_path / "stories.jsonl").read_text().splitlines()[0])
    assert len(table["sentences"]) == 3
    from datasets import load_dataset

    first = load_dataset(str(tmp_path / "with"), cache_dir=str(tmp_path / "cache"))["train"][0]
    rows = "\n".join(f"| {label} | {text} |" for label, text in zip(first["labels"], first["sentences"], strict=True))
    assert rows in card.text
    assert check_card(card.content, "dataset") == ([], [])


def test_the_card_states_kept_splits_and_shared_stories(tmp_path: Path) -> None:
    same = [4, 3, 2]
    sources = [write_stories(tmp_path / f"{split}.jsonl", same) for split in ("train", "test")]
    build_dataset(sources, tmp_path / "built", markup=MARKUP)
    text = DatasetCard.load(tmp_path / "built" / "README.md").text
    assert "| train.jsonl | JSON Lines | `train` |\n| test.jsonl | JSON Lines | `test` |" in text
    assert "keep them" in text and "train_test_split" not in text
    assert "3 stories are in more than one split" in text
    assert "| `test` | 3 | 9 | 2 to 4, 3.0 on average |" in text
    assert "| Sentences in a story | `train` | `test` |\n|---:|---:|---:|\n| 2 | 1 | 1 |" in text


def test_many_lengths_are_summed_up() -> None:
    card = card_of(lengths={"train": {length: 1_000 for length in range(2, 40)}})
    rows = re.findall(r"^\| ([\d to]+) \| ([\d,]+) \|$", card, re.MULTILINE)
    assert rows[:2] == [("2", "1,000"), ("3", "1,000")]
    assert rows[-1] == ("16 to 39", "24,000")
    assert sum(int(count.replace(",", "")) for _, count in rows) == 38_000


@pytest.mark.parametrize(
    ("count", "category"),
    [(10, "n<1K"), (999, "n<1K"), (1_000, "1K<n<10K"), (9_999, "1K<n<10K"), (10_000, "10K<n<100K"),
     (98_161, "10K<n<100K"), (10**6, "1M<n<10M"), (10**8, "100M<n<1B"), (10**9, "n>1B")],
)  # fmt: skip
def test_size_categories(count: int, category: str) -> None:
    card = card_of(lengths={"train": {3: count}})
    assert DatasetCard(card).data.to_dict()["size_categories"] == [category]
    assert 'stories["train"][0]' in card, "the example uses a split that exists"


def test_stories_cannot_break_the_card() -> None:
    nasty = ["a | b\n---\n# c", END, "<script>x</script>", "[link](http://x) `code` *bold* $x$", "x" * 5_000]
    card = card_of(
        examples=[{"storytitle": "A\n| title", "sentences": nasty, "labels": [0, 1, 2, 3, 4]}],
        sources=[("a|b.csv", "CSV", None)],
        license="mit",
    )
    assert r"| 0 | a \| b --- \# c |" in card and "| a\\|b.csv |" in card
    assert card.count(END) == card.count(BEGIN) == 1 and r"\<script\>" in card and "x" * 500 not in card
    assert r"\[link\](http" in card and "`code`" not in card.replace("\\`", "")


def test_what_a_person_wrote_survives_a_renewal() -> None:
    old = renewed_card(None, card_of(license="mit", lengths={"train": {3: 10}, "test": {3: 2}}))
    edited = old.replace("# Shuffled stories", "# My stories\n\nThe best ones.").replace("tags:\n", "tags:\n- mine\n")
    new = renewed_card(edited, card_of(license="mit", lengths={"train": {4: 2_000}}))
    from_a_folder = renewed_card(None, card_of(license="mit", lengths={"train": {4: 2_000}}))
    assert renewed_card(edited, from_a_folder) == new, "as a push renews the card on the Hub"
    data = DatasetCard(new).data.to_dict()
    assert "# My stories\n\nThe best ones." in new and set(data["tags"]) == {"mine", "sentence-ordering"}
    assert "| `train` | 2,000 | 8,000 | 4 |" in new and "| `test` |" not in new
    assert data["size_categories"] == ["1K<n<10K"]
    assert [split["split"] for split in data["configs"][0]["data_files"]] == ["train"]
    assert [split["num_examples"] for split in data["dataset_info"][0]["splits"]] == [2_000]
