"""What a training may use: memory, time, and how fast the machine is, nominally."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from medseg.processes import usable_processors

LIBRARIES_BYTES = 1 << 30
"""Of PyTorch, MONAI and Lightning, in the process that trains and the one that reads samples."""
SHARE = 0.6
"""Of the machine's memory, what a plan takes where nobody says."""
CORE_FLOPS = 50e9
"""What a core of a processor of today computes in a second of training, in 32 bits (AVX-512: 70e9 measured)."""
HALF_FACTOR = 2.0
"""How much faster bf16 is where the processor multiplies it (2.2 measured, AVX512-BF16)."""
GPU_FLOPS = 10e12
"""Of a GPU in mixed precision."""


@dataclass(frozen=True)
class Means:
    """What a training may use.

    Attributes:
        memory: bytes, of the device that trains.
        minutes: of training, validation included.
        flops_a_second: nominally.
        half: whether activations are in 16 bits.
        beside: bytes that are held beside a step and the weights: libraries, scans in memory.
        words: what the machine is.
    """

    memory: int
    minutes: float
    flops_a_second: float
    half: bool
    beside: int
    words: str

    @property
    def seconds(self) -> float:
        """The minutes."""
        return self.minutes * 60

    @property
    def step_bytes(self) -> int:
        """What is left for a step and the weights."""
        return self.memory - self.beside


def means_of(memory: int | None, minutes: float, cache: int) -> Means:
    """Of this machine: its GPU where it has one, else its processors.

    Args:
        memory: bytes, where the user says.
        minutes: of training.
        cache: bytes of scans that are kept in memory.
    """
    if torch.cuda.is_available():
        whole = torch.cuda.get_device_properties(0).total_memory
        return Means(memory or int(0.8 * whole), minutes, GPU_FLOPS, True, LIBRARIES_BYTES, "a GPU")
    cores, half = usable_processors(), multiplies_half()
    rate = cores * CORE_FLOPS * (HALF_FACTOR if half else 1.0)
    given = memory or int(SHARE * host_bytes())
    words = f"{cores} cores" + (", which multiply bf16" if half else "")
    return Means(given, minutes, rate, half, LIBRARIES_BYTES + cache, words)


def multiplies_half() -> bool:
    """Whether the processor has instructions for bf16: AVX512-BF16 or AMX on x86 (Linux tells)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def host_bytes() -> int:
    """The machine's memory."""
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
