"""What ``medseg plan`` expects a training step to hold, beside what it does hold.

    python benchmarks/plan_memory.py

A process for each network and shape takes a training step so that PyTorch loads what it needs, lets the peak of its
resident memory begin anew, and takes the step with another network of the kind. What is expected is counted on the meta
device (``medseg/training/step_cost.py``), in a process that never runs a network. There are two threads: with one,
PyTorch leaves small convolutions of a batch of 1 to unfolding kernels of its own. Results go to
benchmarks/results/plan_memory.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from workbench import RESULTS, account, save, watch

from medseg import build_network
from medseg.inference.process_memory import tame_heap
from medseg.networks.network import Network
from medseg.training.step_cost import count_step, step_bytes

MIB = 2**20
THREADS = 2
DYNUNET, UNET = {"name": "dynunet", "dims": 3}, {"name": "unet", "dims": 2}
PAIRS: list[tuple[dict[str, Any], list[int], int, bool]] = [
    ({**DYNUNET, "width": 16, "depth": 3}, [40, 56, 40], 2, False),
    ({**DYNUNET, "width": 16, "depth": 3}, [40, 56, 40], 2, True),
    ({**DYNUNET, "width": 8, "depth": 4, "supervised": 2}, [64, 64, 64], 2, False),
    ({**DYNUNET, "width": 8, "depth": 3, "norm": "batch"}, [80, 80, 48], 2, False),
    ({"name": "unet", "dims": 3, "width": 8, "depth": 2, "norm": "batch", "dropout": 0.0}, [84, 84, 68], 2, False),
    ({"name": "unet3d", "dims": 3, "width": 8, "depth": 2}, [76, 76, 76], 2, False),
    ({"name": "attention_unet", "dims": 3, "width": 8, "depth": 3}, [64, 64, 48], 2, False),
    ({**UNET, "width": 16, "depth": 4, "norm": "batch"}, [476, 476], 2, False),
    ({**UNET, "width": 16, "depth": 4, "norm": "batch"}, [476, 476], 2, True),
    ({**UNET, "width": 16, "depth": 4, "padding": "same", "norm": "batch"}, [384, 512], 2, False),
    ({"name": "dynunet", "dims": 2, "width": 16, "depth": 6}, [256, 256], 8, False),
    ({"name": "deeplab_v3plus", "dims": 2, "width": 16}, [320, 320], 4, False),
]
"""Spec, window, batch, and whether in mixed precision."""


def network_of(spec: dict[str, Any]) -> Network:
    return build_network({**spec, "in_channels": 1, "out_channels": 3})


def measured(number: int) -> None:
    """What a process of its own measures and prints."""
    spec, window, batch, half = PAIRS[number]
    tame_heap()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        step_bytes(network_of(spec), window, 1)
        print(json.dumps({"bytes": step_bytes(network_of(spec), window, batch)}))


def row(number: int) -> dict[str, Any]:
    spec, window, batch, half = PAIRS[number]
    found = watch([sys.executable, __file__, "--one", str(number)]).json()["bytes"]
    expected = count_step(network_of(spec), window, batch, half=half).bytes
    return {
        "network": spec,
        "window": window,
        "batch": batch,
        "precision": "bf16" if half else "32",
        "expected_mib": round(expected / MIB, 1),
        "measured_mib": round(found / MIB, 1),
        "expected_by_measured": round(expected / found, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS / "plan_memory.json")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        measured(given.one)
        return
    rows = []
    for number in range(len(PAIRS)):
        rows.append(row(number))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    ratios = [found["expected_by_measured"] for found in rows]
    within = sum(0.8 <= ratio <= 1.2 for ratio in ratios)
    summary = {"least": min(ratios), "median": round(statistics.median(ratios), 3), "largest": max(ratios)}
    save(given.results, {**account(), "within_20_percent": f"{within} of {len(rows)}", **summary, "rows": rows})


if __name__ == "__main__":
    main()
