"""How much memory a run may hold, and how people write sizes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch

from medseg.errors import ConfigError
from medseg.inference.process_memory import free_bytes, resident_bytes

SHARE_OF_FREE = 0.6
"""Of the memory that is free, what a run takes where nobody says."""

_UNITS = {"": 1, **{f"{p}B": 1000**i for i, p in enumerate(("", "k", "M", "G", "T"))}}
_UNITS |= {f"{p}{b}": 1024**i for i, p in enumerate("KMGT", 1) for b in ("iB", "i", "")}


def parse_size(text: str) -> int:
    """Bytes of ``2GiB``, ``500MB``, ``1.5 G`` (binary, as K, M and T) or a plain number.

    Raises:
        ConfigError: for anything else.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    units = {name.lower(): bytes for name, bytes in _UNITS.items()}
    size = int(float(found[1]) * units[found[2].lower()]) if found and found[2].lower() in units else 0
    if size < 1:
        raise ConfigError(f"memory {text!r} is no size: give bytes with a unit, such as 2GiB or 500MB")
    return size


def format_size(bytes: int) -> str:
    """As :func:`parse_size` reads it, rounded up: ``412.3MiB``, ``1.3GiB``."""
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if bytes >= 1024**power:
            return f"{math.ceil(bytes * 10 / 1024**power) / 10:g}{unit}"
    return f"{bytes}B"


@dataclass(frozen=True)
class Budget:
    """What a run may hold at its peak.

    Attributes:
        host_bytes: resident memory of the process, what it holds already included.
        device_bytes: what PyTorch may allot on a GPU; None where the network runs on the host.
        workers: processes that share what a user has given; the figures are one's share.
    """

    host_bytes: int
    device_bytes: int | None = None
    workers: int = 1

    def shared(self, workers: int) -> Budget:
        """What each of so many processes may hold."""
        on_device = None if self.device_bytes is None else self.device_bytes // workers
        return Budget(self.host_bytes // workers, on_device, workers)

    @classmethod
    def of_machine(cls, device: torch.device, host_bytes: int | None = None, device_bytes: int | None = None) -> Budget:
        """What a user says, else :data:`SHARE_OF_FREE` of what is free now, besides what the process holds already."""
        if host_bytes is None:
            host_bytes = resident_bytes() + int(SHARE_OF_FREE * free_bytes())
        if device.type != "cuda":
            return cls(host_bytes)
        if device_bytes is None:
            free, _ = torch.cuda.mem_get_info(device)
            device_bytes = torch.cuda.memory_allocated(device) + int(SHARE_OF_FREE * free)
        return cls(host_bytes, device_bytes)
