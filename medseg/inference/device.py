"""Where the network runs."""

from __future__ import annotations

import torch

from medseg.errors import ConfigError


def find_device(name: str) -> torch.device:
    """``auto`` (CUDA, then Apple's MPS, then the CPU), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        ConfigError: for another name, or a device that this machine does not have.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdigit())):
        raise ConfigError(f"device {name!r} is none of auto, cpu, cuda, cuda:N, mps")
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if int(index or 0) >= count:
        raise ConfigError(f"device {name!r} is not here: this machine has {count} of kind {kind}; use --device auto")
    return torch.device(kind, int(index or 0)) if kind == "cuda" else torch.device(kind)


def use_threads(count: int | None, workers: int = 1) -> None:
    """So many threads for the network on the CPU; None shares out what PyTorch would use."""
    torch.set_num_threads(count or max(1, torch.get_num_threads() // workers))
