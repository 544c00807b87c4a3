"""Cached tables: found by content, written again if damaged, in a temporary folder if the cache is not writable."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import pytest

from dataset_builder import BadRecord, build_dataset, load_all, load_stories, stream_stories

ROOT = Path(__file__).parents[2]
LoadScript = Callable[..., Any]
WriteRoc = Callable[..., Path]


def write(path: Path, word: str, stories: int = 10) -> Path:
    """Stories that differ by one word; size and time of the file do not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(f"{word} {number}.\nIt went on.\n" for number in range(stories)))
    os.utime(path, ns=(10**18, 10**18))
    return path


def same_times(folder: Path) -> Path:
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, ns=(10**18, 10**18))
    return folder


def first_words(source: Path | str) -> set[str]:
    return {sentences[0].split()[0] for sentences in load_all([str(source)])["sentences"]}


def test_files_of_equal_name_size_and_time_are_distinguished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("Here", "This"):
        write(tmp_path / word / "stories.txt", word)
        monkeypatch.chdir(tmp_path / word)
        assert first_words("stories.txt") == {word}
        splits = load_stories(["stories.txt"])
        assert all(story["sentences"][0].startswith(word) for part in splits.values() for story in part)


def test_a_file_that_is_extracted_over_itself_is_read_again(tmp_path: Path) -> None:
    for word in ("Here", "This"):
        assert first_words(write(tmp_path / "stories.txt", word)) == {word}


def test_folders_are_distinguished_by_the_content_of_their_files(tmp_path: Path) -> None:
    for word in ("Here", "This"):
        write(tmp_path / "plain" / "a.txt", "Same")
        write(tmp_path / "plain" / "b.txt", word)
        assert first_words(tmp_path / "plain") == {"Same", word}


def test_a_built_folder_that_is_built_again_is_read_again(tmp_path: Path) -> None:
    for word in ("Here", "This"):
        source = write(tmp_path / "stories.txt", word)
        built = tmp_path / word / "built"
        build_dataset([str(source)], built)
        folder = tmp_path / "built"
        if folder.exists():
            folder.rename(tmp_path / "old")
        same_times(built).rename(folder)
        assert first_words(same_times(folder)) == {word}
        stream, others = stream_stories([str(folder)])
        assert all(story["sentences"][1].startswith((word, "It")) for story in others["test"])
        assert any(story["sentences"][0].startswith(word) for story in others["test"])


def test_a_saved_data_set_is_distinguished_from_another_with_the_same_fingerprint(tmp_path: Path) -> None:
    for word in ("Here", "This"):
        rows = datasets.Dataset.from_dict({"sentences": [[f"{word} it is.", "On."]]})
        rows._fingerprint = "equal"
        rows.save_to_disk(tmp_path / word)
        (tmp_path / word).rename(tmp_path / "saved")
        assert first_words(tmp_path / "saved") == {word}
        (tmp_path / "saved").rename(tmp_path / f"old-{word}")


def test_the_loading_script_reads_a_file_of_equal_size_and_time_again(tmp_path: Path, load_script: LoadScript) -> None:
    for word in ("Here", "This"):
        path = write(tmp_path / "stories.txt", word)
        rows = [row for part in load_script(data_files=str(path)).values() for row in part]
        assert all(any(sentence.startswith(word) for sentence in row["sentences"]) for row in rows)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[:-300],
    "garbage": lambda content: os.urandom(len(content)),
    "zeros": lambda content: content[:400] + bytes(400) + content[800:],
    "one byte": lambda content: content.replace(b"Here 3", b"Here 8"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_table_is_made_again(damage: str, tmp_path: Path) -> None:
    path, cache = write(tmp_path / "stories.txt", "Here"), tmp_path / "cache"
    expected = load_all([str(path)], cache_dir=cache).to_list()
    (table,) = (cache / "sentence_ordering").iterdir()
    content = table.read_bytes()
    table.unlink()
    table.write_bytes(DAMAGE[damage](content))
    assert load_all([str(path)], cache_dir=cache).to_list() == expected
    (table,) = (cache / "sentence_ordering").iterdir()
    assert table.read_bytes() == content


@contextmanager
def other_user() -> Iterator[None]:
    """Within it, files are opened as a user that owns none of them; as any user but root is among unreadable ones."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="users as on Unix")
def test_a_table_of_another_user_can_be_read_or_is_ignored(open_to_all: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, cache = write(open_to_all / "stories.txt", "Here"), open_to_all / "cache"
    expected = load_all([str(path)], cache_dir=cache).to_list()
    (table,) = (cache / "sentence_ordering").iterdir()
    assert table.stat().st_mode & 0o777 == 0o666 & ~_umask()
    read_by_others = table.stat().st_mode & 0o004
    with other_user():
        found = load_all([str(path)], cache_dir=cache)
    assert found.to_list() == expected
    if read_by_others:
        assert found.cache_files == [{"filename": str(table)}]
    table.chmod(0)
    (cache / "sentence_ordering").chmod(0o555)
    with other_user():
        assert load_all([str(path)], cache_dir=cache).to_list() == expected
    assert "HF_HOME" in caplog.text


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_home_that_is_not_writable_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "stories.txt", "Here")
    (tmp_path / "home").touch()  # a file where a folder is needed: that stops root, too
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            splits = load_stories([str(path)], cache_dir=tmp_path / "home" / "datasets")
    assert len(splits["train"]) == 8
    (record,) = caplog.records
    assert "HF_HOME" in record.getMessage()
    (folder,) = {str(Path(file["filename"]).parent) for part in splits.values() for file in part.cache_files}
    assert os.listdir(folder)


def test_build_works_without_a_home(tmp_path: Path) -> None:
    path = write(tmp_path / "stories.txt", "Here")
    (tmp_path / "home").touch()
    environment = os.environ | {"HF_HOME": str(tmp_path / "home" / "hf")}
    code = "import sys; from dataset_builder import build_dataset; build_dataset(sys.argv[1:2], sys.argv[2])"
    answer = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "built")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr.count("HF_HOME") == 1
    assert (tmp_path / "built" / "README.md").is_file()


ONE_SENTENCE = {
    "s.txt": "One.\nTwo.\n\nAlone.\n\n1\n2\n\nAlone, too.\n",
    "s.tsv": "One.\tTwo.\nAlone.\n1\t2\nAlone, too.\t\n",
    "s.jsonl": '{"sentences": ["One.", "Two."]}\n{"sentences": ["Alone."], "labels": [0]}\n'
    '{"sentences": ["1", "2"]}\n{"sentences": ["Alone, too."]}\n',
    "s.csv": "storyid,sentence1,sentence2\na,One.,Two.\nb,Alone.\nc,1,2\nd,Alone too.,\n",
}


@pytest.mark.parametrize("name", ONE_SENTENCE)
def test_records_of_one_sentence_are_skipped_and_counted(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).write_text(ONE_SENTENCE[name])
    for cached in (False, True):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            stories = load_all([str(tmp_path / name)], cache_dir=tmp_path / "cache")
        assert stories["sentences"] == [["One.", "Two."], ["1", "2"]], cached
        (record,) = caplog.records
        assert "s." in record.getMessage() and "2 records" in record.getMessage()


def test_records_of_one_sentence_in_data_sets(tmp_path: Path, load_script: LoadScript) -> None:
    rows = [["One.", "Two."], ["Alone."], ["1", "2"]]
    datasets.Dataset.from_dict({"sentences": rows}).save_to_disk(tmp_path / "saved")
    assert load_all([str(tmp_path / "saved")])["sentences"] == [rows[0], rows[2]]
    (tmp_path / "s.txt").write_text("".join(f"A {n}.\nB.\n\nAlone.\n\n" for n in range(10)))
    for streaming in (False, True):
        loaded = load_script(data_files=str(tmp_path / "s.txt"), streaming=streaming)
        assert sum(1 for part in loaded.values() for _ in part) == 10
    with pytest.raises(BadRecord):
        (tmp_path / "none.jsonl").write_text('{"sentences": []}\n')
        load_all([str(tmp_path / "none.jsonl")])


def test_one_source_is_accepted_where_a_list_of_them_is_meant(tmp_path: Path) -> None:
    assert load_all("sample").to_list() == load_all(["sample"]).to_list()
    assert load_stories("sample")["test"].to_list() == load_stories(["sample"])["test"].to_list()
    path = write(tmp_path / "stories.txt", "Here")
    assert len(load_stories(path, validation_sources=path)["validation"]) == 10  # type: ignore[arg-type]
    build_dataset("sample", tmp_path / "built")
    card = (tmp_path / "built" / "README.md").read_text()
    assert card == _card_of(["sample"], tmp_path / "again")
    stream, _ = stream_stories(str(tmp_path / "built"))
    assert len(stream) > 200


def _card_of(sources: list[str], folder: Path) -> str:
    build_dataset(sources, folder)
    return (folder / "README.md").read_text()
