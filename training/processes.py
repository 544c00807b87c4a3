"""Which of several processes this one is, where a command is started by `torchrun` or `accelerate launch`."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this one is.

    Attributes:
        rank: counted from 0.
        world_size: processes in all.
    """

    rank: int = 0
    world_size: int = 1

    @classmethod
    def from_environment(cls) -> Processes:
        """As `torchrun` and `accelerate launch` say it; one process without them."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
