"""What somebody does who has transformers, and an id on the Hub, and none of our packages.

Run as a script with one JSON object on standard input: `stories`, lists of sentences, and `do`, a list of steps:

    {"load": ID, "revision": COMMIT}                 by AutoModel, AutoTokenizer and pipeline; the newest without COMMIT
    {"fine_tune": ID, "steps": 5, "push": "model" or "trainer", "to": ID, "shards": "10KB"}   with plain Trainer
    {"delete": ID}

Prints one JSON object: `transformers`, and under `did` for each step what the model says of the stories then.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

# Our packages may be installed where this runs; nobody else has them.
for ours in ("modeling_sentence_ordering", "dataset_builder", "training", "model_card"):
    sys.modules[ours] = None

import torch  # noqa: E402
import transformers  # noqa: E402
from huggingface_hub import HfApi  # noqa: E402
from transformers import AutoModel, AutoTokenizer, Trainer, TrainingArguments, pipeline  # noqa: E402

WORK = json.load(sys.stdin)
STORIES: list[list[str]] = WORK["stories"]


def batch(model: Any, tokenizer: Any, stories: list[list[str]]) -> dict[str, torch.Tensor]:
    """Ids as the model card tells: marker, sentence, marker, sentence, …, separator."""
    rows = []
    for story in stories:
        ids: list[int] = []
        for sentence in story:
            ids += [model.config.marker_token_id, *tokenizer(sentence, add_special_tokens=False)["input_ids"]]
        rows.append(ids + [number for number in [model.config.separator_token_id] if number is not None])
    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
    }


def says(model: Any, tokenizer: Any) -> list[list[float]]:
    model.eval()
    with torch.no_grad():
        return [model(**batch(model, tokenizer, [story])).logits[0].tolist() for story in STORIES]


def load(repo_id: str, **revision: str) -> dict[str, Any]:
    model = AutoModel.from_pretrained(repo_id, trust_remote_code=True, **revision)
    assert type(model).__module__.startswith("transformers_modules.")
    tokenizer = AutoTokenizer.from_pretrained(repo_id, trust_remote_code=True, **revision)
    order = pipeline("sentence-ordering", model=repo_id, trust_remote_code=True, **revision)
    without_task = pipeline(model=repo_id, trust_remote_code=True, **revision)
    answers = [order(story) for story in STORIES]
    assert [without_task(story) for story in STORIES] == answers
    return {"logits": says(model, tokenizer), "answers": answers}


def fine_tune(repo_id: str, steps: int, push: str, to: str, shards: str | None) -> dict[str, Any]:
    model = AutoModel.from_pretrained(repo_id, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(repo_id, trust_remote_code=True)
    collator = model.data_collator(tokenizer, shuffle=True)
    rows = [{"sentences": story} for story in STORIES]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            f"{folder}/checkpoints",
            max_steps=steps,
            per_device_train_batch_size=2,
            learning_rate=1e-2,
            remove_unused_columns=False,
            report_to=[],
            use_cpu=True,
            hub_model_id=to,
            push_to_hub=push == "trainer",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=rows * 2,
            eval_dataset=rows,
            data_collator=collator,
            compute_metrics=model.compute_metrics,
        )
        trainer.train()
        metrics = trainer.evaluate()
        assert {"eval_loss", "eval_accuracy", "eval_kendalls_tau", "eval_pmr"} <= metrics.keys(), metrics
        if push == "trainer":
            trainer.push_to_hub()
        else:
            # What lies in a folder of that name, where transformers 4 saves, is the person's own.
            own = Path(to.rpartition("/")[2])
            own.mkdir(exist_ok=True)
            (own / "optimizer.pt").write_text("the person's own")
            model.push_to_hub(to, **({"max_shard_size": shards} if shards else {}))
            model.push_to_hub(to, revision="a-branch")
    return {"logits": says(model, tokenizer)}


def do(step: dict[str, Any]) -> Any:
    if "load" in step:
        return load(step.pop("load"), **step)
    if "delete" in step:
        return HfApi().delete_repo(step["delete"])
    return fine_tune(step["fine_tune"], step["steps"], step["push"], step["to"], step.get("shards"))


print(json.dumps({"transformers": transformers.__version__, "did": [do(step) for step in WORK["do"]]}))
