"""Packages of untrained networks, small enough to be registered in no time."""

from __future__ import annotations

from pathlib import Path

import torch

from medseg import build_network
from medseg.datasets.labels import Labels
from medseg.package import ModelCard, write_package
from medseg.scans.preprocessing import Preprocessing

SPEC = {"name": "unet", "width": 2, "depth": 1, "norm": "batch", "in_channels": 1, "out_channels": 1}
TRAINING = {"dataset": "cells", "dataset_digest": "d" * 64, "seed": 3, "step": 7, "val/dice/cell": 0.75}


def write_model(folder: Path, seed: int = 0, **changes: object) -> Path:
    """An untrained model's package whose masks are neither empty nor full."""
    torch.manual_seed(seed)
    values = {
        "medseg": "0",
        "network": SPEC,
        "activation": "sigmoid",
        "labels": Labels({"background": 0, "cell": 255}).to_dict(),
        "preprocessing": Preprocessing(),
        "window": [28, 28],
        "training": TRAINING,
    }
    card = ModelCard(**{**values, **changes})
    network = build_network(card.network).eval()
    with torch.no_grad():
        logits = network(torch.randn(1, network.in_channels, *card.window))
        network.score.bias -= logits.flatten(2).median(2).values[0]
    return write_package(folder, network, card)
