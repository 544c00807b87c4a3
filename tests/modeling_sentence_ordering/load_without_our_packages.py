"""Loads models as a stranger does: another process, none of our packages, perhaps another transformers.

Run by `test_hub_code.py` as a script, with one JSON object on standard input: `stories`, and `models`, a list of
`{"folder": …, "save_to": … or null, "save_pipeline_to": … or null}`. Prints one JSON object: what came of each folder.
"""

from __future__ import annotations

import json
import sys
from importlib.abc import MetaPathFinder
from typing import Any

OURS = ("modeling_sentence_ordering", "dataset_builder", "training", "model_card")


class NoneOfOurs(MetaPathFinder):
    """Our packages may be installed where this runs; nobody else has them."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name.partition(".")[0] in OURS:
            raise ImportError(f"{name} is not there for other people")


sys.meta_path.insert(0, NoneOfOurs())

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoConfig, AutoModel, AutoTokenizer, pipeline  # noqa: E402


def load(folder: str, stories: list[list[str]], save_to: str | None, save_pipeline_to: str | None) -> dict[str, Any]:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    # Trusted, as is everything here: transformers 5 asks about a repository's code even for its tokenizer.
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    order = pipeline("sentence-ordering", model=folder, trust_remote_code=True, batch_size=2)
    assert all(type(part).__module__.startswith("transformers_modules.") for part in (config, model, order))

    logits = []
    for story in stories:
        ids = []
        for sentence in story:
            ids += [config.marker_token_id, *tokenizer(sentence, add_special_tokens=False)["input_ids"]]
        ids += [] if config.separator_token_id is None else [config.separator_token_id]
        with torch.no_grad():
            logits.append(model(input_ids=torch.tensor([ids])).logits[0].tolist())
    if save_to:
        model.save_pretrained(save_to)
        tokenizer.save_pretrained(save_to)
    if save_pipeline_to:
        order.save_pretrained(save_pipeline_to)
    calibrated = config.confidence_temperature is not None
    options = {"moves": True} | ({"pairwise": True, "ties": 0.7, "score": True} if calibrated else {})
    answers = order([*stories, []], **options)
    order.story_tokenizer.max_input_tokens = 40  # so that all the sentences together are a long text
    long_answer = order([sentence for story in stories for sentence in story])
    return {"logits": logits, "answers": answers, "long answer": long_answer, "task": order.task}


work = json.load(sys.stdin)
loaded = {model["folder"]: load(stories=work["stories"], **model) for model in work["models"]}
print(json.dumps({"transformers": transformers.__version__, "loaded": loaded}))
