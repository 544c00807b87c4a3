"""Where the time of a training step goes, whichever framework makes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data.dataloader import _SingleProcessDataLoaderIter

from modeling_sentence_ordering import SentenceOrderingModel, modeling_sentence_ordering
from training.frameworks.loss_watch import LossWatch
from training.frameworks.training_log import TrainingLog

# What nobody can do without; everything else is what a framework, or we, add.
NEEDED = ("forward", "loss", "backward", "optimizer")
_PARTS: tuple[tuple[str, Any, str], ...] = (
    ("batches", _SingleProcessDataLoaderIter, "_next_data"),
    ("forward", SentenceOrderingModel, "forward"),
    ("loss", modeling_sentence_ordering, "objective_loss"),
    ("backward", torch.autograd, "backward"),
    ("clipping", torch.nn.utils, "clip_grad_norm_"),
    ("optimizer", AdamW, "step"),
    ("optimizer", Optimizer, "zero_grad"),
    ("schedule", LambdaLR, "step"),
    ("logging", TrainingLog, "training"),
    ("logging", LossWatch, "note"),
    ("logging", LossWatch, "check"),
)


class StepProfile:
    """Seconds of each part, by the clock, each without the parts that it calls.

    Attributes:
        seconds: by part; `framework` is what is left between two steps.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(["framework", *(part for part, *_ in _PARTS)], 0.0)
        self._running = ["framework"]
        self._since = time.perf_counter()

    def restart(self) -> None:
        """Forgets what was measured so far."""
        self._switch()
        self.seconds = dict.fromkeys(self.seconds, 0.0)

    def shares(self) -> dict[str, float]:
        """Of each part its share of all the time since the last restart."""
        self._switch()
        return {part: seconds / sum(self.seconds.values()) for part, seconds in self.seconds.items()}

    def _switch(self) -> None:
        now = time.perf_counter()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted as this part's."""

        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            self._switch()
            self._running.append(part)
            try:
                return function(*arguments, **options)
            finally:
                self._switch()
                self._running.pop()

        return call

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Measures what is called inside."""
        before = [(owner, name, getattr(owner, name)) for _, owner, name in _PARTS]
        for part, owner, name in _PARTS:
            setattr(owner, name, self.timed(part, getattr(owner, name)))
        try:
            yield
        finally:
            for owner, name, function in before:
                setattr(owner, name, function)
