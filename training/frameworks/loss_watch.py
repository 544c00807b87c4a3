"""Stops training at a loss that is not finite and names its stories; the same in all frameworks."""

from __future__ import annotations

import math
from itertools import islice

import torch
from torch import Tensor

from training.data.stories import drawn_stories, training_sampler

from .run import TrainingRun
from .training_log import TrainingFailed

_ADVICE = "lower --learning_rate, or try --bf16 false; the last checkpoint is kept"
_MOST_PENDING = 1000


class LossWatch:
    """The losses of the batches that have not been checked yet.

    Reading a loss waits for the GPU. So losses are checked together, before an entry of the log, an evaluation or a
    checkpoint. All processes check at the same steps and stop together.

    Args:
        run: the run.
    """

    def __init__(self, run: TrainingRun) -> None:
        self._run = run
        self._pending: list[tuple[int, int, Tensor]] = []

    def note(self, step: int, loss: Tensor | float) -> None:
        """Stores the loss of a batch.

        Args:
            step: the optimizer step of the batch, counted from 1.
            loss: a scalar.
        """
        of_this_step = self._pending[-1][1] + 1 if self._pending and self._pending[-1][0] == step else 0
        self._pending.append((step, of_this_step, torch.as_tensor(loss).detach()))

    def check(self) -> None:
        """Checks the losses; only between optimizer steps.

        Raises:
            TrainingFailed: if one is not a finite number.
        """
        pending, self._pending = self._pending, []
        values = torch.stack([loss for *_, loss in pending]).tolist() if pending else []
        bad = ((step, batch, loss) for (step, batch, _), loss in zip(pending, values, strict=True)
               if not math.isfinite(loss))  # fmt: skip
        first = next(bad, None)
        found = None if first is None else (first[0], self._message(*first))
        self._stop_at_first(found)

    def check_if_many(self) -> None:
        """As `check`, if many losses are pending."""
        if len(self._pending) >= _MOST_PENDING:
            self.check()

    def check_before_saving(self, step: int) -> None:
        """As `check`, and checks the weights: they show a gradient that is not finite before a loss does.

        Raises:
            TrainingFailed: also if a weight is not a finite number.
        """
        self.check()
        own = (weight.to_local() if hasattr(weight, "to_local") else weight for weight in self._run.model.parameters())
        weights = [weight.detach().isfinite().all() for weight in own]
        finite = bool(torch.stack(weights).all())
        message = f"the weights are not finite after step {step}: {_ADVICE}"
        self._stop_at_first(None if finite else (step, message))

    def _stop_at_first(self, found: tuple[int, str] | None) -> None:
        """Stops all processes if one of them found something; the message is that of the earliest step."""
        everything = [item for item in self._run.processes.all_gather(found) if item is not None]
        if everything:
            raise TrainingFailed(min(everything)[1])

    def _message(self, step: int, batch: int, loss: float) -> str:
        stories = ", ".join(self._story_ids(step, batch))
        return f"the training loss is {loss} at step {step}, of the stories {stories}: {_ADVICE}"

    def _story_ids(self, step: int, batch: int) -> list[str]:
        """The ids of the stories of a batch, from the sampler, which is deterministic."""
        sampler = training_sampler(self._run.training, self._run.recipe, self._run.processes)
        epoch, step_of_epoch = divmod(step - 1, sampler.steps_per_epoch)
        sampler.set_epoch(epoch)
        index = step_of_epoch * sampler.gradient_accumulation_steps + batch
        sampler.will_skip(index)
        stories = drawn_stories(self._run.training, self._run.recipe)
        return [stories.storyid(draw) for draw in next(islice(sampler, index, None))]
