"""The memory that this process holds, that it may hold, and its peak."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch


@contextlib.contextmanager
def peak_of(device: torch.device) -> Iterator[Callable[[], int | None]]:
    """By how many bytes memory rises at most within the block; call what it gives after it.

    On the CPU that is the resident memory of this process (Linux), on CUDA what PyTorch has allotted; elsewhere None.
    """
    found: list[int | None] = [None]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield lambda: found[0]
        found[0] = torch.cuda.max_memory_allocated(device) - before
        return
    before_rss = _begin_anew() if device.type == "cpu" else None
    yield lambda: found[0]
    if before_rss is not None:
        found[0] = max(_status("VmHWM") - before_rss, 0)


def resident_bytes() -> int:
    """What this process holds now; 0 where the system does not tell."""
    return _status("VmRSS") if sys.platform == "linux" else 0


def peak_bytes() -> int:
    """The most that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return max(peak, *_EARLIER)


_EARLIER = [0]
"""What the peak was before it began anew."""


def _begin_anew() -> int | None:
    """Lets the peak begin anew, free blocks of the heap given back; returns what is resident, None where it cannot."""
    if sys.platform != "linux":
        return None
    give_back()
    _EARLIER[0] = peak_bytes()
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return None


MAPPED_BYTES = 16 << 20
"""Blocks from this size on are mapped one by one, and unmapped when they are freed."""
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
"""Names of ``mallopt(3)``."""


def tame_heap() -> None:
    """Keeps the C library's heap (glibc) from growing with the length of a run, as holes of freed blocks make it.

    By itself it raises the size from which blocks are mapped one by one to 32 MiB, and gives each thread a heap.
    To be called before threads are started, by a process that is medseg's own.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            c = ctypes.CDLL(None)
            c.mallopt(_MMAP_THRESHOLD, MAPPED_BYTES)
            c.mallopt(_ARENA_MAX, 2)


def give_back() -> None:
    """Gives the heap's free pages back to the system, where the C library can."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def free_bytes() -> int:
    """The host's memory that is free, control groups respected."""
    return min([_free_of_machine(), *_free_of_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def _free_of_machine() -> int:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _free_of_groups(membership: Path, root: Path) -> Iterator[int]:
    """What is left of the limit of each control group (version 1 or 2) that the process is in."""
    with contextlib.suppress(OSError):
        for line in membership.read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            top = root / controllers
            group = top / name.strip("/")
            for folder in (group, *group.parents):
                yield from _free_of_group(folder, version=1 if controllers else 2)
                if folder == top:
                    break


def _free_of_group(folder: Path, version: int) -> Iterator[int]:
    limit, usage, cached = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    with contextlib.suppress(OSError, ValueError):
        most, used = int((folder / limit).read_text()), int((folder / usage).read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        yield max(most - used + int(statistics.get(cached, 0)), 0)
