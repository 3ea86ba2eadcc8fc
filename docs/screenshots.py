"""Makes the pictures of docs/tracking.md: ``medseg ui`` in a headless Chromium, on runs of the built-in phantom.

    python docs/screenshots.py [--folder FOLDER]

The phantom, the runs and their store are made in the folder where it has none yet; a later call only looks at them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "tracking"))

from chromium import browser  # noqa: E402
from mlflow_pages import PICTURES, Pages  # noqa: E402

from medseg.tracking import Store  # noqa: E402

IMAGES = ROOT / "docs" / "images"
SIZE = (1600, 800)
MOST_BYTES = 150_000
COLOURS = (256, 128, 64, 32)

PATH = "[...document.querySelectorAll('div, span')].filter((part) => part.innerText?.startsWith('Path: file:'))"
"""Where the machine that the pictures are made on keeps a file, which is nobody's business."""

CONFIG = """
name: organs
data:
  phantom: {kind: organs3d, cases: 6, size: [64, 64, 32], seed: 0}
  validation: 0.5
preprocessing: {orientation: RAS, normalize: {kind: range, range: [-200, 300]}}
network: {name: dynunet, dims: 3, width: 8, depth: 3}
loss: {name: dice_bce}
training: {window: [32], batch: 2, max_steps: 400, learning_rate: 5.0e-3, validations: 8, workers: 0}
tracking: {pictures: 3}
"""
RUNS = {"width-8": [], "width-4": ["network.width=4"]}
"""The runs by name, and the keys of each."""


def train(folder: Path) -> None:
    """Trains the runs that the folder lacks."""
    config = folder / "organs.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    for name, keys in RUNS.items():
        if not (folder / name / "model").exists():
            _medseg(folder, "train", config.name, "data.root=phantom", *keys, "-o", name).check_returncode()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address that ``medseg ui`` prints."""
    command = [sys.executable, "-m", "medseg", "ui", "--store", "sqlite:///mlflow.db"]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()


def look(pages: Pages, run: str) -> None:
    """Goes through the pages, with a picture of each."""
    _picture(pages, "table")
    pages.open_charts()
    _picture(pages, "charts")
    pages.open_description(run)
    _picture(pages, "description")
    pages.browser.run(f"{PICTURES}.find((image) => image.src.includes('cases~worst')).scrollIntoView()")
    _picture(pages, "overlays")
    pages.open_pictures(run, "overlay")
    pages.slide_to_the_last()
    _picture(pages, "grid")
    pages.open_report(run)
    for key in ("ArrowUp", "ArrowUp", "e"):
        pages.browser.key(key)
    pages.browser.run(f"{PATH}.forEach((part) => part.style.visibility = 'hidden')")
    _picture(pages, "report")


def small(path: Path) -> None:
    """Writes a PNG anew with as many colours as keep it small."""
    whole = Image.open(path).convert("RGB")
    for colours in COLOURS:
        whole.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            return
    raise SystemExit(f"{path} has {path.stat().st_size} bytes")


def _picture(pages: Pages, name: str) -> None:
    path = IMAGES / f"ui-{name}.png"
    pages.browser.picture(path)
    small(path)
    print(path, path.stat().st_size)


def _medseg(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "medseg", *words, "tracking.uri=sqlite:///mlflow.db"], cwd=folder)


def _first_run(folder: Path) -> str:
    client = Store.resolve("sqlite:///mlflow.db", folder).client()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return str(client.search_runs(experiments, order_by=["attributes.start_time ASC"])[0].info.run_id)


def main() -> None:
    """Trains where needed, and takes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "medseg-screenshots")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    IMAGES.mkdir(exist_ok=True)
    train(folder)
    run = _first_run(folder)
    with served(folder) as address, tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as opened:
        look(Pages(opened, address, *SIZE), run)


if __name__ == "__main__":
    main()
