"""`sentence-ordering build --push_to_hub`: to a Hub on this machine, and loaded where our packages are not."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard

from tests.hub_server import Hub
from tests.hub_server.cards import check_card
from tests.hub_server.failures import How
from tests.training.conftest import Command
from tests.training.made_up import made_up_stories, write_jsonl
from tests.training.told import assert_tells_nothing

ROOT = Path(__file__).parents[3]
CLIENTS = ROOT / "tests" / "hub_server" / "clients"
SCRIPT = ROOT / "dataset_builder" / "shuffled_rocstories.py"
SAMPLE = ROOT / "dataset_builder" / "sample" / "sample_stories.csv"
LICENSE = ("--license", "cc-by-4.0")

Build = Callable[..., Command]


@contextmanager
def builder(hub: Hub, home: Path, token: str | bool = True) -> Iterator[Build]:
    """`build` for this Hub, as often as one likes in one process that was started once."""
    with commander(hub, home, token) as command:
        yield lambda *arguments: command("build", *arguments)


@contextmanager
def commander(hub: Hub, home: Path, token: str | bool = True) -> Iterator[Build]:
    """Any command for this Hub, likewise."""
    command = [sys.executable, str(CLIENTS / "run_commands.py")]
    environment = hub.environment(home, token) | {"OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = f"{ROOT}:{environment['PYTHONPATH']}"
    with subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:

        def call(*arguments: object) -> Command:
            run.stdin.write(json.dumps([*map(str, arguments)]) + "\n")
            run.stdin.flush()
            return Command(*json.loads(run.stdout.readline()))

        yield call
        run.stdin.close()


def load(hub: Hub, home: Path, python: str = sys.executable, token: str | bool = True, **arguments: Any) -> Any:
    """The fingerprints of `load_dataset(**arguments)` in a fresh process; without a Hub's answer, its last line."""
    process = subprocess.run(
        [python, str(CLIENTS / "row_fingerprints.py"), json.dumps(arguments)],
        env=hub.environment(home, token),
        cwd=home,
        capture_output=True,
        text=True,
    )
    return json.loads(process.stdout) if process.returncode == 0 else process.stderr.splitlines()[-1]


def one_line(command: Command) -> str:
    lines = [line for line in command.err.splitlines() if " note: " not in line]
    assert len(lines) == 1, command.err
    return lines[0]


def write_roc(path: Path, count: int = 20) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["storyid", "storytitle", *(f"sentence{place}" for place in range(1, 6))])
        writer.writerows(
            [f"id{n}", f"Title {n}", *(f"Sentence {place} of {n}." for place in range(5))] for n in range(count)
        )
    return path


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "stories.jsonl", made_up_stories(40))


def test_what_is_pushed_loads_without_a_script_row_for_row(
    hub: Hub, stories: Path, tmp_path: Path, datasets5_python: str
) -> None:
    made_up, sample = f"{hub.user}/made-up", f"{hub.user}/sample"
    with builder(hub, tmp_path) as build:
        done = build("--data", stories, "--output_dir", tmp_path / "a", "--push_to_hub", made_up, *LICENSE)
        assert done.code == 0, done.err
        assert f"pushed {made_up}: " in done.out and f'load_dataset("{made_up}")' in done.out
        # A bare name is one of the user's own.
        done = build("--data", SAMPLE, "--output_dir", tmp_path / "b", "--push_to_hub", "sample", "--data_seed", "7")
        assert done.code == 0, done.err
    assert len(hub.commits(made_up, repo_type="dataset")) == 2, "the initial commit, and everything else in one"
    for repo_id in (made_up, sample):
        assert_tells_nothing(hub.repo_files(repo_id, repo_type="dataset"), hub, tmp_path)
    script: dict[str, Any] = {"path": str(SCRIPT), "trust_remote_code": True}
    expected = {
        "made-up": load(hub, tmp_path, **script, data_files=str(stories)),
        "sample": load(hub, tmp_path, **script, data_files=str(SAMPLE), seed=7),
        "guide": load(hub, tmp_path, **script, name="guide", data_files=str(SAMPLE), seed=7),
    }
    assert {split: count for split, (_, count, _) in expected["made-up"].items()} == {
        "train": 32,
        "validation": 3,
        "test": 5,
    }
    for python in (sys.executable, datasets5_python):
        assert load(hub, tmp_path, python, path=made_up) == expected["made-up"]
        assert load(hub, tmp_path, python, path=sample) == expected["sample"]
        assert load(hub, tmp_path, python, path=sample, name="guide") == expected["guide"]


@pytest.mark.slow
def test_a_private_repository_is_for_those_who_may_see_it(hub: Hub, stories: Path, tmp_path: Path) -> None:
    repo_id = f"{hub.organization}/secret"
    with builder(hub, tmp_path) as build:
        arguments = ["--data", stories, "--output_dir", tmp_path / "built", "--push_to_hub", repo_id]
        done = build(*arguments, "--private", "--commit_message", "Our stories")
        assert done.code == 0, done.err
        # There it is, and private: a second push needs to say neither that nor a licence.
        assert build(*arguments).code == 0
    assert hub.repository(repo_id, "dataset").private
    assert_tells_nothing(hub.repo_files(repo_id, repo_type="dataset"), hub, tmp_path)
    assert [commit.title for commit in hub.commits(repo_id, repo_type="dataset")][-2] == "Our stories"
    assert "train" in load(hub, tmp_path, path=repo_id)
    assert repo_id in load(hub, tmp_path, token=False, path=repo_id)


@pytest.mark.slow
def test_branches_and_pull_requests(hub: Hub, stories: Path, tmp_path: Path) -> None:
    repo_id = f"{hub.user}/stories"
    with builder(hub, tmp_path) as build:
        arguments = ["--data", stories, "--push_to_hub", repo_id, *LICENSE, "--output_dir"]
        assert build(*arguments, tmp_path / "a", "--revision", "more/stories").code == 0
        proposed = build(*arguments, tmp_path / "b", "--create_pr")
    assert proposed.code == 0 and "/discussions/1" in proposed.out
    assert set(hub.repo_files(repo_id, repo_type="dataset")) == {".gitattributes"}
    assert load(hub, tmp_path, path=repo_id, revision="more/stories") == load(
        hub, tmp_path, path=repo_id, revision="refs/pr/1"
    )


def test_refusals_come_before_anything_is_built_or_sent(hub: Hub, stories: Path, tmp_path: Path) -> None:
    roc, repo_id, public = write_roc(tmp_path / "roc.csv"), f"{hub.user}/stories", f"{hub.user}/public"
    with builder(hub, tmp_path) as build:
        built = tmp_path / "built"
        assert build("--data", "sample", "--output_dir", tmp_path / "sample", "--push_to_hub", public).code == 0
        before = hub.repo_files(public, repo_type="dataset")

        def refusal(*arguments: object) -> str:
            done = build("--output_dir", built, *arguments)
            assert (done.code, done.out) == (2, ""), done.err
            assert not built.exists()
            return one_line(done)

        push = ("--push_to_hub", repo_id)
        assert "stories.jsonl: pass --license ID" in refusal("--data", stories, *push)
        assert "stories.jsonl: pass --license ID" in refusal("--data", "sample", stories, *push)
        for more in (LICENSE, (*LICENSE, "--private"), ("--private",), ()):
            message = refusal("--data", stories, roc, *push, *more)
            assert message.startswith("sentence-ordering: roc.csv looks like ROCStories")
            assert "register with its authors and not to pass the stories on" in message
            assert "--allow_rocstories" in message
        assert "--license ID" in refusal("--data", roc, *push, "--allow_rocstories")
        assert "did you mean cc-by-4.0?" in refusal("--data", stories, *push, "--license", "cc-by-4")
        # A repository that is public stays public.
        assert "--license ID" in refusal("--data", stories, "--push_to_hub", public)
        assert "is a public repository" in refusal("--data", stories, "--push_to_hub", public, "--private")
        assert "a/b/c" in refusal("--data", "sample", "--push_to_hub", "a/b/c")
        assert "add --push_to_hub" in refusal("--data", stories, "--private")
        assert "--language English" in refusal("--data", stories, "--language", "English")
    with pytest.raises(KeyError):
        hub.repository(repo_id, "dataset")
    assert hub.repo_files(public, repo_type="dataset") == before
    with builder(hub, tmp_path, token=False) as build:
        done = build("--data", "sample", *push, "--output_dir", built)
        assert done.code == 1 and not built.exists()
        assert "hf auth login" in one_line(done)


def test_rocstories_go_where_somebody_answers_for_it(hub: Hub, tmp_path: Path) -> None:
    roc = write_roc(tmp_path / "roc.csv")
    with builder(hub, tmp_path) as build:
        private = ("--push_to_hub", "private", "--private", "--allow_rocstories")
        assert build("--data", roc, "--output_dir", tmp_path / "a", *private).code == 0
        public = ("--push_to_hub", "public", *LICENSE, "--allow_rocstories", "--language", "en")
        assert build("--data", roc, "--output_dir", tmp_path / "b", *public).code == 0
    cards = {name: hub.repo_files(f"{hub.user}/{name}", repo_type="dataset")["README.md"].decode()
             for name in ("private", "public")}  # fmt: skip
    assert "Sentence 0" not in cards["private"], "no licence, no example"
    assert "Sentence 0" in cards["public"]
    for card in cards.values():
        assert "register" in card and "@inproceedings{mostafazadeh" in card and str(tmp_path) not in card
    assert DatasetCard(cards["public"]).data.to_dict()["license"] == "cc-by-4.0"


@pytest.mark.slow
def test_rocstories_on_the_hub_are_still_rocstories(hub: Hub, tmp_path: Path) -> None:
    """Without ids and titles it is the card alone that tells."""
    stories, private = tmp_path / "stories.tsv", f"{hub.user}/private"
    stories.write_text("".join("\t".join(f"Sentence {place} of {n}." for place in range(5)) + "\n" for n in range(20)))
    with builder(hub, tmp_path) as build:
        push = ("--push_to_hub", private, "--private", "--allow_rocstories")
        assert build("--data", stories, "--output_dir", tmp_path / "a", *push).code == 0
        done = build("--data", private, "--output_dir", tmp_path / "b", "--push_to_hub", "public", *LICENSE)
        assert done.code == 2 and f"{private} (train)" in one_line(done) and "--allow_rocstories" in one_line(done)
        assert not (tmp_path / "b").exists()
        # Not pushed, it may be built; but nothing of it is quoted.
        assert build("--data", private, "--output_dir", tmp_path / "b", *LICENSE).code == 0
    card = (tmp_path / "b" / "README.md").read_text()
    assert "Sentence 0" not in card and "rocstories-layout" in card


@pytest.mark.slow
def test_nothing_of_an_earlier_push_is_left(hub: Hub, tmp_path: Path, stories: Path, datasets5_python: str) -> None:
    repo_id = f"{hub.user}/stories"
    with builder(hub, tmp_path) as build:
        assert build("--data", "sample", "--output_dir", tmp_path / "a", "--push_to_hub", repo_id).code == 0
        assert build("--data", stories, "--output_dir", tmp_path / "b", "--push_to_hub", repo_id, *LICENSE).code == 0
    files = hub.repo_files(repo_id, repo_type="dataset")
    assert set(files) == {".gitattributes", "README.md", *(f"shuffled/{split}-00000-of-00001.parquet"
                          for split in ("train", "validation", "test"))}  # fmt: skip
    expected = load(hub, tmp_path, path=str(tmp_path / "b"))
    assert expected["train"][1] == 32
    for python in (sys.executable, datasets5_python):
        assert load(hub, tmp_path, python, path=repo_id) == expected


@pytest.mark.slow
def test_a_card_that_a_person_edited_stays(hub: Hub, tmp_path: Path, stories: Path, datasets5_python: str) -> None:
    repo_id = f"{hub.user}/stories"
    with builder(hub, tmp_path) as build:
        assert build("--data", "sample", "--output_dir", tmp_path / "a", "--push_to_hub", repo_id).code == 0
        card = hub.repo_files(repo_id, repo_type="dataset")["README.md"].decode()
        edited = card.replace("# Shuffled sample stories\n", "# Stories of mine\n\nI like them.\n")
        edited = edited.replace("tags:\n", "tags:\n- mine\n").replace("pretty_name:", "pretty_name: Mine #")
        code = f"import sys; from huggingface_hub import HfApi; HfApi().upload_file(path_or_fileobj=sys.stdin.read()" \
               f".encode(), path_in_repo='README.md', repo_id={repo_id!r}, repo_type='dataset')"  # fmt: skip
        subprocess.run([sys.executable, "-c", code], env=hub.environment(tmp_path), input=edited, text=True, check=True)
        assert build("--data", stories, "--output_dir", tmp_path / "b", "--push_to_hub", repo_id, *LICENSE).code == 0
    card = hub.repo_files(repo_id, repo_type="dataset")["README.md"].decode()
    data = DatasetCard(card).data.to_dict()
    assert "# Stories of mine\n\nI like them.\n" in card and card.count("generated by sentence-ordering: end") == 1
    assert (data["pretty_name"], data["license"]) == ("Mine", "cc-by-4.0")
    assert set(data["tags"]) == {"mine", "sentence-ordering"}
    assert "sample_stories" not in card.replace("\\", "") and "| stories.jsonl |" in card
    assert check_card(card, "dataset") == ([], [])
    for python in (sys.executable, datasets5_python):
        assert load(hub, tmp_path, python, path=repo_id)["train"][1] == 32


STAGES = {
    "create": ("POST", r"^/api/repos/create"),
    "preupload": ("POST", r"/preupload/"),
    "LFS": ("POST", r"/info/lfs/objects/batch"),
    "upload": ("PUT", ""),
    "commit": ("POST", r"/commit/"),
}
HOWS: tuple[How, ...] = (500, 429, "drop", "lose reply")


def files_of(hub: Hub, repo_id: str) -> dict[str, bytes]:
    """Empty if there is no repository."""
    try:
        return hub.repo_files(repo_id, repo_type="dataset")
    except KeyError:
        return {}


def is_built(files: dict[str, bytes], folder: Path, seed: int) -> bool:
    """Whether a repository has the Parquet files of a folder, all of them and no others, and the card that tells so."""
    data = {name: content for name, content in files.items() if name.endswith(".parquet")}
    built = {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/*.parquet")}
    return data == built and f"seed {seed}" in files["README.md"].decode()


@pytest.mark.slow
def test_a_failed_push_leaves_the_old_data_or_the_new(hub: Hub, stories: Path, tmp_path: Path) -> None:
    """Each failure at each stage, until the command gives up; then once more without it."""
    gave_up = set()
    with builder(hub, tmp_path) as build:
        for seed, (stage, how) in enumerate((stage, how) for stage in STAGES for how in HOWS):
            case, repo_id, folder = (stage, how), f"{hub.user}/stories-{seed}", tmp_path / f"new-{seed}"
            push = ("--data", stories, *LICENSE, "--push_to_hub", repo_id)
            if stage != "create":
                assert build(*push, "--data_seed", seed + 100, "--output_dir", tmp_path / f"old-{seed}").code == 0
            before = files_of(hub, repo_id)
            failure = hub.fail(*STAGES[stage], how, times=10**6)
            done = build(*push, "--data_seed", seed + 200, "--output_dir", folder)
            failure.times = failure.met
            after = files_of(hub, repo_id)
            if done.code == 0:
                assert is_built(after, folder, seed + 200), case
            else:
                gave_up.add(case)
                message = one_line(done)
                assert done.code == 1 and hub.token not in message, (case, message)
                if len(after) > 1 and is_built(after, folder, seed + 200):
                    assert "is complete" in message, (case, message)
                else:
                    assert after == before or set(after) == {".gitattributes"}, case
                    assert "is unchanged" in message, (case, message)
            again = build(*push, "--data_seed", seed + 200, "--output_dir", folder)
            assert again.code == 0, (case, again.err)
            assert is_built(files_of(hub, repo_id), folder, seed + 200), case
    assert gave_up >= {(stage, how) for stage in STAGES for how in (500, 429, "drop")}


@pytest.mark.slow
def test_a_short_failure_is_overcome(hub: Hub, stories: Path, tmp_path: Path) -> None:
    with builder(hub, tmp_path) as build:
        for number, how in enumerate(HOWS):
            for stage in ("create", "upload", "commit"):
                hub.fail(*STAGES[stage], how)
            push = ("--push_to_hub", f"stories-{number}", *LICENSE, "--data_seed", number)
            done = build("--data", stories, *push, "--output_dir", tmp_path / str(number))
            assert done.code == 0, (how, done.err)
            assert is_built(files_of(hub, f"{hub.user}/stories-{number}"), tmp_path / str(number), number), how
