"""`order --engine ray` against one process: 100,000 made-up stories, two workers; one worker is killed half-way.

    python benchmarks/ray_order.py --folder /tmp/ray-order [--stories 100000]

Writes the stories and a small `rnn` model to the folder, orders them in one process and with Ray, and checks that the
answers of Ray are complete, have each record once, and are equal by id to those of the one process. Prints seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

COMMAND = [sys.executable, "-m", "training.commands.command_line"]
FILES = 10
PART_SIZE = 2048
THINGS = ["a cake", "the candles", "an umbrella", "the cat", "the warm roof", "the bus", "the snow", "the evening"]
OPENINGS = ["It rained on", "Then Tom saw", "Later she opened", "So we walked to", "In the end it was"]


def write_stories(folder: Path, count: int) -> None:
    """Shuffled stories of three to five sentences in files of JSON Lines, and 2,000 in true order to train on."""
    generator = np.random.default_rng(5)
    (folder / "stories").mkdir(parents=True)
    for file in range(FILES):
        with open(folder / "stories" / f"stories-{file:02d}.jsonl", "w", encoding="utf-8") as sink:
            for number in range(file * count // FILES, (file + 1) * count // FILES):
                story = _story(generator, number)
                shuffled = [story[i] for i in generator.permutation(len(story))]
                sink.write(json.dumps({"storyid": f"story-{number}", "sentences": shuffled}) + "\n")
    with open(folder / "train.jsonl", "w", encoding="utf-8") as sink:
        sink.writelines(json.dumps({"sentences": _story(generator, number)}) + "\n" for number in range(2000))


def _story(generator: np.random.Generator, number: int) -> list[str]:
    length = int(generator.integers(3, 6))
    return [f"{OPENINGS[i]} {' and '.join(generator.choice(THINGS, 2))} {number}." for i in range(length)]


def run(*arguments: str | Path) -> float:
    """Runs a command; the seconds it took."""
    began = time.monotonic()
    subprocess.run([*COMMAND, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL, env=environment())
    return time.monotonic() - began


def environment() -> dict[str, str]:
    """One thread for each process, as Ray gives its workers."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "RAY_ORDER_BENCHMARK": "1"}


def kill_a_worker(output: Path, parts: int) -> list[int]:
    """Waits until as many parts are written, and kills one of the workers; its process id."""
    while len(list(output.glob("_order/part-*.json"))) < parts:
        time.sleep(0.2)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            ours = b"RAY_ORDER_BENCHMARK=1" in (process / "environ").read_bytes()
            if ours and (process / "cmdline").read_bytes().startswith(b"ray::MapWorker"):
                os.kill(int(process.name), signal.SIGKILL)
                return [int(process.name)]
        except OSError:
            continue
    return []


def answers(paths: list[Path]) -> list[tuple[str, list[int]]]:
    """Id and order of each record."""
    records = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    return [(record["storyid"], record["order"]) for record in records]


def main() -> None:
    """Prints the seconds of each way and what was checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for stories, model and answers; is replaced")
    parser.add_argument("--stories", type=int, default=100_000)
    options = parser.parse_args()
    folder: Path = options.folder
    shutil.rmtree(folder, ignore_errors=True)
    write_stories(folder, options.stories)
    run(
        "train",
        "--encoder",
        "rnn",
        "--data",
        folder / "train.jsonl",
        "--output_dir",
        folder / "model",
        "--max_steps",
        "40",
    )
    given = ("order", "--model", folder / "model", folder / "stories", "--output")
    single = run(*given, folder / "single.jsonl")
    print(f"one process: {single:.0f} s", flush=True)
    killed: list[int] = []
    parts = FILES * -(-options.stories // FILES // PART_SIZE)
    killer = threading.Thread(target=lambda: killed.extend(kill_a_worker(folder / "ray", parts // 2)), daemon=True)
    killer.start()
    with_ray = run(*given, folder / "ray", "--engine", "ray", "--num_workers", "2", "--part_size", str(PART_SIZE))
    print(f"Ray, two workers, {len(killed)} killed after {parts // 2} of {parts} parts: {with_ray:.0f} s", flush=True)
    expected, found = answers([folder / "single.jsonl"]), answers(sorted((folder / "ray").glob("part-*")))
    by_id = dict(expected)
    same = sum(by_id[key] == order for key, order in found)
    print(f"{len(found):,} records, {len(dict(found)):,} ids, {same:,} orders as in one process")


if __name__ == "__main__":
    main()
