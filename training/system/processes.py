"""Which of several processes this one is, where a command is started by `torchrun` or `accelerate launch`.

What processes tell each other is small, and goes from CPU to CPU; gradients are the frameworks' business.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from dataset_builder import UserError

from .errors import CommandFailed

T = TypeVar("T")
# How long one may wait for another, who perhaps tokenizes millions of stories. The launcher ends all if one fails.
_PATIENCE = timedelta(days=7)


class AnotherFailed(CommandFailed):
    """Another process has ended, and what was done together cannot go on."""


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this one is.

    Attributes:
        rank: counted from 0.
        world_size: processes in all.
        local_rank: counted from 0 on each machine.
        local_world_size: processes on this machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @classmethod
    def from_environment(cls) -> Processes:
        """As `torchrun` and `accelerate launch` say it; one process without them."""
        rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        local_rank = int(os.environ.get("LOCAL_RANK", rank))
        return cls(rank, world_size, local_rank, int(os.environ.get("LOCAL_WORLD_SIZE", world_size)))

    @property
    def is_first(self) -> bool:
        """Whether this is the one that speaks and writes."""
        return self.rank == 0

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Joins the others for what follows, and takes the GPU of this process; nothing where there is one process.

        The frameworks train in the group that they find here. It is kept for whatever these processes do next, and left
        in the end if all went well: who fails must not wait for those who do not know it yet.

        Raises:
            AnotherFailed: if another process has ended before.
            UserError: if there are not as many GPUs as processes.
        """
        if self.world_size == 1:
            yield
            return
        import torch
        from torch import distributed

        on_gpus = torch.cuda.is_available()
        if on_gpus:
            gpus = torch.cuda.device_count()
            if self.local_world_size > gpus:
                raise UserError(f"{self.local_world_size} processes share {gpus} GPUs: start one for each GPU")
            torch.cuda.set_device(self.local_rank)
        if not distributed.is_initialized():
            distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout=_PATIENCE)
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, distributed.DistError) or "gloo/" in str(error):
                raise AnotherFailed("another process has failed, and this one cannot go on alone") from error
            raise
        atexit.unregister(distributed.destroy_process_group)
        atexit.register(distributed.destroy_process_group)

    def gathered(self, value: T) -> list[T]:
        """What each process has, by rank; to be called by all."""
        if self.world_size == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def of_first(self, work: Callable[[], T]) -> T:
        """What the first process finds, for all; only that one looks."""
        return self.gathered(work() if self.is_first else None)[0]  # type: ignore[return-value]

    def one_first(self, work: Callable[[], T]) -> T:
        """Has one process of each machine work alone, then the others, who find in the cache what it left there."""
        if self.local_rank == 0:
            result = work()
            self.gathered(None)
            return result
        self.gathered(None)
        return work()

    def mean(self, value: float) -> float:
        """The mean over all processes."""
        values = self.gathered(value)
        return sum(values) / len(values)
