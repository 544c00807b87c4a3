"""Files are written atomically, and devices, FIFOs and links are not replaced."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dataset_builder.file_writing import disk_is_full, new_file, new_folder, settle, staged, write_bytes, write_text

ROOT = Path(__file__).parents[2]
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files")


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def device(path: Path, minor: int) -> Path:
    """A node of our own: never try this on one of the machine's."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        path.open("wb").close()
    except (AttributeError, OSError):
        pytest.skip("may not make devices here")
    return path


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    with new_file(path) as unfinished:
        assert unfinished.parent == tmp_path and "unfinished" in unfinished.name
        unfinished.write_text("half")
        assert not path.exists()
        unfinished.write_text("all of it")
    assert path.read_text() == "all of it"
    write_text(path, "other\r\nlines\n")
    assert path.read_bytes() == b"other\r\nlines\n"
    assert os.listdir(tmp_path) == ["out.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_exception_everything_is_as_before(error: type[BaseException], tmp_path: Path) -> None:
    write_text(tmp_path / "out.txt", "old")
    for write in (new_file, staged, new_folder):
        path = tmp_path if write is staged else tmp_path / ("out.txt" if write is new_file else "folder")
        with pytest.raises(error), write(path) as unfinished:
            (unfinished / "x" if unfinished.is_dir() else unfinished).write_text("new")
            raise error
    assert os.listdir(tmp_path) == ["out.txt"] and (tmp_path / "out.txt").read_text() == "old"


@posix_only
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("write", ["new_file", "new_folder", "staged"])
def test_a_signal_leaves_nothing_unfinished(name: str, write: str, tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        f"from dataset_builder.file_writing import {write}\n"
        f"with {write}('there/out') as path:\n"
        "    if os.fork() == 0:\n"  # as workers of a DataLoader are, which are ended by SIGTERM
        "        os.kill(os.getpid(), 15)\n"
        "    os.wait()\n"
        "    assert path.exists()\n"
        "    print(flush=True)\n"
        "    time.sleep(60)\n"
    )
    (tmp_path / "there").mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(getattr(signal, name))
        assert child.wait(30) == -getattr(signal, name)
    assert not [path for path in tmp_path.rglob("*") if "unfinished" in path.name]


@posix_only
def test_the_mode_is_kept_and_new_files_have_the_usual_one(tmp_path: Path) -> None:
    private, shared = tmp_path / "private", tmp_path / "shared"
    write_text(private, "old")
    private.chmod(0o600)
    write_text(private, "new")
    write_text(shared, "new")
    with new_file(tmp_path / "renamed") as unfinished:  # as safetensors writes
        (tmp_path / "other").touch(0o600)
        os.replace(tmp_path / "other", unfinished)
    assert [mode(path) for path in (private, shared, tmp_path / "renamed")] == [0o600, 0o644, 0o644]
    os.umask(0o077)
    write_text(tmp_path / "masked", "")
    assert mode(tmp_path / "masked") == 0o600


@posix_only
@pytest.mark.parametrize("is_there", [True, False])
def test_links_are_followed(is_there: bool, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "target"
    if is_there:
        target.write_text("old")
    (tmp_path / "link").symlink_to("elsewhere/target")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and target.read_text() == "new"
    with staged(tmp_path) as staging:
        (staging / "made").write_text("newer")
        settle(staging / "made", tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and target.read_text() == "newer"
    (tmp_path / "linked").symlink_to("folder")
    with new_folder(tmp_path / "linked") as unfinished:
        (unfinished / "file").touch()
    assert (tmp_path / "linked").is_symlink() and (tmp_path / "folder" / "file").exists()


@posix_only
def test_a_link_that_was_laid_out_is_not_followed(tmp_path: Path) -> None:
    """The temporary file is new, and its name is not known before."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("out.unfinished", ".out.unfinished", f".out.unfinished-{os.getpid()}"):
        (tmp_path / name).symlink_to("victim")
    write_text(tmp_path / "out", "new")
    assert victim.read_text() == "precious" and not (tmp_path / "out").is_symlink()


@posix_only
def test_a_fifo_is_written_to(tmp_path: Path) -> None:
    fifo, read = tmp_path / "fifo", list[bytes]()
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()), daemon=True)
    reader.start()
    write_bytes(fifo, b"content" * 10_000)
    reader.join(30)
    assert read == [b"content" * 10_000] and fifo.is_fifo() and os.listdir(tmp_path) == ["fifo"]


def test_a_device_is_written_to(tmp_path: Path) -> None:
    null = device(tmp_path / "null", 3)
    write_text(null, "gone")
    (tmp_path / "link").symlink_to("null")
    write_text(tmp_path / "link", "gone")
    assert null.is_char_device() and sorted(os.listdir(tmp_path)) == ["link", "null"]


def test_a_full_device_is_named(tmp_path: Path) -> None:
    full = device(tmp_path / "full", 7)
    with pytest.raises(OSError, match="are free") as error:
        write_text(full, "x" * 100_000)
    assert error.value.errno == errno.ENOSPC and error.value.filename == str(full) and full.is_char_device()


@posix_only
def test_the_file_behind_standard_output_is_not_replaced(tmp_path: Path) -> None:
    code = (
        "from dataset_builder.file_writing import write_text\n"
        "print('before'); write_text('/dev/stdout', 'between\\n'); print('after')\n"
    )
    with open(tmp_path / "out", "wb") as sink:
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=sink, check=True)
    assert (tmp_path / "out").read_text() == "before\nbetween\nafter\n"


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noted(calls, name, getattr(os, name)))
    write_text(tmp_path / "out", "x")
    assert calls[:2] == ["fsync", "replace"] and set(calls[2:]) <= {"fsync"}


def noted(calls: list[str], name: str, function: Callable[..., None]) -> Callable[..., None]:
    def call(*arguments: object) -> None:
        calls.append(name)
        function(*arguments)

    return call


def failing(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "is_full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (OSError(errno.EIO, "Input/output error"), False),
    ],
)
def test_errors_name_the_target_whichever_library_met_them(error: Exception, is_full: bool, tmp_path: Path) -> None:
    path = tmp_path / "out"
    for write in (new_file, new_folder):
        with pytest.raises(OSError) as raised, write(path):
            failing(error)()
        assert raised.value.filename == str(path)
        assert disk_is_full(raised.value) == is_full == ("are free" in str(raised.value))


def test_long_names_and_folders(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 120 + ".txt")
    write_text(path, "x")
    assert path.read_text() == "x"
    with pytest.raises(IsADirectoryError) as error:
        write_text(tmp_path, "x")
    assert error.value.filename == str(tmp_path)
    with pytest.raises(FileNotFoundError) as missing:
        write_text(tmp_path / "none" / "out", "x")
    assert missing.value.filename == str(tmp_path / "none" / "out")
