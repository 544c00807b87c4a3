"""One of several processes that train together: `torchrun … train_together.py COMMANDS`, as JSON, one after the other.

Ends with the first that fails. Writes `process-RANK.json` into the working directory: for each command the seed that
dropout had last, and how many sentences this process tokenized. A command with `--nan_at STEP` meets, in the second
process, a loss that is no number.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from training.commands.command_line import main
from training.data import stories
from training.frameworks import loss_watch

RANK = int(os.environ["RANK"])
tokenized = 0
tokenize, note = stories.StoryTokenizer.tokenize_stories, loss_watch.LossWatch.note


def count(self: Any, many: Any, **options: Any) -> Any:
    global tokenized
    tokenized += sum(map(len, many))
    return tokenize(self, many, **options)


def spoil(self: Any, step: int, loss: Any) -> None:
    note(self, step, torch.tensor(float("nan")) if RANK == 1 and step == nan_at else loss)


stories.StoryTokenizer.tokenize_stories = count  # type: ignore[assignment]
loss_watch.LossWatch.note = spoil  # type: ignore[method-assign]
done: list[dict[str, int]] = []
for command in json.loads(sys.argv[1]):
    tokenized, nan_at = 0, None
    if "--nan_at" in command:
        place = command.index("--nan_at")
        nan_at = int(command[place + 1])
        del command[place : place + 2]
    if code := main(command):
        sys.exit(code)
    done.append({"seed": torch.initial_seed(), "tokenized": tokenized})
    Path(f"process-{RANK}.json").write_text(json.dumps(done), encoding="utf-8")
