"""Two processes that train together, started by `torchrun`, make what one makes that accumulates twice as much."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from modeling_sentence_ordering import SentenceOrderingModel, load_tokenizer, save_tokenizer
from tests.training.conftest import run_command
from training.frameworks.checkpoints import last_checkpoint
from training.frameworks.protocol import load_framework
from training.frameworks.training_log import read_training_log
from training.models.model_folder import read_json

ROOT = Path(__file__).parents[3]
CLIENT = Path(__file__).parents[1] / "clients" / "train_together.py"
FRAMEWORKS = ("trainer", "lightning")
STILL = '{"num_layers": 1, "head_dropout": 0.0}'
ENCODERS = {"bert": ["--encoder", "still-bert"], "rnn": ["--encoder", "rnn", "--encoder_config", STILL]}
# 48 stories in steps of 2 processes x 1 batch x 5 stories are 4 steps and one of 8: four epochs, and half of another.
FLAGS = [
    *("--data", "stories.jsonl", "--bf16", "false", "--max_steps", "22", "--per_device_train_batch_size", "5"),
    *("--eval_strategy", "steps", "--eval_steps", "5", "--save_total_limit", "9", "--logging_steps", "2"),
    *("--learning_rate", "2e-3", "--max_grad_norm", "60", "--per_device_eval_batch_size", "3"),
    *("--load_best_model_at_end", "false"),  # which would be an early one
    # Biases of keys have no gradient but rounding, which AdamW would blow up to steps of full size.
    *("--adam_epsilon", "0.01"),
]
TOLERANCE = 1e-5
pytestmark = pytest.mark.slow  # README's block of this kind is in every run


@dataclass
class Ended:
    """What `torchrun` ended with."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> list[str]:
        """Our own lines of standard error, between those of `torchrun`."""
        return [line for line in self.err.splitlines() if line.startswith("sentence-ordering: ")]


def environment(home: Path) -> dict[str, str]:
    """Each home with a cache of its own, so that nothing is tokenized beforehand."""
    path = os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])
    return os.environ | {"PYTHONPATH": path, "HF_HOME": str(home / "cache"), "OMP_NUM_THREADS": "1"}


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def together(home: Path, *program: str) -> Ended:
    """Two processes of a program."""
    result = subprocess.run(
        [*TORCHRUN, *program], cwd=home, env=environment(home), capture_output=True, text=True, timeout=300
    )
    return Ended(result.returncode, result.stdout, result.stderr)


def command(framework: str, encoder: str, folder: str, *more: str) -> list[str]:
    return ["train", *FLAGS, *ENCODERS[encoder], "--framework", framework, "--output_dir", folder, *more]


@pytest.fixture(scope="module")
def shared(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stories, and a model without dropout to go on with."""
    folder = tmp_path_factory.mktemp("shared")
    shutil.copy(home / "stories.jsonl", folder)
    model = SentenceOrderingModel.from_encoder(str(home / "calm-bert"), head_dropout=0.0)
    model.save_pretrained(folder / "still-bert")
    save_tokenizer(load_tokenizer(str(home / "calm-bert")), folder / "still-bert")
    return folder


@pytest.fixture(scope="module")
def two(shared: Path) -> tuple[Ended, list[list[dict[str, int]]]]:
    """What two processes said, and what each of them did, training each encoder with each framework."""
    commands = [command(name, encoder, f"two-{name}-{encoder}") for name in FRAMEWORKS for encoder in ENCODERS]
    ended = together(shared, str(CLIENT), json.dumps(commands))
    assert ended.code == 0, ended.err
    return ended, [json.loads((shared / f"process-{rank}.json").read_text("utf-8")) for rank in range(2)]


@pytest.fixture(scope="module")
def one(shared: Path) -> Iterator[dict[str, int]]:
    """One process that accumulates twice as much; the seed that its dropout had last."""
    seeds = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared)
        for name in FRAMEWORKS:
            for encoder in ENCODERS:
                twice = ("--gradient_accumulation_steps", "2")
                result = run_command(*command(name, encoder, f"one-{name}-{encoder}", *twice))
                assert result.code == 0, result.err
                seeds[name] = torch.initial_seed()
    yield seeds


def difference(some: Path, others: Path) -> float:
    """The largest difference between the weights in two folders."""
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (some, others))
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_weights_the_metrics_and_the_log_are_those_of_one(
    shared: Path, two: Any, one: Any, framework: str, encoder: str
) -> None:
    ours, theirs = (shared / f"{count}-{framework}-{encoder}" for count in ("two", "one"))
    assert difference(ours, theirs) <= TOLERANCE
    if encoder == "bert":
        assert difference(theirs, shared / "still-bert") > 100 * TOLERANCE
    results, expected = (read_json(folder / "results.json") for folder in (ours, theirs))
    assert results["before_training"] == expected["before_training"]  # the same weights, in the same batches
    for split in ("validation", "test"):
        assert results[split] == pytest.approx(expected[split], rel=1e-4, abs=1e-6)
    assert results["training"]["processes"] == 2
    rows, expected_rows = (read_training_log(folder / "training_log.csv") for folder in (ours, theirs))
    assert [row["step"] for row in rows] == [row["step"] for row in expected_rows]
    for row, other in zip(rows, expected_rows, strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-6)
    norms = [row["grad_norm"] for row in rows if "grad_norm" in row]
    assert encoder == "rnn" or min(norms) < 60 < max(norms)  # some are clipped, and some are not


def test_the_recipe_that_is_published_is_that_of_one_process(shared: Path, two: Any, one: Any) -> None:
    ours, theirs = (shared / f"{count}-trainer-bert" for count in ("two", "one"))
    assert (ours / "recipe.yaml").read_bytes() == (theirs / "recipe.yaml").read_bytes()


def test_only_the_first_process_speaks_and_writes(shared: Path, two: tuple[Ended, Any], one: Any) -> None:
    ended, _ = two
    for framework in FRAMEWORKS:
        ours, theirs = (shared / f"{count}-{framework}-bert" for count in ("two", "one"))
        assert ended.out.count(f"wrote {ours.name}: ") == 1
        names = [
            sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "tfevents" not in path.name)
            for folder in (ours, theirs)
        ]
        # Trainer keeps the random state of each process, and names it by the process.
        written = [name.replace("rng_state_0", "rng_state") for name in names[0] if "rng_state_1" not in name]
        assert written == names[1]
        assert len(list((ours / "tensorboard").iterdir())) == 1
    assert ended.out.count("before training") == 4
    assert ended.said == []


def test_stories_are_tokenized_by_one_process(two: tuple[Ended, Any]) -> None:
    _, (first, second) = two
    assert first[0]["tokenized"] > 100
    assert [done["tokenized"] for done in second] == [0] * 4


def test_each_process_has_dropout_of_its_own_and_the_first_that_of_one(two: Any, one: dict[str, int]) -> None:
    _, (first, second) = two
    assert first[0]["seed"] == one["trainer"]
    assert first[2]["seed"] == one["lightning"]
    for done, other in zip(first, second, strict=True):
        assert done["seed"] != other["seed"]


@pytest.fixture(scope="module")
def resumed(shared: Path, two: Any) -> Ended:
    """Both frameworks go on from a checkpoint within an epoch; then the second process meets a loss that is none."""
    commands = []
    for name in FRAMEWORKS:
        folder = shared / f"resumed-{name}-bert"
        shutil.copytree(shared / f"two-{name}-bert", folder)
        checkpoints = folder / "checkpoints"
        for path in checkpoints.iterdir():
            if path.name == "stories.json":  # the hashes of the stories
                continue
            if load_framework(name).checkpoint_step(path) > 5:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        (folder / "model.safetensors").unlink()
        commands.append(command(name, "bert", folder.name, "--resume_from_checkpoint"))
    commands.append(command("trainer", "bert", "spoiled", "--nan_at", "7"))
    return together(shared, str(CLIENT), json.dumps(commands))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_run_of_two_processes_is_resumed_by_two(shared: Path, resumed: Any, framework: str) -> None:
    ours, theirs = (shared / f"{run}-{framework}-bert" for run in ("resumed", "two"))
    assert difference(ours, theirs) == 0
    rows, expected = (read_training_log(folder / "training_log.csv") for folder in (ours, theirs))
    assert [row for row in rows if "eval_loss" in row] == [row for row in expected if "eval_loss" in row]
    results = [read_json(folder / "results.json") for folder in (ours, theirs)]
    for split in ("before_training", "validation", "test"):
        assert results[0][split] == results[1][split]


def test_a_loss_that_is_no_number_in_one_process_stops_both_with_one_line(shared: Path, resumed: Ended) -> None:
    assert resumed.code != 0
    (line,) = resumed.said
    assert line.startswith("sentence-ordering: the training loss is nan at step 7, of the stories ")
    steps = [row["step"] for row in read_training_log(shared / "spoiled" / "training_log.csv")]
    assert max(steps) == 6


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_run_of_two_processes_is_not_resumed_by_one_that_does_other_steps(
    shared: Path, two: Any, framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shared)
    result = run_command(*command(framework, "bert", f"two-{framework}-bert", "--resume_from_checkpoint"))
    assert result.code == 2
    assert result.err.endswith("--gradient_accumulation_steps is 2 there and 1 here\n")
    twice = ("--gradient_accumulation_steps", "2", "--resume_from_checkpoint")
    result = run_command(*command("lightning", "bert", "two-lightning-bert", *twice))
    assert result.code == 2
    assert "the checkpoint was written by 2 processes" in result.err and "not 1" in result.err


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--data", "missing.jsonl", "--output_dir", "new"], "missing.jsonl: no such file"),
        pytest.param(
            ["--data", "stories.jsonl", "--output_dir", "."],
            "--output_dir . is not empty",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["--data", "stories.jsonl", "--output_dir", "new", "--learning_rat", "1"],
            "--learning_rat; did you mean --learning_rate?",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_bad_input_is_told_once_and_ends_all_processes(shared: Path, flags: list[str], complaint: str) -> None:
    ended = together(shared, "-m", "training.commands.command_line", "train", "--encoder", "still-bert", *flags)
    assert ended.code != 0
    (line,) = ended.said
    assert complaint in line
    assert "exitcode  : 2 " in ended.err
    assert f"traceback : {line.removeprefix('sentence-ordering: ')}" in ended.err  # in torchrun's summary
    assert not (shared / "new").exists()


def test_what_trains_in_one_process_is_refused_in_several(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shared)
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = run_command("train", *ENCODERS["rnn"], "--framework", "poutyne", "--data", "sample", "--output_dir", "new")
    assert result.code == 2 and "--framework poutyne" in result.err and "torchrun" in result.err
    result = run_command("compare", "--encoders", "rnn", "--data", "sample", "--output_dir", "new")
    assert result.code == 2 and "torchrun" in result.err
    assert not Path("new").exists()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_ctrl_c_ends_both_processes_with_one_line_and_nothing_half_written(shared: Path, framework: str) -> None:
    program = [
        "-m",
        "training.commands.command_line",
        *command(framework, "bert", f"stopped-{framework}", "--max_steps", "9999"),
    ]
    process = subprocess.Popen(
        [*TORCHRUN, *program], cwd=shared, env=environment(shared), text=True, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    checkpoints = shared / f"stopped-{framework}" / "checkpoints"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("checkpoint-10*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    err = process.communicate(timeout=60)[1]
    assert Ended(process.returncode, "", err).said == ["sentence-ordering: interrupted"]
    assert last_checkpoint(load_framework(framework), checkpoints) is not None
    assert not list((shared / f"stopped-{framework}").rglob("*unfinished*"))
    assert not (shared / f"stopped-{framework}" / "model.safetensors").exists()


@pytest.mark.slow
def test_two_nodes(home: Path, tmp_path: Path) -> None:
    """As in docs/scale.md: `torchrun` on each of two machines, which are here two folders with caches of their own."""
    script = Path(sys.executable).with_name("sentence-ordering")
    if not script.exists():
        pytest.skip("the package is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = []
    for rank in range(2):
        (folder := tmp_path / f"node-{rank}").mkdir()
        shutil.copy(home / "stories.jsonl", folder)
        address = ["--nnodes", "2", "--node_rank", f"{rank}", "--nproc_per_node", "1", "--master_addr", "127.0.0.1"]
        program = [*TORCHRUN[:3], *address, "--master_port", f"{port}", "--no-python", str(script)]
        train = ["train", "--encoder", "rnn", "--data", "stories.jsonl", "--output_dir", "model", "--max_steps", "4"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        nodes.append(subprocess.Popen([*program, *train], cwd=folder, env=environment(folder), **pipes))
    printed = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], printed
    assert (tmp_path / "node-0" / "model" / "model.safetensors").exists()
    assert "next:" in printed[0] and "next:" not in printed[1]
