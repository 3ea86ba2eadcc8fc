"""Overlap tiles against MONAI's sliding window on one large image in memory, in 2D and 3D.

    python benchmarks/overlap_tile.py --dims 2 [--side 3072] [--threads 2] [--device cpu]
    python benchmarks/overlap_tile.py --dims 3 [--side 384]

Ours: ``segment`` with a network of valid convolutions and the tiles of ``choose_plan``, from array to labels; planning
stands beside (the first in a process takes two seconds more, to load what counts a network's memory). In 2D the U-Net
of depth 4 and width 16, in 3D Çiçek's of width 8. MONAI's: ``sliding_window_inference`` (Gaussian, sw_batch_size 4, roi
512 or 96) with the padded twin, then arg-max, as its users run it, and tuned: channels-last, and its default overlap of
0.25. Every figure is a ratio of voxels per second in one run on an otherwise idle machine.

The image is a phantom (cells, organs), and each network is trained before on boxes of another one, both for as many
steps, so that each result has its Dice (membranes; organs, all as one) on the same image. The twins are trained each in
its own way: valid on windows with their surroundings, padded on windows of about as many labelled voxels, 256 in 2D and
96 in 3D. --steps 0 leaves training and Dice out. Results go to benchmarks/results/overlap_tile.json, a part for each
number of axes. Small: --dims 2 --side 600 --steps 2 --results /tmp/overlap.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor, nn
from workbench import RESULTS, account, load, save

from medseg import Box, Tiling, build_network, create_mask, open_scan, segment
from medseg.datasets.phantom import phantom_case
from medseg.inference.budget import Budget
from medseg.inference.plan import choose_plan
from medseg.inference.segment import CHANNELS_LAST, Pace, prepare
from medseg.networks.network import Network
from medseg.scans.blocks import boxes


@dataclass(frozen=True)
class Task:
    """What is segmented, and by which twins.

    Attributes:
        network: the spec but for its padding.
        side: of the image, where nobody says.
        roi: MONAI's window.
        phantom: its kind.
        window: what the valid network is trained on.
        padded_window: what the padded one is trained on.
        batch: of training.
        boxes: of the phantom that is trained on.
        block: what is rendered at once.
    """

    network: dict[str, Any]
    side: int
    roi: int
    phantom: str
    window: int
    padded_window: int
    batch: int
    boxes: int
    block: int

    @property
    def dims(self) -> int:
        """Spatial axes."""
        return int(self.network["dims"])

    def build(self, padding: str) -> Network:
        """One of the twins, with the weights of its initialisation."""
        torch.manual_seed(0)
        return build_network({**self.network, "padding": padding, "in_channels": 1, "out_channels": 2})


UNET_2D = {"name": "unet", "dims": 2, "depth": 4, "width": 16, "norm": "batch", "dropout": 0.0}
UNET_3D = {"name": "unet3d", "dims": 3, "depth": 3, "width": 8}
TASKS = {
    2: Task(UNET_2D, 3072, 512, "cells2d", 412, 256, 2, 16, 1024),
    3: Task(UNET_3D, 384, 96, "organs3d", 164, 96, 1, 6, 128),
}


@dataclass(frozen=True)
class Scene:
    """An image, its truth, and boxes of another one to train on, scaled by one mean and one SD.

    Attributes:
        image: (1, \\*n) float32.
        truth: (\\*n) bool.
        pool: pairs of (1, \\*window) float32 and (\\*window) bool.
    """

    image: NDArray
    truth: NDArray
    pool: list[tuple[Tensor, Tensor]]


def make_scene(task: Task, side: int) -> Scene:
    shape = (side,) * task.dims
    unseen, seen = (phantom_case(task.phantom, shape, 0, number).scene for number in (0, 1))
    rng = np.random.default_rng(0)
    starts = rng.integers(max(side - task.window, 0) + 1, size=(task.boxes, task.dims))
    drawn = [seen.render(Box.of((task.window,) * task.dims).shift(start)) for start in starts.tolist()]
    mean, sd = np.mean([image.mean() for image, _ in drawn]), np.mean([image.std() for image, _ in drawn])
    pool = [
        (torch.from_numpy((image[None] - mean) / sd).float(), torch.from_numpy(label != 0)) for image, label in drawn
    ]
    image, truth = np.empty((1, *shape), np.float32), np.empty(shape, bool)
    for box in boxes(shape, (task.block,) * task.dims):
        voxels, label = unseen.render(box)
        image[(0, *box.slices)], truth[box.slices] = (voxels - mean) / sd, label != 0
    return Scene(image, truth, pool)


def batches(task: Task, scene: Scene, window: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Random windows of the pool's boxes, flipped at random."""
    rng = np.random.default_rng(0)
    while True:
        images, labels = [], []
        for _ in range(task.batch):
            image, label = scene.pool[rng.integers(task.boxes)]
            corner = [int(rng.integers(task.window - window + 1)) for _ in range(task.dims)]
            slices = tuple(slice(i, i + window) for i in corner)
            flips = [axis for axis in range(task.dims) if rng.integers(2)]
            images.append(image[(0, *slices)].flip(flips)[None])
            labels.append(label[slices].flip(flips).long())
        yield torch.stack(images), torch.stack(labels)


def trained(task: Task, scene: Scene, padding: str, steps: int, device: torch.device) -> Network:
    """A twin after so many steps of AdamW with cross-entropy and Dice loss."""
    network = prepare(task.build(padding), device).train()
    window = task.window if padding == "valid" else task.padded_window
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    loss_of = nn.CrossEntropyLoss()
    lost = [f.trim // 2 for f in network.fields]
    for _, (x, y) in zip(range(steps), batches(task, scene, window), strict=False):
        answered = (slice(None), *(slice(t, window - t) for t in lost))
        logits, wanted = network(x.to(device)), y[answered].to(device)
        share = logits.softmax(1)[:, 1]
        overlap = 2 * (share * wanted).sum() / (share.sum() + wanted.sum() + 1)
        optimiser.zero_grad()
        (loss_of(logits, wanted) + 1 - overlap).backward()
        optimiser.step()
    return network.eval()


def dice(labels: NDArray, truth: NDArray) -> float:
    return float(2 * (labels.astype(bool) & truth).sum() / (labels.astype(bool).sum() + truth.sum()))


def ours(image: NDArray, network: Network, window: int | None) -> tuple[float, NDArray, dict[str, Any]]:
    """Seconds, labels, and what was chosen."""
    scan = open_scan(image)
    corner = open_scan(image[(slice(None), *[slice(64)] * network.dims)])
    segment(corner, network, Tiling(corner.shape, corner.shape, network.footprint), create_mask(None, corner))
    begun = time.perf_counter()
    budget = Budget.of_machine(next(network.parameters()).device)
    plan = choose_plan(scan, network, budget, window=(window,) if window else None)
    planning = {"planning_seconds": round(time.perf_counter() - begun, 2)}
    begun = time.perf_counter()
    sink = create_mask(None, scan)
    pace = Pace(plan.batch, plan.ahead, plan.beam)
    progress = segment(scan, network, plan.tiling(scan, network), sink, pace=pace)
    seconds = time.perf_counter() - begun
    about = {"window": plan.window, "core": plan.core, "tiles": plan.tiles, "batch": plan.batch}
    share = {"forward_share": round(progress.network.seconds / seconds, 4)}
    return seconds, sink.array, about | share | planning


def monai(image: NDArray, network: Network, roi: int, overlap: float, channels_last: bool) -> tuple[float, NDArray]:
    """Seconds and labels."""
    device = next(network.parameters()).device
    layout = CHANNELS_LAST[network.dims] if channels_last else torch.contiguous_format
    network = network.to(memory_format=layout)
    begun = time.perf_counter()
    x = torch.from_numpy(image)[None].contiguous(memory_format=layout).to(device)
    with torch.inference_mode():
        found = sliding_window_inference(x, (roi,) * network.dims, 4, network, overlap=overlap, mode="gaussian")
        labels = found.argmax(1).to(torch.uint8).cpu().numpy()[0]
    return time.perf_counter() - begun, labels


def compare(task: Task, side: int, given: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    scene = make_scene(task, side)
    valid, padded = (trained(task, scene, padding, given.steps, device) for padding in ("valid", "same"))

    def row(seconds: float, labels: NDArray) -> dict[str, Any]:
        quality = {"dice": round(dice(labels, scene.truth), 4)} if given.steps else {}
        return {"megavoxels_per_second": side**task.dims / seconds / 1e6, **quality}

    first, labels, about = ours(scene.image, valid, given.window)
    rows = {}
    for overlap in (0.5, 0.25):
        for channels_last in (False, True):
            seconds, theirs = monai(scene.image, padded, task.roi, overlap, channels_last)
            name = f"monai overlap {overlap}" + (" channels-last" if channels_last else "")
            rows[name] = {"seconds": round(seconds, 2), **row(seconds, theirs)}
    second, labels, about = ours(scene.image, valid, given.window)
    own = min(first, second)
    for found in rows.values():
        found["ours_is_faster_by"] = round(found["seconds"] / own, 2)
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {given.threads} threads",
        "side": side,
        "network": task.network,
        "training_steps": given.steps,
        "ours": {"seconds": [round(first, 2), round(second, 2)], **row(own, labels), **about},
        "monai": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, choices=TASKS, default=2)
    parser.add_argument("--side", type=int, help="default: 3072 in 2D, 384 in 3D")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--window", type=int, help="ours; the default is what medseg infer would choose")
    parser.add_argument("--steps", type=int, default=200, help="of training each network; 0: none, and no Dice")
    parser.add_argument("--results", type=Path, default=RESULTS / "overlap_tile.json")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    task = TASKS[given.dims]
    before = load(given.results)
    result = {key: before[key] for key in ("2d", "3d") if key in before}
    result[f"{given.dims}d"] = account() | compare(task, given.side or task.side, given, torch.device(given.device))
    save(given.results, result)


if __name__ == "__main__":
    main()
