"""A pushed model as an Inference Endpoint serves it: JSON in, JSON out, over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modeling_sentence_ordering import SentenceOrderingPipeline
from tests.hub_server import Hub
from tests.training.strangers import STORIES
from training.models.trained_model import load_trained_model

Ask = Callable[[Any], Any]


@pytest.fixture(scope="module")
def folder(trained: Any) -> Path:
    return Path(trained.folder)


@pytest.fixture(scope="module")
def ask(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Sends JSON to the endpoint and returns its answer."""
    own = tmp_path_factory.mktemp("endpoint")
    with Hub() as hub:
        target = f"{hub.user}/served"
        code = "import sys; from training.commands.command_line import main; sys.exit(main(sys.argv[1:]))"
        environment = hub.environment(own) | {"OMP_NUM_THREADS": "1"}
        root = Path(__file__).parents[3]
        push = [sys.executable, "-c", code, "push", "--model", str(folder), "--repo_id", target]
        subprocess.run(push, env=environment, cwd=root, check=True, capture_output=True)
        client = [sys.executable, str(Path(__file__).parents[1] / "clients" / "endpoint.py"), target]
        with subprocess.Popen(
            client, env=environment, cwd=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None and process.stdin is not None
            port = int(process.stdout.readline())

            def send(request: Any) -> Any:
                address = f"http://127.0.0.1:{port}/"
                body = json.dumps(request).encode()
                posted = urllib.request.Request(address, body, {"Content-Type": "application/json"})
                with urllib.request.urlopen(posted, timeout=60) as answer:
                    return json.load(answer)

            yield send
            process.stdin.close()


def test_it_answers_as_the_pipeline_does(ask: Ask, folder: Path) -> None:
    model, tokenizer = load_trained_model(str(folder))
    order = SentenceOrderingPipeline(model=model, tokenizer=tokenizer)
    assert ask({"inputs": STORIES[0]}) == json.loads(json.dumps(order(STORIES[0])))
    assert ask({"inputs": STORIES, "parameters": {"batch_size": 1}}) == json.loads(
        json.dumps(order(STORIES, batch_size=1))
    )


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ({}, "inputs"),
        ({"inputs": "It rained."}, "list"),
        ({"inputs": [1, 2]}, "not int"),
        ({"inputs": STORIES[0], "parameters": {"colour": "red"}}, "colour"),
        ({"inputs": STORIES[0], "parameters": 3}, "parameters"),
        (["It rained."], "inputs"),
    ],
)
def test_what_makes_no_sense_is_answered_in_words(ask: Ask, request_: Any, why: str) -> None:
    answer = ask(request_)
    assert list(answer) == ["error"] and why in answer["error"]
