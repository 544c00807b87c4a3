"""Compressed files: the same stories, within bounds, and one line that says what to do if they cannot be read."""

from __future__ import annotations

import gzip
import io
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from dataset_builder import BadRecord, Story, files_in_folder, load_all, load_stories, read_stories, unpacking

FILES = {
    "s.csv": b"storyid,storytitle,sentence1,sentence2\na,T,One.,Two.\nb,T,1,2\n",
    "s.tsv": b'"One ""1""."\tTwo.\n1\t2\n',  # quoted: decided by a look at the whole file
    "s.jsonl": b'{"sentences": ["One.", "Two."]}\n{"sentences": ["1", "2"]}\n',
    "s.txt": b"One.\nTwo.\n\n1\n2\n",
    "s.json": b'[{"sentences": ["One.", "Two."]}, {"sentences": ["1", "2"]}]',
}


def zipped(content: bytes, *names: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, content)
    return packed.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": zstd,
    ".zip": lambda content: zipped(content, "anything"),
}


def fields(stories: list[Story]) -> list[tuple[tuple[str, ...], str]]:
    return [(story.sentences, story.storyid) for story in stories]


@pytest.mark.parametrize("compression", PACK)
@pytest.mark.parametrize("name", FILES)
def test_a_compressed_file_has_the_same_stories(name: str, compression: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    packed = tmp_path / f"{name}{compression}"
    packed.write_bytes(PACK[compression](FILES[name]))
    expected = fields(list(read_stories(tmp_path / name)))
    assert len(expected) == 2
    assert fields(list(read_stories(packed))) == expected
    assert fields(list(read_stories(packed.as_uri(), name=packed.name))) == expected
    assert list(load_all([str(packed)])["storyid"]) == [storyid for _, storyid in expected]


def test_several_frames_and_members_are_one_file(tmp_path: Path) -> None:
    for suffix, pack in ((".gz", gzip.compress), (".zst", zstd)):
        (tmp_path / f"s.txt{suffix}").write_bytes(pack(b"One.\nTwo.\n\n") + pack(b"1\n2\n"))
        assert len(list(read_stories(tmp_path / f"s.txt{suffix}"))) == 2


def test_the_name_in_an_archive_gives_the_format(tmp_path: Path) -> None:
    (tmp_path / "s.zip").write_bytes(zipped(FILES["s.csv"], "folder/", "__MACOSX/._s.csv", "folder/s.csv"))
    assert [story.storyid for story in read_stories(tmp_path / "s.zip")] == ["a", "b"]
    assert len(load_all([str(tmp_path / "s.zip")])) == 2


def test_splits_and_folders(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl.gz").write_bytes(gzip.compress(FILES["s.jsonl"].replace(b"One", split.encode())))
    (tmp_path / "train.jsonl").write_bytes(FILES["s.jsonl"])  # unpacked, and left beside the archive
    assert [Path(path).name for path in files_in_folder(str(tmp_path))] == ["test.jsonl.gz", "train.jsonl"]
    assert {split: len(part) for split, part in load_stories([str(tmp_path)]).items()} == {"train": 2, "test": 2}


BAD: dict[str, tuple[bytes, str]] = {
    "cut.csv.gz": (gzip.compress(FILES["s.csv"] * 99)[:-20], "cut off"),
    "cut.csv.zst": (zstd(FILES["s.csv"] * 99)[:-2], "cut off"),
    "cut.csv.zip": (zipped(FILES["s.csv"], "s.csv")[:-20], "cut off"),
    "cut.zip": (zipped(FILES["s.csv"], "s.csv")[:-20], "cut off"),
    "other.txt.gz": (b"One.\nTwo.\n", "damaged"),
    "other.txt.zst": (b"One.\nTwo.\n", "damaged"),
    "other.txt.zip": (b"One.\nTwo.\n", "damaged"),
    "changed.txt.zip": (zipped(b"One.\nTwo.\n" * 9, "s.txt").replace(b"s.txt", b"t.txt", 1), "damaged"),
    "two.zip": (zipped(FILES["s.txt"], "a.txt", "b.txt"), r"2 files \(a\.txt, b\.txt\).*unpack"),
    "none.txt.zip": (zipped(b""), "0 files"),
    "picture.zip": (zipped(b"", "picture.png"), r"no reader for \.png"),
    "s.png.gz": (gzip.compress(b""), r"no reader for \.png"),
    "s.parquet.gz": (gzip.compress(b""), "unpack"),
    "s.gz": (gzip.compress(FILES["s.txt"]), "no reader"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_one_line_with_file_and_remedy(name: str, tmp_path: Path) -> None:
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    for read in (lambda path: list(read_stories(path)), lambda path: load_all([path])):
        with pytest.raises(ValueError, match=message) as caught:
            read(str(tmp_path / name))
        assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)


def test_stories_before_the_damage_are_read(tmp_path: Path) -> None:
    """Each record that was unpacked, and the error in place of the rest."""
    content = b"".join(b'{"sentences": ["One %d.", "Two."]}\n' % number for number in range(4_000))
    (tmp_path / "s.jsonl.gz").write_bytes(gzip.compress(content)[:-1000])
    errors: list[BadRecord] = []
    assert len(list(read_stories(tmp_path / "s.jsonl.gz", on_error=errors.append))) > 1_000
    assert [(error.row, "cut off" in error.reason) for error in errors] == [(None, True)]


@pytest.mark.parametrize("compression", PACK)
@pytest.mark.parametrize("content", [b"x" * 1000, b"One.\nTwo.\n\n" * 100])
def test_a_small_file_that_unpacks_to_a_large_one_is_refused(
    content: bytes, compression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "FREE_BYTES", 2**17)
    monkeypatch.setattr(unpacking, "MOST_COMPRESSED", 2)
    path = tmp_path / f"s.txt{compression}"
    path.write_bytes(PACK[compression](content * 50_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadRecord, match=r"s\.txt.*unpacks to over [0-9,]+ bytes.*unpack it"):
        for _ in read_stories(path, as_given=True):
            pass
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # kB; of 50 MB


def test_usual_text_of_any_size_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "FREE_BYTES", 0)
    content = b"".join(b'{"sentences": ["Number %d came.", "It went."]}\n' % number for number in range(4_000))
    for compression, pack in PACK.items():
        (tmp_path / f"s.jsonl{compression}").write_bytes(pack(content))
        assert len(list(read_stories(tmp_path / f"s.jsonl{compression}"))) == 4_000
