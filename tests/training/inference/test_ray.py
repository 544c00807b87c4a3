"""`order --engine ray` with a real Ray on this machine: workers and drivers are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.training.conftest import Command, Trained, run_command
from tests.training.made_up import made_up_stories
from training import OrderStories
from training.inference.ray_cluster import connected

# Not imported here: what makes it listen on 127.0.0.1 only is read at import.
pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")]
STORIES = made_up_stories(600, shortest=2, longest=6, seed=3)
MARK = "SENTENCE_ORDERING_TEST_CLUSTER"
FLAGS = ("--engine", "ray", "--num_workers", "2", "--part_size", "20", "--num_permutations", "4")


@pytest.fixture(scope="module")
def mark() -> Iterator[str]:
    """A value in the environment of every process of this module's cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, str(os.getpid()))
        patch.setenv("HF_TOKEN", "hf_secret")
        yield f"{MARK}={os.getpid()}"


@pytest.fixture(scope="module")
def cluster(mark: str) -> Iterator[None]:
    with connected():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stories")
    for name, (start, end) in {"a": (0, 250), "b": (250, 600)}.items():
        lines = [json.dumps({"storyid": f"story-{i}", "sentences": STORIES[i]}) for i in range(start, end)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def expected(trained: Trained, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """The orders of a single process, by id."""
    path = tmp_path_factory.mktemp("single") / "all.jsonl"
    assert run_command("order", "--model", trained.folder, folder, "--output", path, *FLAGS[-2:]).code == 0
    return {row["storyid"]: row["order"] for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def read(output: Path) -> list[tuple[str, list[int]]]:
    paths = sorted(output.glob("part-*"))
    rows = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["storyid"], row["order"]) for row in rows]


def assert_complete(output: Path, expected: dict[str, list[int]]) -> None:
    rows = read(output)
    assert len(rows) == len(STORIES)
    assert dict(rows) == expected
    assert (output / "_SUCCESS").exists() and not list(output.glob(".*unfinished*"))


def written(output: Path) -> dict[Path, int]:
    """The parts that have a summary, and the time of their last change."""
    names = [path.name.removesuffix(".json") for path in output.glob("_order/part-*.json")]
    return {output / name: (output / name).stat().st_mtime_ns for name in names}


def wait_for_parts(output: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(written(output)) < count:
        assert time.monotonic() < deadline, "no parts were written"
        time.sleep(0.05)


def processes(mark: str, title: str = "") -> list[int]:
    """Ids of our cluster's processes whose title begins like this."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            ours = mark.encode() in (process / "environ").read_bytes().split(b"\0")
            named = (process / "cmdline").read_bytes().startswith(title.encode())
        except OSError:
            continue
        if ours and named and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


def order(trained: Trained, folder: Path, output: Path) -> Command:
    return run_command("order", "--model", trained.folder, folder, "--output", output, *FLAGS)


def test_a_worker_is_killed(
    trained: Trained, folder: Path, expected: dict[str, list[int]], cluster: None, mark: str, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill() -> None:
        wait_for_parts(tmp_path / "ordered", 3)
        killed.append(processes(mark, "ray::MapWorker")[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    done = order(trained, folder, tmp_path / "ordered")
    killer.join()
    assert (done.code, done.err, len(killed)) == (0, "", 1)
    assert_complete(tmp_path / "ordered", expected)


def test_the_driver_is_killed(
    trained: Trained, folder: Path, expected: dict[str, list[int]], cluster: None, tmp_path: Path
) -> None:
    output = tmp_path / "ordered"
    program = [sys.executable, "-m", "training.commands.command_line"]
    command = [*program, "order", "--model", str(trained.folder), str(folder), "--output", str(output), *FLAGS]
    with subprocess.Popen(command, env={**os.environ, MARK: "driver"}) as driver:
        try:
            wait_for_parts(output, 3)
            assert listens_on(processes(f"{MARK}=driver")) == {"127.0.0.1"}
        finally:
            driver.kill()
    before = written(output)
    done = order(trained, folder, output)
    assert done.code == 0 and "were there already" in done.out
    assert_complete(output, expected)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not processes(f"{MARK}=driver", "ray::MapWorker")  # Ray's agents end a minute later


def listens_on(pids: list[int]) -> set[str]:
    """Addresses on which processes listen for TCP connections."""
    import psutil

    listening = [c.laddr.ip for pid in pids for c in psutil.Process(pid).net_connections("tcp") if c.status == "LISTEN"]
    return {ip.removeprefix("::ffff:") for ip in listening}


def test_workers_get_no_token(cluster: None, mark: str) -> None:
    environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in processes(mark)]
    assert environments and not any(b"hf_secret" in environment for environment in environments)
    assert os.environ["HF_TOKEN"] == "hf_secret"


def test_order_stories_in_a_dataset(trained: Trained, folder: Path, expected: dict[str, Any], cluster: None) -> None:
    """The example of the documentation."""
    import ray.data

    answers = ray.data.read_json(str(folder)).map_batches(
        OrderStories, fn_constructor_kwargs={"model": str(trained.folder), "num_permutations": 4}, concurrency=1
    )
    assert {row["storyid"]: list(row["order"]) for row in answers.iter_rows()} == expected
