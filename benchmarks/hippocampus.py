"""From a folder of files to a scored model with five commands, beside a plain loop with MONAI's DynUNet.

    python benchmarks/hippocampus.py --data FOLDER [--minutes 20] [--folder FOLDER] [--methods medseg plain] [--seed 0]

FOLDER is the Medical Segmentation Decathlon's hippocampus (imagesTr/, labelsTr/; broken cases may be there). medseg:
``check``, ``plan --minutes M``, ``train --fold 0``, ``infer``, ``evaluate``, as a user types them; nothing is set by
hand. Plain: DynUNet of widths 16 to 128, patches of 40 x 56 x 40, two at a time, AdamW at 2e-3, left-right flips, Dice
and cross-entropy, for the same minutes on the same cases, without validation. Both are scored by ``medseg evaluate`` on
the fold that neither was trained on; medseg keeps the best of its validations, which are on that fold too, so the score
of its last one stands beside. The machine is to be idle. Results are added to benchmarks/results/hippocampus.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet
from numpy.typing import NDArray
from workbench import MEDSEG, RESULTS, account, load, save

PATCH = (40, 56, 40)
CLASSES = 3
FOUND = 2
"""The exit code of ``medseg check`` where something is wrong with the data."""


def medseg(*words: str | Path, allowed: tuple[int, ...] = (0,)) -> None:
    """Runs a command as it would be typed, and shows it."""
    print("$ medseg", *words, flush=True)
    code = subprocess.run([*MEDSEG, *map(str, words)]).returncode
    if code not in allowed:
        raise SystemExit(f"medseg {words[0]} ended with {code}")


def by_commands(data: Path, minutes: float, seed: int, folder: Path) -> dict[str, Any]:
    """The five commands; the account of them, with the split in ``folder/run``."""
    config, run = folder / "plan.yaml", folder / "run"
    medseg("check", data, "-o", folder / "check", allowed=(0, FOUND))
    medseg("plan", data, "-o", config, "--minutes", f"{minutes:g}", "--overwrite")
    store = f"tracking.uri=sqlite:///{folder / 'mlflow.db'}"
    medseg("train", config, f"seed={seed}", store, "--fold", "0", "-o", run, "--overwrite")
    unseen = [data / "imagesTr" / f"{name}.nii.gz" for name in split_of(run)["validation"]]
    medseg("infer", "-m", run, *unseen, "-o", folder / "out", "--overwrite")
    with (run / "metrics.csv").open(newline="") as stream:
        validated = [row for row in csv.DictReader(stream) if row["val/dice_mean"]]
    return {
        **scores_of(folder / "out", data, folder / "scores"),
        "steps": int(validated[-1]["step"]),
        "dice_of_last_validation": round(float(validated[-1]["val/dice_mean"]), 4),
        "best_of": len(validated),
    }


def split_of(run: Path) -> dict[str, Any]:
    """The names of the cases that a run was trained and validated on."""
    return dict(json.loads((run / "split.json").read_text()))


def scores_of(out: Path, data: Path, report: Path) -> dict[str, Any]:
    """Masks against the references, by ``medseg evaluate``."""
    medseg("evaluate", "--predictions", out, "--references", data / "labelsTr", "-o", report, "--predicted-only")
    with (report / "metrics.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["dice"]]
    labels = sorted({row["label"] for row in rows})
    dice = {name: float(np.mean([float(row["dice"]) for row in rows if row["label"] == name])) for name in labels}
    return {
        "dice": round(float(np.mean(list(dice.values()))), 4),
        "dice_of_labels": {name: round(value, 4) for name, value in dice.items()},
        "cases": len({row["case"] for row in rows}),
    }


def plain(data: Path, minutes: float, seed: int, folder: Path) -> dict[str, Any]:
    """The plain loop on the cases of the commands' run, and its masks."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    split = split_of(folder / "run")
    cases = [patch_of(data, name) for name in split["train"]]
    network = DynUNet(3, 1, CLASSES, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[16, 32, 64, 128])
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    criterion = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    steps, end = 0, time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        chosen = [flipped(*draw.choice(cases), draw) for _ in range(2)]
        images, labels = (torch.stack(part) for part in zip(*chosen, strict=True))
        optimiser.zero_grad()
        criterion(network(images), labels).backward()
        optimiser.step()
        steps += 1
    out = folder / "plain"
    out.mkdir(exist_ok=True)
    network.eval()
    for name in split["validation"]:
        write_mask(network, data, name, out)
    return {**scores_of(out, data, folder / "plain-scores"), "steps": steps}


def read(data: Path, name: str) -> tuple[NDArray[np.float32], Any]:
    """An image as z-scores, and its file."""
    file = nib.load(data / "imagesTr" / f"{name}.nii.gz")
    image = np.asarray(file.dataobj, np.float32)
    return (image - image.mean()) / image.std(), file


def patch_of(data: Path, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A case's image and label, (1, *PATCH) each: the middle, with zeros around it where it is smaller."""
    image, _ = read(data, name)
    label = np.asarray(nib.load(data / "labelsTr" / f"{name}.nii.gz").dataobj).astype(np.int64)
    return fitted(torch.from_numpy(image)), fitted(torch.from_numpy(label))


def fitted(values: torch.Tensor) -> torch.Tensor:
    """(X, Y, Z) → (1, *PATCH), cut or padded on both sides."""
    for axis, size in enumerate(PATCH):
        less = max(values.shape[axis] - size, 0)
        values = values.narrow(axis, less // 2, values.shape[axis] - less)
        more = size - values.shape[axis]
        ends = [0] * 6
        ends[2 * (2 - axis)], ends[2 * (2 - axis) + 1] = more // 2, more - more // 2
        values = torch.nn.functional.pad(values, ends)
    return values[None]


def flipped(image: torch.Tensor, label: torch.Tensor, draw: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Half of the samples with left and right exchanged."""
    return (image.flip(1), label.flip(1)) if draw.random() < 0.5 else (image, label)


def write_mask(network: torch.nn.Module, data: Path, name: str, out: Path) -> None:
    """Segments a scan by MONAI's sliding windows."""
    image, file = read(data, name)
    with torch.inference_mode():
        logits = sliding_window_inference(torch.from_numpy(image)[None, None], PATCH, 1, network, 0.5, "gaussian")
    mask = logits.argmax(1)[0].numpy().astype(np.uint8)
    nib.save(nib.Nifti1Image(mask, file.affine), out / f"{name}.nii.gz")


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="kept; the plain loop takes its split from the commands' run there")
    parser.add_argument("--methods", nargs="+", choices=["medseg", "plain"], default=["medseg", "plain"])
    parser.add_argument("--results", type=Path, default=RESULTS / "hippocampus.json")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    methods = {"medseg": by_commands, "plain": plain}
    for name in given.methods:
        result = methods[name](given.data, given.minutes, given.seed, folder)
        row = {"minutes": given.minutes, "seed": given.seed, **result, **account()}
        row["command"] = row["command"].replace(str(given.data), "FOLDER")
        save(given.results, {**load(given.results), name: row})


if __name__ == "__main__":
    main()
