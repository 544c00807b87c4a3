"""Each way to open a saved model works alone, from a folder and from an id, on every supported transformers.

`test_hub_code.py` opens one after the other in the same cache, so that an earlier one may have copied the files that a
later one should have asked for.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling_sentence_ordering import SentenceOrderingModel, SentenceOrderingPipeline, StoryTokenizer, load_tokenizer
from tests.hub_server import Hub
from tests.modeling_sentence_ordering.small_encoders import STORIES, GetFolder

UPLOAD = (
    "import sys, huggingface_hub\n"
    "api = huggingface_hub.HfApi()\n"
    "api.create_repo(sys.argv[2])\n"
    "api.upload_folder(folder_path=sys.argv[1], repo_id=sys.argv[2])\n"
)
VERSIONS = ["this", "old_transformers_python", "last4_transformers_python", "early5_transformers_python"]


@pytest.fixture(scope="module")
def folder(model_folder: GetFolder) -> Path:
    return model_folder("bert")


@pytest.fixture(scope="module")
def pushed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, str]]:
    """A Hub and the id of the model there."""
    with Hub() as hub:
        repo_id = f"{hub.user}/orders"
        environment = hub.environment(tmp_path_factory.mktemp("upload"))
        subprocess.run([sys.executable, "-c", UPLOAD, str(folder), repo_id], env=environment, check=True)
        yield hub, repo_id


@pytest.mark.parametrize("version", VERSIONS)
def test_each_entry_point_works_alone(
    version: str, folder: Path, pushed: tuple[Hub, str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    python = sys.executable if version == "this" else request.getfixturevalue(version)
    model, tokenizer = SentenceOrderingModel.from_pretrained(folder), load_tokenizer(str(folder))
    story_tokenizer = StoryTokenizer(tokenizer, model.config)
    input_ids = story_tokenizer.assemble(story_tokenizer.tokenize(STORIES[0])).input_ids
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([input_ids])).logits[0].tolist()
    scores = SentenceOrderingPipeline(model=model, tokenizer=tokenizer)(STORIES[0])["scores"]

    hub, repo_id = pushed
    story = {"sentences": STORIES[0], "input_ids": input_ids, "marker_token_id": model.config.marker_token_id}
    script = Path(__file__).with_name("load_one_entry.py")
    # Isolated from our packages, which other people do not have: neither the working directory nor PYTHONPATH.
    result = subprocess.run(
        [python, "-c", f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')"],
        input=json.dumps({"sources": [str(folder), repo_id], "handler": str(folder), "story": story}),
        env=hub.environment(tmp_path) | {"OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    expected = {"config": None, "model": logits, "order": scores, "handler": scores}
    assert len(answer["found"]) == 7
    for entry, source, found in answer["found"]:
        label = f"{entry} from {source} on transformers {answer['transformers']}"
        assert not isinstance(found, dict), f"{label}: {found['error']}"
        assert found == (expected[entry] and pytest.approx(expected[entry], abs=1e-6)), label
