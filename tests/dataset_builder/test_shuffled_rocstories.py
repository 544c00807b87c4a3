"""The loading script through `load_dataset`, and its class without it, on datasets 3 and 5."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import logging
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
import pytest

from dataset_builder import ShuffledRocstories

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "dataset_builder" / "shuffled_rocstories.py"

WriteRoc = Callable[..., Path]
LoadScript = Callable[..., Any]


def rows_of(splits: dict[str, Iterable[Any]]) -> dict[str, list[Any]]:
    return {split: list(rows) for split, rows in splits.items()}


def true_order(row: dict[str, Any]) -> list[str]:
    return [sentence for _, sentence in sorted(zip(row["labels"], row["sentences"], strict=True))]


def expected_ids(count: int, seed: int = 42, test_size: float = 0.2, validation_size: float = 0.3) -> dict[str, Any]:
    rows = datasets.Dataset.from_dict({"storyid": [f"id{number}" for number in range(count)]})
    first = rows.train_test_split(test_size=test_size, seed=seed)
    second = first["test"].train_test_split(test_size=validation_size, seed=seed)
    splits = {"train": first["train"], "validation": second["test"], "test": second["train"]}
    return {split: part["storyid"] for split, part in splits.items()}


def ids(splits: dict[str, Iterable[Any]]) -> dict[str, list[str]]:
    return {split: [row["storyid"] for row in rows] for split, rows in splits.items()}


def test_shuffled_is_the_default_and_is_split_as_the_guide_did(write_roc: WriteRoc, load_script: LoadScript) -> None:
    splits = load_script(data_files=str(write_roc(50)))
    assert ids(splits) == expected_ids(50)
    assert list(splits["train"].features) == ["storyid", "storytitle", "sentences", "labels"]
    for row in [row for part in splits.values() for row in part]:
        number = row["storyid"].removeprefix("id")
        assert true_order(row) == [f"Sentence {place}, of story {number}." for place in range(5)]
        assert row["storytitle"] == f"Title {number}"
    assert rows_of(splits) == rows_of(load_script("shuffled", data_files=str(write_roc(50))))
    assert len({tuple(row["labels"]) for row in splits["train"]}) > 10


@pytest.mark.slow
def test_guide_is_the_guide_at_its_full_size(write_roc: WriteRoc, load_script: LoadScript) -> None:
    """52,665 rows through the guide's own steps: map in batches of 1,000, then split, then split again."""

    def shuffle(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        random.seed(42)
        texts, targets = [], []
        for story in zip(*(batch[f"sentence{number}"] for number in range(1, 6)), strict=True):
            pairs = [(sentence, index) for index, sentence in enumerate(story)]
            random.shuffle(pairs)
            texts.append("[CLS] " + " [CLS] ".join(sentence for sentence, _ in pairs))
            targets.append([index for _, index in pairs])
        return {"text": texts, "so_targets": targets}

    count = 52_665
    path = write_roc(stories=([f"id{n}", "T", *(f"{n}-{place}" for place in range(5))] for n in range(count)))
    ours = load_script("guide", data_files=str(path))
    assert {split: len(part) for split, part in ours.items()} == {"train": 42_132, "validation": 3_160, "test": 7_373}

    state = random.getstate()
    columns = {f"sentence{place + 1}": [f"{n}-{place}" for n in range(count)] for place in range(5)}
    stories = datasets.Dataset.from_dict({"storyid": [f"id{n}" for n in range(count)], **columns})
    stories = stories.map(shuffle, batched=True)
    random.setstate(state)
    first = stories.train_test_split(test_size=0.2, seed=42)
    second = first["test"].train_test_split(test_size=0.3, seed=42)
    guide = {"train": first["train"], "validation": second["test"], "test": second["train"]}
    for split, part in guide.items():
        for column in part.column_names:
            assert ours[split][column] == part[column], (split, column)

    first_story = next(row for part in ours.values() for row in part if row["storyid"] == "id0")
    assert first_story["so_targets"] == [3, 1, 2, 4, 0]
    assert first_story["text"] == "[CLS] 0-3 [CLS] 0-1 [CLS] 0-2 [CLS] 0-4 [CLS] 0-0"


@pytest.mark.parametrize("name", ["shuffled", "guide"])
def test_streaming_gives_the_same_rows_in_file_order(name: str, write_roc: WriteRoc, load_script: LoadScript) -> None:
    path = str(write_roc(1_030))
    whole = load_script(name, data_files=path, seed=7, test_size=0.25, validation_size=0.5)
    streamed = load_script(name, data_files=path, seed=7, test_size=0.25, validation_size=0.5, streaming=True)
    assert ids(whole) == expected_ids(1_030, 7, 0.25, 0.5)
    for split, rows in rows_of(streamed).items():
        assert rows == sorted(whole[split], key=lambda row: int(row["storyid"][2:]))


def test_shuffles_do_not_hang_on_the_other_stories(write_roc: WriteRoc, load_script: LoadScript) -> None:
    few = load_script(data_files=str(write_roc(20, "few.csv", first=30)))
    many = load_script(data_files=str(write_roc(60, "many.csv")))
    labels = {row["storyid"]: row["labels"] for part in many.values() for row in part}
    assert all(row["labels"] == labels[row["storyid"]] for part in few.values() for row in part)
    other_seed = load_script(data_files=str(write_roc(60, "many.csv")), seed=43)
    assert {row["storyid"]: row["labels"] for part in other_seed.values() for row in part} != labels


def test_rows_do_not_hang_on_num_proc(write_roc: WriteRoc, load_script: LoadScript, tmp_path: Path) -> None:
    files = [str(write_roc(15, "a.csv")), str(write_roc(15, "b.csv", first=15))]
    one = load_script(data_files=files)
    two = load_script(data_files=files, num_proc=2, cache_dir=str(tmp_path / "other"))
    assert ids(one) == expected_ids(30)
    assert rows_of(one) == rows_of(two)


def test_train_alone_is_split_and_several_splits_are_kept(write_roc: WriteRoc, load_script: LoadScript) -> None:
    a, b = str(write_roc(20, "a.csv")), str(write_roc(10, "b.csv", first=20))
    assert rows_of(load_script(data_files={"train": a})) == rows_of(load_script(data_files=a))
    for streaming in (False, True):
        kept = ids(load_script(data_files={"train": [a], "dev": b}, streaming=streaming))
        assert kept == {"train": [f"id{n}" for n in range(20)], "dev": [f"id{n}" for n in range(20, 30)]}
        assert list(ids(load_script(data_files={"test": b}, streaming=streaming))) == ["test"]
    guide = load_script("guide", data_files={"train": a, "test": b})
    assert guide["test"][0]["so_targets"] == guide["train"][0]["so_targets"] == [3, 1, 2, 4, 0]


def test_data_files_are_looked_up_in_the_working_directory_first(
    write_roc: WriteRoc, load_script: LoadScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_roc(12, "here/stories.csv")
    write_roc(8, "here/odd [name] (1).csv")
    monkeypatch.chdir(tmp_path)
    expected = expected_ids(12)
    assert ids(load_script(data_files="here/stories.csv")) == expected
    assert ids(load_script(data_files="here/stor*.csv")) == expected
    assert ids(load_script(data_files=Path("here") / "stories.csv")) == expected
    assert ids(load_script(data_files={"train": Path("here/stories.csv")})) == expected
    assert ids(load_script(data_files="stories.csv", data_dir="here")) == expected
    assert ids(load_script(data_files="here/odd [name] (1).csv")) == expected_ids(8)
    write_roc(9, "sample/sample_stories.csv")
    assert ids(load_script(data_files="sample/sample_stories.csv")) == expected_ids(9)
    (tmp_path / "sample" / "sample_stories.csv").unlink()
    # The file is no longer in the working directory, but in the folder of the script.
    assert sum(map(len, load_script(data_files="sample/sample_stories.csv").values())) >= 320
    with pytest.raises(FileNotFoundError, match=r"data_files: here/storys\.csv: no such file; did you mean .*stories"):
        load_script(data_files="here/storys.csv")


def test_data_dir(
    write_roc: WriteRoc, load_script: LoadScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_roc(12, "plain/a.csv")
    write_roc(12, "plain/b.csv", first=12)
    write_roc(12, "split/train.csv")
    write_roc(6, "split/roc-dev.csv", first=12)
    write_roc(6, "mixed/test.csv")
    write_roc(6, "mixed/more.csv")
    monkeypatch.chdir(tmp_path)
    assert ids(load_script(data_dir="plain")) == expected_ids(24)
    assert ids(load_script(data_dir=str(tmp_path / "split"))) == {
        "train": [f"id{n}" for n in range(12)],
        "validation": [f"id{n}" for n in range(12, 18)],
    }
    with pytest.raises(ValueError, match=r"mixed: .*\(more\.csv, test"):
        load_script(data_dir="mixed")
    with pytest.raises(FileNotFoundError, match="data_dir: plane: no such folder; did you mean plain"):
        load_script(data_dir="plane")
    # The cache follows the files, not the name of the folder.
    write_roc(12, "plain/c.csv", first=24)
    assert ids(load_script(data_dir="plain")) == expected_ids(36)


def test_a_changed_file_is_read_again(write_roc: WriteRoc, load_script: LoadScript) -> None:
    path = write_roc(10)
    load_script(data_files=str(path))
    write_roc(20)
    os.utime(path, ns=(1, 1))
    assert ids(load_script(data_files=str(path))) == expected_ids(20)
    path.write_bytes(path.read_bytes().replace(b"Title 7", b"Other 7"))  # of the same size
    os.utime(path, ns=(2 * 10**9, 2 * 10**9))
    splits = load_script(data_files=str(path))
    assert "Other 7" in [row["storytitle"] for part in splits.values() for row in part]


def test_other_formats(load_script: LoadScript, tmp_path: Path) -> None:
    stories = [[f"Story {n}, {place}." for place in range(2 + n % 4)] for n in range(12)]
    path = tmp_path / "stories.jsonl"
    path.write_text("".join(json.dumps({"sentences": story}) + "\n" for story in stories))
    splits = load_script(data_files=str(path))
    assert sorted(true_order(row) for part in splits.values() for row in part) == sorted(stories)
    for streaming in (False, True):
        with pytest.raises(ValueError, match=r"row 1: 2 sentences.*guide.*5"):
            rows_of(load_script("guide", data_files=str(path), streaming=streaming))


def test_guide_says_which_story_has_not_five_sentences(load_script: LoadScript, tmp_path: Path) -> None:
    lines = [json.dumps({"sentences": ["a", "b", "c", "d", "e"]})] * 9
    lines[6] = json.dumps({"sentences": ["a", "b", "c"]})
    (tmp_path / "one.jsonl").write_text("\n".join(lines[:5]))
    (tmp_path / "two.jsonl").write_text("\n".join(lines[5:]))
    with pytest.raises(ValueError, match=r"two\.jsonl, row 2: 3 sentences"):
        load_script("guide", data_files=[str(tmp_path / "one.jsonl"), str(tmp_path / "two.jsonl")])


@pytest.mark.parametrize("streaming", [False, True])
def test_errors_in_words(streaming: bool, write_roc: WriteRoc, load_script: LoadScript) -> None:
    with pytest.raises(ValueError, match=r"no data_files: .*cs\.rochester\.edu/nlp/rocstories.*data_files='ROCStories"):
        load_script(streaming=streaming)
    with pytest.raises(ValueError, match="^5 stories are too few to split in train, validation and test"):
        load_script(data_files=str(write_roc(5)), streaming=streaming)
    bad = write_roc(stories=[["a", "t", "1", "2", "3", "4", "5"], ["b", "t", "1", "2", "", "4", "5"]], name="bad.csv")
    with pytest.raises(ValueError, match=r"bad\.csv, row 3: column 'sentence3' is empty"):
        load_script(data_files=str(bad), streaming=streaming)
    with pytest.raises(ValueError, match="column 'sentence3' is empty"):  # nothing of it is left in the cache
        load_script(data_files=str(bad), streaming=streaming)


def test_stories_in_two_splits_are_warned_of(
    write_roc: WriteRoc, load_script: LoadScript, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = str(write_roc(20, "a.csv")), str(write_roc(10, "b.csv", first=18))
    with caplog.at_level(logging.WARNING):
        load_script(data_files={"train": a, "test": b})
    messages = [record.getMessage() for record in caplog.records if "more than one split" in record.getMessage()]
    assert len(messages) == 1
    assert messages[0].startswith("2 stories") and "(train and test: 2)" in messages[0]


# The class without load_dataset: the same rows here, through the script, and in a process with datasets 5.
PRINT_FINGERPRINTS = """
import hashlib, json, sys
import datasets
from dataset_builder import ShuffledRocstories

cache_dir, *files = sys.argv[1:]
answer = {"version": datasets.__version__, "torch": "torch" in sys.modules, "rows": {}}
for name in ("shuffled", "guide"):
    builder = ShuffledRocstories(config_name=name, data_files=files, cache_dir=cache_dir)
    builder.download_and_prepare()
    for kind, splits in (("disk", builder.as_dataset()), ("stream", builder.as_streaming_dataset())):
        for split, rows in splits.items():
            text = json.dumps(list(rows), sort_keys=True)
            answer["rows"][f"{name} {kind} {split}"] = hashlib.sha256(text.encode()).hexdigest()
print(json.dumps(answer))
"""


def fingerprints(load_script: LoadScript, files: list[str]) -> dict[str, str]:
    found = {}
    for name in ("shuffled", "guide"):
        for kind in ("disk", "stream"):
            splits = load_script(name, data_files=files, streaming=kind == "stream")
            for split, rows in splits.items():
                text = json.dumps(list(rows), sort_keys=True)
                found[f"{name} {kind} {split}"] = hashlib.sha256(text.encode()).hexdigest()
    return found


def answer_of(python: str, cache_dir: Path, files: list[str]) -> dict[str, Any]:
    process = subprocess.run(
        [python, "-c", PRINT_FINGERPRINTS, str(cache_dir), *files], cwd=ROOT, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.fixture
def two_files(write_roc: WriteRoc) -> list[str]:
    return [str(write_roc(1_010, "a.csv")), str(write_roc(30, "Gr\u00fc\u00dfe.csv", first=1_010))]


def test_the_class_gives_the_rows_of_the_script(load_script: LoadScript, two_files: list[str], tmp_path: Path) -> None:
    answer = answer_of(sys.executable, tmp_path / "class", two_files)
    assert answer["rows"] == fingerprints(load_script, two_files)
    assert not answer["torch"]


def test_the_class_gives_the_same_rows_on_datasets_5(
    load_script: LoadScript, two_files: list[str], tmp_path: Path, datasets5_python: str
) -> None:
    answer = answer_of(datasets5_python, tmp_path / "cache", two_files)  # the cache that datasets 3 then uses
    assert answer["version"].startswith("5.")
    assert answer["rows"] == fingerprints(load_script, two_files)


def test_the_class_takes_relative_paths_and_settings(
    write_roc: WriteRoc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_roc(40)
    monkeypatch.chdir(tmp_path)
    builder = ShuffledRocstories(data_files="stories.csv", seed=1, test_size=8, validation_size=2, cache_dir="cache")
    builder.download_and_prepare()
    splits = builder.as_dataset()
    assert {split: len(part) for split, part in splits.items()} == {"train": 32, "validation": 2, "test": 6}
    assert ids(splits) == expected_ids(40, 1, 8, 2)
    assert len(builder.hash) == 64 and builder.cache_dir.endswith(builder.hash), "new code, new cache"


def test_data_files_of_a_web_server(write_roc: WriteRoc, tmp_path: Path) -> None:
    """In a process of its own, because the process of the tests is offline."""
    write_roc(20)
    code = (
        "import sys; from dataset_builder import ShuffledRocstories\n"
        "builder = ShuffledRocstories(data_files=sys.argv[1], cache_dir=sys.argv[2]); builder.download_and_prepare()\n"
        "for splits in (builder.as_dataset(), builder.as_streaming_dataset()):\n"
        "    print(*sorted(row['storyid'] for row in splits['test']))\n"
    )
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/stories.csv"
        answer = subprocess.run(
            [sys.executable, "-c", code, address, str(tmp_path / "cache")],
            cwd=ROOT,
            env={**os.environ, "HF_HUB_OFFLINE": "0"},
            capture_output=True,
            text=True,
        )
        server.shutdown()
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == [" ".join(sorted(expected_ids(20)["test"]))] * 2


def test_a_script_that_is_copied_alone_says_what_it_needs(
    write_roc: WriteRoc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tmp_path / "alone" / SCRIPT.name
    alone.parent.mkdir()
    alone.write_bytes(SCRIPT.read_bytes())
    with pytest.raises(FileNotFoundError, match="all_files_of_dataset_builder_are_needed"):
        datasets.load_dataset(str(alone), data_files=str(write_roc(10)), trust_remote_code=True)


def test_the_folder_instead_of_the_script_says_to_name_it() -> None:
    with pytest.raises(FileNotFoundError, match=r"name the script shuffled_rocstories\.py"):
        datasets.load_dataset(str(SCRIPT.parent), trust_remote_code=True)
