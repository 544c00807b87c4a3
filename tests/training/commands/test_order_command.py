"""`sentence-ordering order`: every input and output, input order, and records that cannot be used."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from packaging.version import Version

from dataset_builder import BadRecord, Story, read_stories
from modeling_sentence_ordering import SentenceOrderingModel, SentenceOrderingPipeline, load_tokenizer, save_tokenizer
from tests.training.conftest import Command, Trained, done_ordering, run_command
from tests.training.made_up import made_up_stories
from training.commands.command_line import main
from training.inference import order_batches, ordering
from training.inference.ordering import OrderedStory, order_stories
from training.models.trained_model import load_trained_model

FIVE = made_up_stories(6, shortest=5, longest=5, seed=4)
MIXED = [["It rained."], *made_up_stories(5, shortest=2, longest=6, seed=8), ["Tom baked.", "Tom baked."]]
Order = Callable[..., Command]


@pytest.fixture(scope="module")
def pipeline(trained: Trained) -> SentenceOrderingPipeline:
    folder = str(trained.folder)
    return SentenceOrderingPipeline(
        model=SentenceOrderingModel.from_pretrained(folder), tokenizer=load_tokenizer(folder)
    )


@pytest.fixture
def order(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Order:
    """The command with the shared model; `text` is what comes on standard input."""

    def run(*arguments: str | os.PathLike[str], text: str = "") -> Command:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))
        return run_command("order", "--model", trained.folder, *arguments)

    return run


def as_text(stories: list[list[str]]) -> str:
    return "\n".join("".join(f"{sentence}\n" for sentence in story) for story in stories)


def write_input(path: Path, stories: list[list[str]]) -> Path:
    """Stories in the format of the path's suffix."""
    columns = [f"sentence{place}" for place in range(1, 6)]
    if path.suffix == ".txt":
        path.write_text(as_text(stories), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"sentences": story}) + "\n" for story in stories), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"storyid": [f"p{i}" for i in range(len(stories))], "sentences": stories}), path)
    elif path.suffix == ".csv":
        with open(path, "w", newline="", encoding="utf-8") as sink:
            rows = [[f"c{i}", f"Title {i}", *story] for i, story in enumerate(stories)]
            csv.writer(sink).writerows([["storyid", "storytitle", *columns], *rows])
    else:
        path.write_text("".join("\t".join(story) + "\n" for story in stories), encoding="utf-8")
    return path


def in_order(pipeline: SentenceOrderingPipeline, stories: list[list[str]]) -> list[list[str]]:
    return [answer["sentences"] for answer in pipeline(stories)]


def test_text_from_standard_input_is_answered_as_text(order: Order, pipeline: SentenceOrderingPipeline) -> None:
    result = order(text=as_text(MIXED))
    assert (result.code, result.err) == (0, done_ordering(7))
    assert result.out == as_text(in_order(pipeline, MIXED))


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".tsv", ".parquet"])
def test_every_format_of_input_is_read(
    suffix: str, order: Order, pipeline: SentenceOrderingPipeline, tmp_path: Path
) -> None:
    result = order(write_input(tmp_path / f"stories{suffix}", FIVE))
    assert (result.code, result.err) == (0, done_ordering(6))
    expected = pipeline(FIVE)
    if suffix == ".txt":
        assert result.out == as_text([answer["sentences"] for answer in expected])
        return
    for line, answer in zip(result.out.splitlines(), expected, strict=True):
        found = json.loads(line)
        assert (found["sentences"], found["order"]) == (answer["sentences"], answer["order"])
        assert found["scores"] == pytest.approx(answer["scores"], rel=1e-4)


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".parquet"])
def test_every_format_of_output_can_be_read_again_in_true_order(
    suffix: str, order: Order, pipeline: SentenceOrderingPipeline, tmp_path: Path
) -> None:
    source, target = write_input(tmp_path / "stories.csv", FIVE), tmp_path / f"ordered{suffix}"
    result = order(source, "--output", target)
    assert (result.code, result.err) == (0, "")
    wrote, next_ = result.out.splitlines()
    assert wrote == f"wrote {target}: 6 stories"
    assert next_.startswith("next: ") and ("confidence" in next_) is (suffix != ".txt")
    read = list(read_stories(target))
    assert [list(story.sentences) for story in read] == in_order(pipeline, FIVE)
    if suffix != ".txt":
        assert [story.storyid for story in read] == [f"c{i}" for i in range(6)]
        assert [story.title for story in read] == [f"Title {i}" for i in range(6)]
    assert {path.name for path in tmp_path.iterdir()} == {"stories.csv", target.name}
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(source.stat().st_mode)


def test_a_table_has_room_for_the_longest_story(
    order: Order, pipeline: SentenceOrderingPipeline, tmp_path: Path
) -> None:
    target = tmp_path / "ordered.csv"
    order(write_input(tmp_path / "stories.jsonl", MIXED), "--output", target)
    longest = max(map(len, MIXED))
    with open(target, newline="", encoding="utf-8") as source:
        rows = list(csv.DictReader(source))
    columns = [f"sentence{place}" for place in range(1, longest + 1)]
    assert list(rows[0]) == ["storyid", "storytitle", *columns, "order", "scores", "confidence", "truncated", "error"]
    for row, answer in zip(rows, pipeline(MIXED), strict=True):
        assert [row[column] for column in columns if row[column]] == answer["sentences"]
        assert json.loads(row["order"]) == answer["order"]
        assert json.loads(row["scores"]) == pytest.approx(answer["scores"], rel=1e-4)


def test_a_line_of_text_is_one_sentence_whatever_is_in_it(order: Order, tmp_path: Path) -> None:
    source, target = tmp_path / "stories.jsonl", tmp_path / "ordered.txt"
    source.write_text(json.dumps({"sentences": ["Tom\nbaked\r\n\na cake.", "It rained."]}) + "\n")
    assert order(source, "--output", target).code == 0
    assert sorted(target.read_text().splitlines()) == ["It rained.", "Tom baked a cake."]


@pytest.mark.parametrize("portion", [1, 2, 5, 100])
def test_answers_come_in_the_order_of_the_input_whatever_is_read_at_once(
    portion: int, trained: Trained, pipeline: SentenceOrderingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordering, "PORTION", portion)
    records: list[Story | BadRecord] = [Story(tuple(story), f"id-{i}") for i, story in enumerate(MIXED)]
    records.insert(2, BadRecord("some.csv", 7, "no story"))
    model, tokenizer = load_trained_model(str(trained.folder))
    found = list(order_stories(model, tokenizer, iter(records), batch_size=2))
    assert [answer.story for answer in found] == [item if isinstance(item, Story) else None for item in records]
    assert found.pop(2) == OrderedStory(None, error="some.csv, row 7: no story")
    assert [answer.sentences for answer in found] == in_order(pipeline, MIXED)


def test_no_more_than_a_portion_is_read_before_the_first_answer(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordering, "PORTION", 4)
    read: list[int] = []

    def endless() -> Iterator[Story]:
        while True:
            read.append(1)
            yield Story(("It rained.", "Tom baked."), "id")

    model, tokenizer = load_trained_model(str(trained.folder))
    next(order_stories(model, tokenizer, endless()))
    assert len(read) == 4


BAD_JSONL = '{"sentences": ["It rained.", "Tom baked."]}\n{"sentences": 5}\nnonsense\n{"sentences": ["She stayed."]}\n'


@pytest.mark.parametrize("suffix", [None, ".txt", ".jsonl", ".csv", ".parquet"])
def test_a_bad_record_is_answered_in_its_place_and_the_rest_is_ordered(
    suffix: str | None, order: Order, tmp_path: Path
) -> None:
    source = tmp_path / "stories.jsonl"
    source.write_text(BAD_JSONL)
    target = tmp_path / f"ordered{suffix}"
    result = order(source, *([] if suffix is None else ["--output", target]))
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert f"2 of 4 records could not be ordered; the first: {source}, row 2: " in result.err
    if suffix == ".txt":
        blocks = target.read_text().split("\n\n")
        assert [block.startswith("[error] ") for block in blocks] == [False, True, True, False]
        return
    records: list[dict[str, Any]]
    if suffix == ".parquet":
        records = pq.read_table(target).to_pylist()
    elif suffix == ".csv":
        with open(target, newline="", encoding="utf-8") as stream:
            records = list(csv.DictReader(stream))
    else:
        records = [json.loads(line) for line in (target.read_text() if suffix else result.out).splitlines()]
    assert [bool(record.get("error")) for record in records] == [False, True, True, False]
    assert f"{source}, row 3" in records[2]["error"]
    assert not records[1].get("order")


def test_bytes_that_are_no_text_cost_their_story_and_no_other(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = b"It rained.\nTom baked.\n\nbad \xff byte.\nShe stayed.\n\nMother made tea.\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))
    result = run_command("order", "--model", trained.folder)
    assert result.code == 1
    assert "stdin, row 4: not UTF-8" in result.err
    assert result.out.endswith("\n\nMother made tea.\n")


def test_one_sentence_is_in_order_and_nothing_is_nothing(order: Order, tmp_path: Path) -> None:
    assert order(text="Tom baked a cake.\n") == Command(0, "Tom baked a cake.\n", done_ordering(1))
    assert order(text="") == Command(0, "", done_ordering(0))
    assert order(text="\n \n\n") == Command(0, "", done_ordering(0))
    for suffix, content in (
        (".txt", ""),
        (".jsonl", ""),
        (".csv", "storyid,storytitle,order,scores,confidence,truncated,error\n"),
    ):
        target = tmp_path / f"ordered{suffix}"
        assert order("--output", target, text="").code == 0
        assert target.read_text() == content
    order("--output", tmp_path / "ordered.parquet", text="")
    assert pq.read_table(tmp_path / "ordered.parquet").num_rows == 0
    (tmp_path / "none.jsonl").write_text('{"sentences": []}\n')
    result = order(tmp_path / "none.jsonl")
    assert json.loads(result.out)["sentences"] == []


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".parquet"])
def test_no_half_file_takes_the_name_if_something_fails_half_way(
    suffix: str, order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_at_the_third(*arguments: Any, **options: Any) -> Iterator[OrderedStory]:
        yield from islice(order_stories(*arguments, **options), 2)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(order_batches, "order_stories", fail_at_the_third)
    target = tmp_path / f"ordered{suffix}"
    target.write_text("the old one")
    source = write_input(tmp_path / "stories.txt", FIVE)
    result = order(source, "--output", target)
    assert result.code == 1 and f"{target}: No space left on device (" in result.err and result.err.count("\n") == 1
    assert target.read_text() == "the old one"
    assert {path.name for path in tmp_path.iterdir()} == {target.name, "stories.txt"}


def test_an_input_is_not_overwritten_by_its_answer(order: Order, tmp_path: Path) -> None:
    path = write_input(tmp_path / "stories.jsonl", FIVE)
    before = path.read_bytes()
    refused = order(path, "--output", path)
    assert refused.code == 2 and "--output" in refused.err
    assert path.read_bytes() == before


def test_the_command_by_itself_and_what_it_does_not_load(trained: Trained) -> None:
    """As a person types it: another process, five sentences, and nothing loaded that ordering text has no use for."""
    story = FIVE[0][::-1]
    # transformers before 5.22 loads scikit-learn, and what that needs, by itself.
    by_transformers = Version(transformers.__version__) < Version("5.22")
    sklearn = {"sklearn", "pandas", "pyarrow", "scipy.stats"} if by_transformers else set()
    code = (
        "import sys\n"
        "from training.commands.command_line import main\n"
        "code = main(sys.argv[1:])\n"
        "heavy = {'datasets', 'pytorch_lightning', 'poutyne', 'matplotlib', 'tensorboard', 'sklearn',\n"
        "         'pandas', 'pyarrow', 'scipy.stats', 'jsonargparse'}\n"
        f"print(sorted((heavy - {sklearn}) & set(sys.modules)), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    root = str(Path(__file__).parents[3])
    result = subprocess.run(
        [sys.executable, "-c", code, "order", "--model", str(trained.folder)], input=as_text([story]), text=True,
        capture_output=True, env=os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ["PYTHONPATH"]])},
    )  # fmt: skip
    assert result.returncode == 0
    assert result.stderr == done_ordering(1) + "[]\n"
    assert sorted(result.stdout.splitlines()) == sorted(story)


def test_a_reader_that_has_enough_is_no_error_of_ours(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`sentence-ordering order … | head -1`."""
    source = write_input(tmp_path / "stories.txt", FIVE)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert main(["order", "--model", str(trained.folder), str(source)]) == 0
    assert capfd.readouterr().err == ""


def test_bfloat16_is_for_torch_alone(trained: Trained) -> None:
    stories = trained.home / "stories.jsonl"
    result = run_command("order", "--model", trained.folder, stories, "--bf16")
    assert (result.code, len(result.out.splitlines())) == (0, 60)
    refused = run_command("order", "--model", trained.folder, stories, "--bf16", "--backend", "onnx")
    assert (refused.code, refused.out) == (2, "")
    assert all(fact in refused.err for fact in ("--bf16", "--backend torch", "onnx"))


def test_a_story_without_finite_scores_is_an_error_in_its_place(trained: Trained, tmp_path: Path) -> None:
    """Here an embedding so large that a layer of the encoder overflows; in half precision that happens sooner."""
    model, tokenizer = load_trained_model(str(trained.folder))
    ids = [{token for ids in tokenizer(story)["input_ids"] for token in ids} for story in FIVE]
    rare = next(token for token in sorted(set.union(*ids)) if 0 < sum(token in some for some in ids) < len(FIVE))
    hit = [rare in some for some in ids]
    with torch.no_grad():
        model.get_input_embeddings().weight[rare] = 3e38
    model.save_pretrained(tmp_path / "model")
    save_tokenizer(tokenizer, tmp_path / "model")
    (tmp_path / "stories.txt").write_text(as_text(FIVE), encoding="utf-8")
    for name in ("answers.jsonl", "answers.csv", "answers.parquet"):
        result = run_command(
            "order", "--model", tmp_path / "model", tmp_path / "stories.txt", "--output", tmp_path / name
        )
        assert result.code == 1
        assert "not finite numbers" in result.err
    lines = (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert ["error" in answer for answer in found] == hit
    for answer, story in zip(found, FIVE, strict=True):
        assert "error" in answer or sorted(answer["sentences"]) == sorted(story)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_with_weights_that_are_not_finite_is_refused(value: float, trained: Trained, tmp_path: Path) -> None:
    model, tokenizer = load_trained_model(str(trained.folder))
    model.head.weight.data[0, 0] = value
    model.save_pretrained(tmp_path)
    save_tokenizer(tokenizer, tmp_path)
    with pytest.raises(ValueError, match="not finite.*head.weight"):
        load_trained_model(str(tmp_path))
    (tmp_path / "stories.txt").write_text(as_text(FIVE), encoding="utf-8")
    result = run_command("order", "--model", tmp_path, tmp_path / "stories.txt")
    assert (result.code, result.out) == (2, "")
