"""Ends commands at random moments, and sees whether they come to the same end as if nothing had happened.

`python -m tests.hostile.kill_many_times --times 20` kills each of train (three frameworks, on a table and on a stream),
order, evaluate, build, compare and push 20 times; `--signal INT` presses Ctrl-C instead, and `TERM` and `HUP` are what
other systems send. After that, training is given again with --resume_from_checkpoint, whether or not there is a
checkpoint yet, and every other command as it was. What is left must be what an undisturbed run leaves, to the byte;
after Ctrl-C the exit code must be 130, with one line; and after all but `KILL` nothing unfinished may be left. Prints
`20 of 20`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.hub_server import Hub
from tests.modeling_sentence_ordering.small_encoders import write_encoder
from tests.training.made_up import made_up_stories, write_jsonl

ROOT = Path(__file__).parents[2]
FRAMEWORKS = ("trainer", "lightning", "poutyne")
TRAIN = [
    *("train", "--encoder", "tiny-bert", "--data", "stories.jsonl", "--bf16", "false", "--num_train_epochs", "8"),
    *("--per_device_train_batch_size", "4", "--learning_rate", "2e-3", "--eval_strategy", "steps", "--eval_steps", "4"),
]
STREAMED = ["--data", "stories.parquet", "--streaming", "--shuffle_buffer_size", "16"]
COMPARE = [
    "compare",
    "--encoders",
    "tiny-bert",
    "--frameworks",
    "trainer",
    "poutyne",
    *TRAIN[3:],
    "--output_dir",
    "out",
]
Content = dict[str, bytes]


@dataclass
class Case:
    """A command, how it goes on when it was ended, and what it leaves."""

    command: list[str]
    again: Callable[[Path], list[str]]
    result: Callable[[Path], Content]


class Workplace:
    """A folder with stories, an encoder and a model, and a Hub."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder, self.hub, self.number = folder, hub, 0
        write_jsonl(folder / "stories.jsonl", made_up_stories(40))
        write_jsonl(folder / "many.jsonl", made_up_stories(3000))
        rows = map(json.loads, (folder / "stories.jsonl").read_text(encoding="utf-8").splitlines())
        pq.write_table(pa.Table.from_pylist(list(rows)), folder / "stories.parquet", row_group_size=10)
        write_encoder(folder / "tiny-bert", "bert", initializer_range=0.1)
        self.environment = hub.environment(folder) | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        model = [*TRAIN, "--max_steps", "4", "--output_dir", "model"]
        assert self.wait(self.start(model, folder))[0] == 0

    def fresh(self) -> Path:
        """A folder for one try, with links to what all tries share."""
        self.number += 1
        place = self.folder / f"try-{self.number}"
        place.mkdir()
        for name in ("stories.jsonl", "stories.parquet", "many.jsonl", "tiny-bert", "model"):
            (place / name).symlink_to(self.folder / name)
        return place

    def start(self, command: list[str], place: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "training.commands.command_line", *command],
            cwd=place, env=self.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def wait(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        err = process.communicate()[1]
        return process.returncode, err

    def cases(self) -> dict[str, Case]:
        def trained(place: Path) -> Content:
            names = ("model.safetensors", "config.json", "recipe.yaml", "training_stories.txt", "tokenizer.json")
            return {name: (place / "out" / name).read_bytes() for name in names}

        def compared(place: Path) -> Content:
            runs = json.loads((place / "out" / "comparison.json").read_text(encoding="utf-8"))
            text = json.dumps(runs, sort_keys=True)
            assert "tiny-bert" in text
            names = sorted((place / "out" / "runs").glob("*/model.safetensors"))
            return {path.parent.name: path.read_bytes() for path in names}

        def built(place: Path) -> Content:
            folder = place / "out"
            return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

        def pushed(place: Path) -> Content:
            return self.hub.repo_files(repo_id(place))

        def repo_id(place: Path) -> str:
            return f"{self.hub.user}/model"

        cases = {}
        for framework, source in itertools.product(FRAMEWORKS, ("", "streamed-")):
            train = [*TRAIN, *(STREAMED if source else ()), "--framework", framework, "--output_dir", "out"]
            cases[f"train-{source}{framework}"] = Case(
                train,
                lambda _, train=train: [*train, "--resume_from_checkpoint"],  # type: ignore[misc]
                trained,
            )
        order = ["order", "--model", "model", "many.jsonl", "--output", "out.jsonl"]
        cases["order"] = Case(order, lambda _: order, lambda place: {"out": (place / "out.jsonl").read_bytes()})
        evaluate = ["evaluate", "--model", "model", "--data", "many.jsonl", "--output_json", "out.json"]
        cases["evaluate"] = Case(evaluate, lambda _: evaluate, lambda place: {"out": (place / "out.json").read_bytes()})
        build = ["build", "--data", "many.jsonl", "--output_dir", "out"]
        # A build that was ended when all was done has left what it is to leave, and a second one refuses the folder.
        cases["build"] = Case(build, lambda place: [*build[:-1], self.new_folder(place)], built)
        cases["compare"] = Case(COMPARE, lambda _: COMPARE, compared)
        push = ["push", "--model", "model", "--repo_id", f"{self.hub.user}/model"]
        cases["push"] = Case(push, lambda _: push, pushed)
        return cases

    def new_folder(self, place: Path) -> str:
        """Where to build again: the name of a folder that is not there."""
        if (place / "out").exists():
            shutil.rmtree(place / "out")
        return "out"


def unfinished(place: Path) -> list[Path]:
    """What was being written when the command was ended, wherever it lies."""
    return [path for path in place.rglob("*") if "unfinished" in path.name and not path.is_symlink()]


def try_once(workplace: Workplace, case: Case, expected: Content, delay: float, number: signal.Signals) -> str:
    """Ends the command after `delay` seconds, and lets it go on; what is wrong then, or nothing."""
    place = workplace.fresh()
    process = workplace.start(case.command, place)
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    code, err = workplace.wait(process)
    if number in (signal.SIGTERM, signal.SIGHUP) and (left := unfinished(place)):
        return f"left {left}"
    if number == signal.SIGINT and code != 0:
        lines = [line for line in err.splitlines() if ": note: " not in line and not line.startswith("run ")]
        if code != 130 or len(lines) != 1 or "interrupted" not in lines[0]:
            return f"exit code {code}, and {err!r}"
        if left := unfinished(place):
            return f"left {left}"
    if code != 0:
        code, err = workplace.wait(workplace.start(case.again(place), place))
        if code != 0:
            return f"going on gave {code}, and {err!r}"
    if (result := case.result(place)) != expected:
        differing = sorted(name for name in result | expected if result.get(name) != expected.get(name))
        return f"the result is another: {', '.join(differing)}"
    shutil.rmtree(place)
    return ""


def kill_many_times(
    folder: Path, times: int, names: list[str], number: signal.Signals = signal.SIGKILL, seed: int = 0
) -> list[str]:
    """Tries each command so many times; what went wrong, one line each."""
    generator, wrong = random.Random(seed), []
    with Hub() as hub:
        workplace = Workplace(folder, hub)
        for name in names or list(workplace.cases()):
            case, place = workplace.cases()[name], workplace.fresh()
            began = time.monotonic()
            code, err = workplace.wait(workplace.start(case.command, place))
            assert code == 0, err
            seconds, expected, failed = time.monotonic() - began, case.result(place), 0
            for _ in range(times):
                # The first part of a command is Python's own start, and no moment of ours.
                delay = seconds * generator.uniform(0.1, 1.0)
                if problem := try_once(workplace, case, expected, delay, number):
                    failed += 1
                    wrong.append(f"{name}, ended after {delay:.2f} of {seconds:.2f} s: {problem}")
                    print(wrong[-1], flush=True)
            print(f"{name}: {times - failed} of {times}", flush=True)
    return wrong


def main() -> int:
    """The script; 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--signal", choices=["KILL", "INT", "TERM", "HUP"], default="KILL")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("commands", nargs="*", help="train-trainer, train-lightning, …; all by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        number = signal.Signals[f"SIG{options.signal}"]
        return int(bool(kill_many_times(Path(folder), options.times, options.commands, number, options.seed)))


if __name__ == "__main__":
    sys.exit(main())
