"""Opens a model through one entry point at a time, each in a process of its own with an empty `HF_HOME`.

Run by `test_entry_points.py` as a script, perhaps with another transformers, with one JSON object on standard input:
`sources` (folders or ids), `handler` (a folder) and `story`. Prints one JSON object: for each entry and source the
scores, or None where an entry gives none; a failure is `{"error": …}`.

The processes are forked after the imports, which take far longer than the rest.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModel, pipeline


def config(source: str, story: dict[str, Any]) -> Any:
    opened = AutoConfig.from_pretrained(source, trust_remote_code=True)
    assert type(opened).__module__.startswith("transformers_modules."), type(opened).__module__
    assert opened.marker_token_id == story["marker_token_id"]


def model(source: str, story: dict[str, Any]) -> Any:
    opened = AutoModel.from_pretrained(source, trust_remote_code=True)
    with torch.no_grad():
        return opened(input_ids=torch.tensor([story["input_ids"]])).logits[0].tolist()


def order(source: str, story: dict[str, Any]) -> Any:
    return pipeline("sentence-ordering", model=source, trust_remote_code=True)(story["sentences"])["scores"]


def handler(source: str, story: dict[str, Any]) -> Any:
    sys.path.insert(0, source)  # as the server of an endpoint does
    from handler import EndpointHandler

    return EndpointHandler(source)({"inputs": story["sentences"]})["scores"]


def in_a_process(entry: Callable[..., Any], source: str, story: dict[str, Any]) -> Any:
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            answer = entry(source, story)
        except BaseException:
            answer = {"error": traceback.format_exc()}
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as stream:
        answer = json.load(stream)
    os.waitpid(child, 0)
    return answer


if __name__ == "__main__":
    work = json.load(sys.stdin)
    jobs = [(entry, source) for entry in (config, model, order) for source in work["sources"]]
    jobs.append((handler, work["handler"]))
    found = [[entry.__name__, source, in_a_process(entry, source, work["story"])] for entry, source in jobs]
    print(json.dumps({"transformers": transformers.__version__, "found": found}))
