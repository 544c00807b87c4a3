"""The processes of a command that is started by `torchrun` or `accelerate launch`.

Objects are exchanged through the CPU. Gradients are exchanged by the frameworks.
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
# Long enough for a process that tokenizes millions of stories. The launcher ends all processes if one fails.
_TIMEOUT = timedelta(days=7)


@dataclass(frozen=True)
class Processes:
    """This process and the number of processes, as in `torch.distributed`.

    Attributes:
        rank: of this process, counted from 0.
        world_size: number of processes.
        local_rank: rank on this machine, counted from 0.
        local_world_size: number of processes on this machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @classmethod
    def from_environment(cls) -> Processes:
        """From the variables that `torchrun` and `accelerate launch` set; one process without them."""
        rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        local_rank = int(os.environ.get("LOCAL_RANK", rank))
        return cls(rank, world_size, local_rank, int(os.environ.get("LOCAL_WORLD_SIZE", world_size)))

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which prints and writes files."""
        return self.rank == 0

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Joins the default process group and selects the GPU of this process; with one process, does nothing.

        The frameworks train in this group. It is destroyed at exit, but not after an error: that would wait for the
        other processes.

        Raises:
            CommandFailed: if another process has ended.
            UserError: if there are fewer GPUs than processes.
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
            distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout=_TIMEOUT)
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, distributed.DistError) or "gloo/" in str(error):
                raise CommandFailed("another process has failed") from error
            raise
        atexit.unregister(distributed.destroy_process_group)
        atexit.register(distributed.destroy_process_group)

    def all_gather(self, value: T) -> list[T]:
        """The value of each process, by rank; a collective call."""
        if self.world_size == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def broadcast_from_rank_zero(self, work: Callable[[], T]) -> T:
        """The result of `work` in rank 0, which alone calls it; a collective call."""
        return self.all_gather(work() if self.is_first else None)[0]  # type: ignore[return-value]

    def local_rank_zero_first(self, work: Callable[[], T]) -> T:
        """Calls `work` in local rank 0 first and then in the others, which find its results in the cache."""
        if self.local_rank == 0:
            result = work()
            self.all_gather(None)
            return result
        self.all_gather(None)
        return work()

    def mean(self, value: float) -> float:
        """The mean over all processes; a collective call."""
        values = self.all_gather(value)
        return sum(values) / len(values)
