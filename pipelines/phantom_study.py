"""The main job on the built-in phantom, as a user would type it: train, segment a large scan, evaluate.

    python pipelines/phantom_study.py [--folder demo]

It leaves the run, a 2048 x 2048 phantom that the model has not seen, its mask, the metrics, and a picture there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

CONFIG = Path(__file__).parents[1] / "configs" / "unet_valid.yaml"
SIDE = 2048
UNSEEN_SEED = 1000


def medseg(*arguments: str | Path) -> str:
    """Runs one command line, shown as it would be typed; returns its stdout."""
    words = [str(a) for a in arguments]
    print("$ medseg", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", "medseg", *words], stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def picture(large: Path, out: Path, path: Path) -> None:
    """The middle of the large scan: image, reference, prediction, errors."""
    from medseg import Box, open_scan
    from medseg.datasets.layouts import read_dataset
    from medseg.tracking.pictures import overlay

    info = read_dataset(large)
    assert info is not None
    labels = info.label_map
    image = next((large / "images").iterdir())
    middle = Box((SIDE // 2 - 256,) * 2, (SIDE // 2 + 256,) * 2)
    reference = labels.read(open_scan(large / "labels" / image.name), middle)
    prediction = labels.read(open_scan(out / image.name), middle)
    overlay(open_scan(image).read(middle), reference, prediction).save(path)


def main() -> None:
    """Trains, segments and evaluates; prints the Dice on the unseen scan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("demo"))
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="laid over the config")
    given = parser.parse_args()
    begun = time.monotonic()
    folder: Path = given.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run, large, out = folder / "run", folder / "large", folder / "out"
    keys = [f"data.root={folder / 'phantom'}", f"tracking.uri=sqlite:///{folder / 'mlflow.db'}", *given.overrides]
    medseg("train", CONFIG, *keys, "-o", run)
    medseg("phantom", "cells2d", "-o", large, "--cases", "1", "--size", str(SIDE), "--seed", str(UNSEEN_SEED))
    medseg("infer", "--tile-overlap", "-m", run, large / "images", "-o", out)
    medseg("evaluate", "--predictions", out, "--references", large / "labels", "-o", folder / "report")
    picture(large, out, folder / "overlay.png")
    report = json.loads((folder / "report" / "metrics.json").read_text())
    print(json.dumps(report["summary"], indent=1))
    print(f"{time.monotonic() - begun:.0f} s; the picture is {folder / 'overlay.png'}")


if __name__ == "__main__":
    main()
