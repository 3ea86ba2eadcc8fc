"""ISBI 2012 membranes, ten minutes on two cores: medseg beside a plain PyTorch loop and MONAI's BasicUNet.

    python benchmarks/isbi_em.py --data FOLDER [--minutes 10] [--seeds 0 1 2] [--methods medseg plain basicunet]

Each run is a process of its own on an otherwise idle machine. All train on slices 00-04 and 15-19 and are scored on
05-09 and 20-24 by the same code: membrane Dice (mean of the slices), pixel error, and foreground-restricted Rand
(scikit-image). medseg keeps the best of its five validations, which are on the same slices; its last step's Dice stands
beside. The plain loop has the same network, data, loss, AdamW and time; it takes flips and rotations by 90° and a
constant rate. Where the machine is not idle, ``--steps`` bounds the plain loops instead, by the steps that they make in
the time where it is (a minute of it, with ``--minutes 1``, tells).
Results are added to benchmarks/results/isbi_em.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

RESULTS = Path(__file__).parent / "results" / "isbi_em.json"
TRAIN = ["00", "01", "02", "03", "04", "15", "16", "17", "18", "19"]
UNSEEN = ["05", "06", "07", "08", "09", "20", "21", "22", "23", "24"]
NETWORK = {"name": "unet", "dims": 2, "depth": 4, "width": 16, "padding": "valid", "norm": "batch", "dropout": 0.2}
PATCH = {"plain": 196, "basicunet": 256}


@dataclass(frozen=True)
class Limit:
    """What a training may take: minutes, or so many steps of a plain loop."""

    minutes: float
    steps: int | None = None


def load(data: Path, names: list[str]) -> tuple[list[NDArray], list[NDArray]]:
    """Images as z-scores, membranes as 0 and 1."""
    images = [np.asarray(Image.open(data / "images" / f"{n}.png"), np.float32) for n in names]
    labels = [np.asarray(Image.open(data / "labels" / f"{n}.png")) == 0 for n in names]
    return [(i - i.mean()) / i.std() for i in images], [m.astype(np.float32) for m in labels]


def patches(
    images: list[NDArray], labels: list[NDArray], halo: int, core: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Random patches with their mirrored border, flipped and turned by quarters."""
    rng = np.random.default_rng(seed)
    padded = [np.pad(image, halo, mode="reflect") for image in images]
    while True:
        xs, ys = [], []
        for _ in range(2):
            k = rng.integers(len(images))
            i, j = rng.integers(512 - core + 1, size=2)
            x = padded[k][i : i + core + 2 * halo, j : j + core + 2 * halo]
            y = labels[k][i : i + core, j : j + core]
            turns, flip = rng.integers(4), rng.integers(2)
            x, y = np.rot90(x, turns), np.rot90(y, turns)
            xs.append(x[:, ::-1] if flip else x)
            ys.append(y[:, ::-1] if flip else y)
        yield torch.from_numpy(np.stack(xs)[:, None].copy()), torch.from_numpy(np.stack(ys)[:, None].copy())


def dice_bce(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    p = logits.sigmoid()
    dice = 1 - (2 * (p * y).sum() + 1e-5) / (p.sum() + y.sum() + 1e-5)
    return nn.functional.binary_cross_entropy_with_logits(logits, y) + dice


def train_plain(network: nn.Module, data: Path, halo: int, core: int, seed: int, limit: Limit) -> int:
    """A plain loop: AdamW at a constant 1e-3 until the time is over, or the steps are made."""
    images, labels = load(data, TRAIN)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4)
    network.train()
    end, steps = time.monotonic() + limit.minutes * 60, 0
    for x, y in patches(images, labels, halo, core, seed):
        optimiser.zero_grad(set_to_none=True)
        dice_bce(network(x), y).backward()
        optimiser.step()
        steps += 1
        if time.monotonic() >= end if limit.steps is None else steps == limit.steps:
            return steps
    return steps


def plain(data: Path, seed: int, limit: Limit) -> tuple[list[NDArray], dict]:
    from medseg import build_network

    torch.manual_seed(seed)
    network = build_network({**NETWORK, "in_channels": 1, "out_channels": 1})
    steps = train_plain(network, data, 92, PATCH["plain"], seed, limit)
    network.eval()

    def predict(image: NDArray) -> NDArray:
        x = np.pad(image, ((92, 96), (92, 96)), mode="reflect")[None, None]
        return network(torch.from_numpy(x))[0, 0, :512, :512].numpy() >= 0

    return _predict(data, predict), {"steps": steps, "parameters": _parameters(network)}


def basicunet(data: Path, seed: int, limit: Limit) -> tuple[list[NDArray], dict]:
    from monai.inferers import sliding_window_inference
    from monai.networks.nets import BasicUNet

    torch.manual_seed(seed)
    network = BasicUNet(spatial_dims=2, out_channels=1, features=(16, 32, 64, 128, 256, 16))
    steps = train_plain(network, data, 0, PATCH["basicunet"], seed, limit)
    network.eval()

    def predict(image: NDArray) -> NDArray:
        x = torch.from_numpy(image)[None, None]
        return sliding_window_inference(x, (256, 256), 4, network, 0.5, mode="gaussian")[0, 0].numpy() >= 0

    return _predict(data, predict), {"steps": steps, "parameters": _parameters(network)}


def medseg(data: Path, seed: int, limit: Limit) -> tuple[list[NDArray], dict]:
    """From the command line, as a user would."""
    with tempfile.TemporaryDirectory() as scratch:
        run, out = Path(scratch, "run"), Path(scratch, "out")
        config = Path(__file__).parents[1] / "configs" / "isbi_em.yaml"
        keys = [f"data.root={data}", f"seed={seed}", f"training.max_minutes={limit.minutes}"]
        keys.append(f"tracking.uri=sqlite:///{scratch}/mlflow.db")
        command = [sys.executable, "-m", "medseg"]
        subprocess.run([*command, "train", str(config), *keys, "-o", str(run)], check=True)
        scans = [str(data / "images" / f"{n}.png") for n in UNSEEN]
        subprocess.run([*command, "infer", "--tile-overlap", "-m", str(run), *scans, "-o", str(out)], check=True)
        masks = [np.asarray(Image.open(out / f"{n}.png")) == 0 for n in UNSEEN]
        *_, last = (run / "metrics.csv").read_text().splitlines()
        card = json.loads((run / "model" / "model.json").read_text())
        details = {"steps": int(last.split(",")[0]), "best_step": card["training"]["step"]}
        return masks, {**details, "dice_of_last_step": float(last.split(",")[-1])}


METHODS: dict[str, Callable[[Path, int, Limit], tuple[list[NDArray], dict]]] = {
    "medseg": medseg,
    "plain": plain,
    "basicunet": basicunet,
}


def _predict(data: Path, predict: Callable[[NDArray], NDArray]) -> list[NDArray]:
    images, _ = load(data, UNSEEN)
    with torch.inference_mode():
        return [predict(image) for image in images]


def _parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def score(masks: list[NDArray], data: Path) -> dict[str, float]:
    """Means over the slices."""
    _, labels = load(data, UNSEEN)
    truths = [label > 0 for label in labels]
    pairs = list(zip(masks, truths, strict=True))
    return {
        "dice": float(np.mean([2 * (m & t).sum() / (m.sum() + t.sum()) for m, t in pairs])),
        "pixel_error": float(np.mean([(m != t).mean() for m, t in pairs])),
        "foreground_rand": float(np.mean([foreground_rand(m, t) for m, t in pairs])),
    }


def foreground_rand(prediction: NDArray, reference: NDArray) -> float:
    """scikit-image's adapted Rand of what lies between membranes; what is predicted as membrane is one segment more.

    The challenge's own V-Rand, where each such pixel is a segment of its own, is ``v_rand`` of ``medseg evaluate``.
    """
    from skimage.measure import label
    from skimage.metrics import adapted_rand_error

    truth, test = (label(~mask, connectivity=1) for mask in (reference, prediction))
    return 1 - float(adapted_rand_error(truth, test, ignore_labels=(0,))[0])


def add(row: dict) -> None:
    """Adds one run to the results, in place of an earlier one of the same method, seed and minutes."""
    rows = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else []
    same = ("method", "seed", "minutes")
    rows = [r for r in rows if any(r[k] != row[k] for k in same)] + [row]
    content = {"command": "python benchmarks/isbi_em.py --data FOLDER", "runs": rows, "median": _medians(rows)}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


def _medians(rows: list[dict]) -> dict:
    figures = ("dice", "pixel_error", "foreground_rand")
    medians = {}
    for method in METHODS:
        own = [r for r in rows if r["method"] == method]
        if own:
            medians[method] = {k: round(statistics.median(r[k] for r in own), 4) for k in figures} | {"runs": len(own)}
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--steps", type=int, default=None, help="of the plain loops, in place of the minutes")
    parser.add_argument("--one", action="store_true", help="run one method and seed in this process")
    given = parser.parse_args()
    if given.steps is not None and not set(given.methods) <= {"plain", "basicunet"}:
        parser.error("--steps is for the plain loops: add --methods plain, or basicunet")
    if not given.one:
        for seed in given.seeds:
            for method in given.methods:
                one = ["--data", str(given.data), "--minutes", str(given.minutes), "--seeds", str(seed)]
                command = [sys.executable, __file__, "--one", "--methods", method, *one]
                subprocess.run([*command, *([] if given.steps is None else ["--steps", str(given.steps)])], check=True)
        print(json.dumps(json.loads(RESULTS.read_text())["median"], indent=1))
        return
    torch.set_num_threads(2)
    method, seed = given.methods[0], given.seeds[0]
    masks, details = METHODS[method](given.data, seed, Limit(given.minutes, given.steps))
    row = {"method": method, "seed": seed, "minutes": given.minutes, **score(masks, given.data), **details}
    print(json.dumps(row))
    add(row | {"date": time.strftime("%Y-%m-%d"), "torch": torch.__version__})


if __name__ == "__main__":
    main()
