"""Training on a stream: the same weights in every framework, after a kill too, and no more read than is needed."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder import story_hash
from dataset_builder import streaming as reading
from tests.hub_server import Hub
from tests.training.commands.test_build_command import LICENSE, commander
from tests.training.conftest import run_command
from tests.training.framework_runs import WatchedRun, assert_same_weights, make_run, resume, train
from tests.training.made_up import made_up_stories, write_jsonl
from tests.training.small_runs import watched
from training.frameworks.protocol import load_framework
from training.models.model_folder import read_json, read_story_hashes
from training.recipe.recipe import FRAMEWORKS, Recipe
from training.runs import trained_on

ROWS = 300
MakeRecipe = Callable[..., Recipe]


def write_parquet(folder: Path, stories: list[list[str]], files: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        table = pa.table({"sentences": stories[number::files]})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=20)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parquet(tmp_path_factory.mktemp("stream"), made_up_stories(ROWS))


@pytest.fixture
def streamed_recipe(make_recipe: MakeRecipe, data: Path, home: Path, tmp_path: Path) -> MakeRecipe:
    """15 steps an epoch of two batches of ten; the buffer holds four steps of both lanes."""
    count = iter(range(100))

    def make(**fields: Any) -> Recipe:
        values: dict[str, Any] = {
            "data": [str(data)],
            "validation_data": [str(home / "stories.jsonl")],
            "streaming": True,
            "shuffle_buffer_size": 80,
            "per_device_train_batch_size": 10,
            "gradient_accumulation_steps": 2,
            "max_steps": 24,
            "eval_strategy": "steps",
            "eval_steps": 10,
            "load_best_model_at_end": False,
            "output_dir": str(tmp_path / f"run-{next(count)}"),
        }
        return make_recipe(**{**values, **fields})

    return make


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each record of a stream has been read."""
    counts: Counter[str] = Counter()
    original = reading.story_from_record

    def counted(record: Any, **options: Any) -> Any:
        story = original(record, **options)
        counts[story.storyid] += 1
        return story

    monkeypatch.setattr(reading, "story_from_record", counted)
    return counts


def every_step(recipe: Recipe) -> tuple[WatchedRun, list[dict[str, Any]]]:
    run = make_run(recipe)
    with watched(run) as steps:
        load_framework(recipe.framework).train(run)
    return run, steps


@pytest.mark.slow
def test_every_framework_gives_the_same_weights_with_any_number_of_workers(streamed_recipe: MakeRecipe) -> None:
    reference, expected = every_step(streamed_recipe(framework="trainer"))
    assert len(expected) == 24
    for framework, workers in [("trainer", 2), ("lightning", 0), ("lightning", 2), ("poutyne", 0), ("poutyne", 2)]:
        run, steps = every_step(streamed_recipe(framework=framework, dataloader_num_workers=workers))
        for ours, theirs in zip(steps, expected, strict=True):
            assert_same_weights(ours, theirs)
        assert run.log.rows == reference.log.rows
    assert reference.log.losses[-1]["epoch"] == 24 / 15


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_killed_run_goes_on_with_the_stories_that_it_has_not_seen(
    framework: str, streamed_recipe: MakeRecipe, read: Counter[str]
) -> None:
    """Killed in the second epoch, and resumed with another number of workers."""
    whole = train(streamed_recipe(framework=framework))
    recipe = streamed_recipe(framework=framework)
    killed = train(recipe, killed_after=22)
    again = dataclasses.replace(recipe, dataloader_num_workers=2)
    read.clear()
    resumed = resume(again, killed)
    assert_same_weights(resumed, whole)
    assert resumed.log.rows == whole.log.rows
    # From the buffer on in which step 20 of 24 is: steps 4 to 8 of the second epoch, and perhaps what comes next.
    assert read.total() == len(read) <= 12 * 20


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_run_reads_no_further_than_it_needs_to(
    framework: str, streamed_recipe: MakeRecipe, read: Counter[str]
) -> None:
    train(streamed_recipe(framework=framework, max_steps=3, eval_strategy="no"))
    assert 60 <= read.total() == len(read) <= 80


def flags(recipe: Recipe, **fields: Any) -> list[str]:
    values = {**dataclasses.asdict(recipe), **fields}
    names = [name for name in values if values[name] != getattr(Recipe().resolved(), name) or name == "bf16"]
    return [
        text
        for name in names
        for value in [values[name]]
        for text in ([f"--{name}", *map(str, value)] if isinstance(value, list) else [f"--{name}", str(value)])
    ]


def test_the_command_trains_on_a_stream_and_knows_which_stories_it_drew(
    streamed_recipe: MakeRecipe, data: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    recipe = streamed_recipe(encoder="rnn", vocab_size=400, encoder_config='{"hidden_size": 16}', max_steps=5)
    with monkeypatch.context() as patch:
        patch.setattr("dataset_builder.story_cache._write", _only(60))
        done = run_command("train", *flags(recipe))
    assert done.code == 0, done.err
    assert "stories: 300 train (streamed), 60 validation" in done.out
    folder = Path(recipe.output_dir)
    training = read_json(folder / "results.json")["training"]
    assert (training["stories"], training["story_hashes"]) == (100, True)
    known = read_story_hashes(folder / "training_stories.txt")
    assert len(known) == 100 and known <= {story_hash(story) for story in made_up_stories(ROWS)}
    assert "100 stories of 3 to 6 sentences" in (folder / "README.md").read_text(encoding="utf-8")
    judged = run_command(
        "evaluate", "--model", folder, "--data", data, "--split", "all", "--output_json", f"{folder}.json"
    )
    assert "trained on 100 of these 300 stories" in judged.err

    monkeypatch.setattr(trained_on, "MOST_HASHES", 99)
    done = run_command("train", *flags(recipe, overwrite_output_dir=True))
    assert done.code == 0, done.err
    assert "training_stories.txt" in done.out
    assert not (folder / "training_stories.txt").exists()
    assert read_json(folder / "results.json")["training"]["story_hashes"] is False


def _only(most: int) -> Any:
    """Writes tables of no more stories."""
    from dataset_builder import story_cache

    original = story_cache._write

    def write(folder: str, digest: str, read: Any) -> str:
        def few(skipped: Any) -> Any:
            stories = list(read(skipped))
            assert len(stories) <= most, "the streamed stories are in a table"
            return stories

        return original(folder, digest, few)

    return write


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"data": ["sample"]}, "sample: this is not Parquet; only Parquet can be streamed"),
        ({"per_device_train_batch_tokens": 500}, "--per_device_train_batch_tokens needs the lengths of all"),
        ({"shuffle_buffer_size": 0}, "--shuffle_buffer_size must be at least 1, got 0"),
        ({"validation_data": None, "early_stopping_patience": 2}, "--early_stopping_patience needs validation stories"),
    ],
)
def test_what_cannot_be_streamed_is_bad_input(
    fields: dict[str, Any], complaint: str, streamed_recipe: MakeRecipe
) -> None:
    recipe = streamed_recipe()
    refused = run_command("train", *flags(recipe, **fields))
    assert refused.code == 2
    assert complaint in refused.err and refused.err.count("\n") == 1
    assert not Path(recipe.output_dir).exists()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_bad_record_is_told_by_file_and_row(
    framework: str, workers: int, streamed_recipe: MakeRecipe, tmp_path: Path
) -> None:
    stories = made_up_stories(60)
    stories[41][1] = " "
    folder = write_parquet(tmp_path / "bad", stories, files=1)
    recipe = streamed_recipe(data=[str(folder)], framework=framework, dataloader_num_workers=workers, max_steps=9)
    failed = run_command("train", *flags(recipe))
    assert failed.code == 2
    assert failed.err.endswith("0.parquet, row 42: sentence 2 is empty\n")


def test_a_recipe_from_before_there_were_streams_is_gone_on_with(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(max_steps=4, eval_strategy="steps", eval_steps=2)
    assert run_command("train", *flags(recipe)).code == 0
    path = Path(recipe.output_dir) / "recipe.yaml"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(("streaming", "shuffle_buffer"))))
    again = run_command("train", *flags(recipe), "--resume_from_checkpoint")
    assert again.code == 0, again.err


@pytest.mark.slow
def test_what_build_pushed_is_streamed_from_the_hub(hub: Hub, home: Path, tmp_path: Path) -> None:
    """Training reads its own split from there, and no file twice over."""
    source = write_jsonl(tmp_path / "stories.jsonl", made_up_stories(400))
    repo_id = f"{hub.user}/streamed"
    with commander(hub, tmp_path) as command:
        pushed = command(
            "build", "--data", source, "--output_dir", tmp_path / "built", "--push_to_hub", repo_id, *LICENSE
        )
        assert pushed.code == 0, pushed.err
        trained = [
            command(
                "train", "--encoder", home / "tiny-bert", "--data", data, "--streaming", "--bf16", "false",
                "--max_steps", "6", "--per_device_train_batch_size", "8", "--output_dir", tmp_path / name,
                "--shuffle_buffer_size", "64",
            )
            for name, data in [("remote", repo_id), ("local", tmp_path / "built")]
        ]  # fmt: skip
    assert [(done.code, done.err) for done in trained] == [(0, trained[0].err)] * 2
    assert "stories: 320 train (streamed), 24 validation, 56 test" in trained[0].out
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("remote", "local")]
    assert weights[0] == weights[1]
    assert json.loads((tmp_path / "remote" / "results.json").read_text("utf-8"))["test"]["stories"] == 56
    assert not list(tmp_path.glob("huggingface-*/hub/datasets--*/blobs/*.parquet")), "nothing is downloaded as a whole"
