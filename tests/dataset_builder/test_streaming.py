"""Stories are streamed from Parquet in any order: each once, without reading other rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder import (
    SAMPLE_FILE,
    BadRecord,
    Story,
    StoryStream,
    build_dataset,
    load_all,
    read_stories,
    stream_stories,
)
from dataset_builder import streaming as reading

# Rows, and rows of a row group: some files have one group, some end with a small one.
FILES = {"a": (170, 40), "b": (30, 100), "c": (1, 1), "d": (299, 99)}
ROWS = sum(rows for rows, _ in FILES.values())


def write_parquet(path: Path, stories: list[list[str]], rows: int = 100, **columns: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"sentences": stories, **columns}), path, row_group_size=rows)
    return path


def numbered(first: int, stop: int) -> list[list[str]]:
    return [[f"Sentence {place} of story {number}." for place in range(3)] for number in range(first, stop)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, first = tmp_path_factory.mktemp("parquet"), 0
    for name, (rows, group) in FILES.items():
        write_parquet(folder / f"{name}.parquet", numbered(first, first + rows), group)
        first += rows
    return folder


@pytest.fixture(scope="module")
def stream(folder: Path) -> StoryStream:
    return stream_stories([str(folder)])[0]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many records of each file were made stories."""
    counts: Counter[str] = Counter()

    def counted(record: Any, *, file: str, row: int, splitter: Any = None) -> Story:
        counts[Path(file).stem] += 1
        return original(record, file=file, row=row, splitter=splitter)

    original = reading.story_from_record
    monkeypatch.setattr(reading, "story_from_record", counted)
    return counts


def test_in_the_order_of_the_files_it_is_what_their_reader_gives(folder: Path, stream: StoryStream) -> None:
    stories = [story for name in FILES for story in read_stories(folder / f"{name}.parquet")]
    assert list(stream.read(stream.order())) == list(enumerate(stories))
    assert len(stream) == ROWS == len(stories)


@pytest.mark.parametrize("epoch", [0, 1])
def test_in_any_order_every_story_comes_once_with_its_number(stream: StoryStream, epoch: int) -> None:
    found = list(stream.read(stream.order(7, epoch)))
    assert sorted(number for number, _ in found) == list(range(ROWS))
    assert all(story.sentences[0] == f"Sentence 0 of story {number}." for number, story in found)
    assert [number for number, _ in found] != list(range(ROWS))


def test_seed_and_epoch_decide_the_order(stream: StoryStream) -> None:
    orders = [[number for number, _ in stream.read(stream.order(*which))] for which in ((7, 0), (7, 1), (8, 0), (7, 0))]
    assert orders[0] == orders[3]
    assert len({tuple(order) for order in orders}) == 3
    files = [next(name for name, end in zip(FILES, (170, 200, 201, 500), strict=True) if n < end) for n in orders[0]]
    assert sum(one != other for one, other in zip(files, files[1:], strict=False)) == len(FILES) - 1, "each opened once"


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (39, 41), (120, 333), (498, 500), (77, 77), (200, None)])
def test_a_range_is_read_without_the_rows_around_it(
    stream: StoryStream, decoded: Counter[str], start: int, stop: int | None
) -> None:
    order = stream.order(3)
    whole = list(stream.read(order))
    decoded.clear()
    assert list(stream.read(order, start, stop)) == whole[start:stop]
    assert decoded.total() == len(whole[start:stop])


def test_other_row_groups_are_not_read(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "stories.parquet", numbered(0, 300), 100)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    begin = column.dictionary_page_offset or column.data_page_offset
    content[begin : begin + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(content)
    stream = stream_stories([str(path)])[0]
    for start, stop in ((0, 100), (200, 300)):
        assert [number for number, _ in stream.read(stream.order(), start, stop)] == list(range(start, stop))
    with pytest.raises(BadRecord, match=r"stories\.parquet, row 101: not readable as Parquet"):
        list(stream.read(stream.order(), 150, 160))


def test_shuffled_stories_come_in_true_order_and_bad_ones_by_file_and_row(tmp_path: Path) -> None:
    first = write_parquet(tmp_path / "first.parquet", [["b", "a"]] * 3, 2, labels=[[1, 0]] * 3, storyid=["x", "y", "z"])
    stream = stream_stories([str(first)])[0]
    stories = [story for _, story in stream.read(stream.order())]
    assert [(story.storyid, story.sentences) for story in stories] == [(id_, ("a", "b")) for id_ in "xyz"]
    write_parquet(tmp_path / "second.parquet", [["a", "b"], ["c", "d"], ["e", ""]], 2)
    stream = stream_stories([str(tmp_path)])[0]
    with pytest.raises(BadRecord, match=r"second\.parquet, row 3: sentence 2 is empty"):
        list(stream.read(stream.order()))


def texts(stories: Iterator[tuple[int, Story]] | datasets.Dataset) -> set[str]:
    if isinstance(stories, datasets.Dataset):
        return {sentences[0] for sentences in stories["sentences"]}
    return {story.sentences[0] for _, story in stories}


def opened(*sources: Path, **options: Any) -> dict[str, set[str]]:
    """The first sentences of each split, the streamed one as `train`."""
    stream, others = stream_stories([str(source) for source in sources], **options)
    splits = {"train": texts(stream.read(stream.order()))}
    return splits | {name: texts(split) for name, split in others.items()}


def test_file_names_decide_the_splits_and_training_stories_are_not_in_tables(tmp_path: Path) -> None:
    for split, name in enumerate(["train-0", "train-1", "dev", "test"]):
        write_parquet(tmp_path / "in" / f"{name}.parquet", [[f"{split}.{n}", "b"] for n in range(3)])
    cache = tmp_path / "cache"
    found = opened(tmp_path / "in", cache_dir=cache)
    names = [{f"{split}.{n}" for n in range(3)} for split in range(4)]
    assert found == {"train": names[0] | names[1], "validation": names[2], "test": names[3]}
    assert len(list(cache.rglob("*.arrow"))) == 2
    files = sorted((tmp_path / "in").iterdir())
    assert opened(*files, cache_dir=cache) == found
    assert opened(tmp_path / "in" / "test.parquet", validation_sources=[str(tmp_path / "in" / "dev.parquet")]) == {
        "train": names[3],
        "validation": names[2],
    }
    assert opened(tmp_path / "in" / "train-0.parquet") == {"train": names[0]}, "no split is made"
    with pytest.raises(ValueError, match=r"there are no training stories in .*test\.parquet"):
        opened(tmp_path / "in" / "test.parquet")


@pytest.mark.parametrize("name", ["built", "parquet"])
def test_what_build_wrote_is_streamed_split_by_split(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that is called like one of the readers of `datasets`, too."""
    monkeypatch.chdir(tmp_path)
    build_dataset([SAMPLE_FILE], name, cache_dir=tmp_path / "cache")
    expected = datasets.load_dataset(str(tmp_path / name), cache_dir=str(tmp_path / "cache"))
    stream, others = stream_stories([name], cache_dir=tmp_path / "cache")
    assert set(load_all([name])["storyid"]) == {id_ for split in expected.values() for id_ in split["storyid"]}
    assert len(load_all([name])) == sum(map(len, expected.values()))
    found = {"train": [story.storyid for _, story in stream.read(stream.order())]}
    found |= {name: split["storyid"] for name, split in others.items()}
    assert found == {name: split["storyid"] for name, split in expected.items()}


def test_what_cannot_be_streamed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("stories.jsonl").write_text('{"sentences": ["a", "b"]}\n')
    Path("none.parquet").write_bytes(b"PAR1 and nothing else")
    write_parquet(Path("other.parquet"), [["a", "b"]])
    pq.write_table(pa.table({"sentence": [["a", "b"]]}), "columns.parquet")
    write_parquet(Path("nothing.parquet"), [])
    datasets.Dataset.from_dict({"sentences": [["a", "b"]]}).save_to_disk("saved")
    for source, message in {
        "sample-long": r"^sample-long: this is not Parquet; only Parquet can be streamed.*sentence-ordering build",
        "stories.jsonl": r"^stories\.jsonl: this is not Parquet; only Parquet can be streamed",
        "saved": r"^saved: a data set that `save_to_disk` wrote; only Parquet",
        "none.parquet": r"^none\.parquet: not readable as Parquet: ",
        "columns.parquet": r"^columns\.parquet: column 'sentences' is missing \(found: sentence\); is 'sentence' meant",
        "nothing.parquet": r"^no stories in nothing\.parquet",
        "othr.parquet": r"^othr\.parquet: no such file; did you mean other\.parquet\?",
        "neither": r"^neither: no such data",
    }.items():
        with pytest.raises(ValueError, match=message):
            stream_stories([source])
