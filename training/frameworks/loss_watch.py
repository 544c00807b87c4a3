"""Stops training at a loss that is no number, and says which stories it came from; the same for all frameworks."""

from __future__ import annotations

import math
from itertools import islice

import torch
from torch import Tensor

from training.data.stories import training_sampler

from .run import TrainingRun
from .training_log import TrainingFailed

_ADVICE = "lower --learning_rate, or try --bf16 false; the last checkpoint is kept"
_MOST_WAITING = 1000


class LossWatch:
    """The losses of the batches since somebody last looked at them.

    To look at a loss on a GPU is to wait until it is computed. So they are looked at together, and only when something
    is to be made of what was trained: an entry of the log, an evaluation, a checkpoint. Several processes look at the
    same moments, and stop together, whoever of them had the batch.

    Args:
        run: what is trained.
    """

    def __init__(self, run: TrainingRun) -> None:
        self._run = run
        self._waiting: list[tuple[int, int, Tensor]] = []

    def note(self, step: int, loss: Tensor | float) -> None:
        """Takes note of the loss of a batch.

        Args:
            step: of the optimizer, counted from 1, that the batch is a part of.
            loss: a scalar.
        """
        of_this_step = self._waiting[-1][1] + 1 if self._waiting and self._waiting[-1][0] == step else 0
        self._waiting.append((step, of_this_step, torch.as_tensor(loss).detach()))

    def check(self) -> None:
        """Looks at the losses; only between steps of the optimizer.

        Raises:
            TrainingFailed: if one is not a finite number.
        """
        waiting, self._waiting = self._waiting, []
        values = torch.stack([loss for *_, loss in waiting]).tolist() if waiting else []
        bad = ((step, batch, loss) for (step, batch, _), loss in zip(waiting, values, strict=True)
               if not math.isfinite(loss))  # fmt: skip
        first = next(bad, None)
        found = None if first is None else (first[0], self._in_words(*first))
        self._stop_at_first(found)

    def check_if_many(self) -> None:
        """As `check`, where so many wait that they begin to cost memory."""
        if len(self._waiting) >= _MOST_WAITING:
            self.check()

    def check_before_saving(self, step: int) -> None:
        """As `check`; and a gradient that was no number shows in the weights before it shows in a loss.

        Raises:
            TrainingFailed: also if a weight is not a finite number.
        """
        self.check()
        own = (weight.to_local() if hasattr(weight, "to_local") else weight for weight in self._run.model.parameters())
        weights = [weight.detach().isfinite().all() for weight in own]
        finite = bool(torch.stack(weights).all())
        message = f"the weights are no finite numbers any more after step {step}: {_ADVICE}"
        self._stop_at_first(None if finite else (step, message))

    def _stop_at_first(self, found: tuple[int, str] | None) -> None:
        """Stops all processes if any of them found something; the earliest step is told of."""
        everything = [item for item in self._run.processes.all_gather(found) if item is not None]
        if everything:
            raise TrainingFailed(min(everything)[1])

    def _in_words(self, step: int, batch: int, loss: float) -> str:
        stories = ", ".join(self._story_ids(step, batch))
        return f"the training loss is {loss} at step {step}, of the stories {stories}: {_ADVICE}"

    def _story_ids(self, step: int, batch: int) -> list[str]:
        """The stories of a batch of this process in a step: the sampler gives the same again."""
        sampler = training_sampler(self._run.training, self._run.recipe, self._run.processes)
        epoch, step_of_epoch = divmod(step - 1, sampler.steps_per_epoch)
        sampler.set_epoch(epoch)
        place = step_of_epoch * sampler.gradient_accumulation_steps + batch
        sampler.will_skip(place)
        return [self._run.training.storyid(draw) for draw in next(islice(sampler, place, None))]
