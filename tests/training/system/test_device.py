"""Where models run: memory that is freed is there for the next tensor."""

from __future__ import annotations

import ctypes
import resource
import statistics

import pytest
import torch

from training.system.device import steady_memory

ROWS, WIDTH = 12_000, 1024  # float32: 49 MB, more than what glibc keeps by itself


def faults_of_a_step(weight: torch.Tensor) -> int:
    """Pages of memory that the system had to provide for some tensors, which are freed again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    shown = torch.ones(ROWS, WIDTH)
    sum((shown + row).relu() for row in weight)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_the_memory_of_a_tensor_that_is_freed_serves_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("this C library has no mallopt")
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_"):
        monkeypatch.delenv(name, raising=False)
    steady_memory()
    weight = torch.ones(3, WIDTH)
    # The first ones find a heap that other tests have left in pieces.
    faults = [faults_of_a_step(weight) for _ in range(15)]
    pages = ROWS * WIDTH * 4 // resource.getpagesize()
    # The median: a step in which the heap grows once says nothing about the others.
    assert statistics.median(faults[10:]) < pages
