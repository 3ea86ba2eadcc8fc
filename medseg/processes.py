"""Several processes on one task."""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor


def usable_processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def process_pool(count: int) -> ProcessPoolExecutor:
    """Processes that start at once where that is safe.

    A fork does; yet where PyTorch has begun to use threads its OpenMP would hang, so that processes start anew there.
    """
    forks = sys.platform == "linux" and "torch" not in sys.modules
    return ProcessPoolExecutor(count, multiprocessing.get_context("fork" if forks else "spawn"))
