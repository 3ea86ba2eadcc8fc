"""``last.ckpt``: all that a run needs to go on, written whole or not at all, and read without running code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from medseg.errors import PackageError
from medseg.files import partial_of
from medseg.networks.network import Network
from medseg.package import check_shapes

PREFIX = "network."


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    """Lightning's checkpoint of this step, beside and renamed."""
    beside = partial_of(path)
    trainer.save_checkpoint(beside)
    os.replace(beside, path)


def read_checkpoint(path: Path, network: Network) -> dict[str, Any]:
    """A checkpoint's content, after making sure that it is one of this network's.

    Raises:
        PackageError: for a pickle that holds more than tensors and plain values, a damaged file, or other shapes.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise PackageError(
            f"{path} holds more than tensors and plain values, so it is not medseg's checkpoint; it was not loaded"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, IndexError):
        raise PackageError(f"{path} is damaged or no checkpoint: start the run again without --resume") from None
    weights = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or "global_step" not in content:
        raise PackageError(f"{path} is no checkpoint of medseg train: it holds no weights or no step")
    own = {k.removeprefix(PREFIX): v for k, v in weights.items() if k.startswith(PREFIX)}
    check_shapes(path, own, network)
    return content
