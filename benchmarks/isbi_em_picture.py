"""The README's picture of ISBI 2012: what a model says of an unseen slice, and where it errs.

    medseg train configs/isbi_em.yaml data.root=FOLDER
    python benchmarks/isbi_em_picture.py --data FOLDER --run runs/THAT_RUN [--slice 05] [-o docs/pictures/isbi_em.png]

The data set's own images may not be shown, so the picture has the prediction and the errors alone, at half size: orange
is membrane that the reference does not have, blue is membrane that the model does not see.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medseg.tracking.pictures import ERRORS

DEFAULT = Path(__file__).parents[1] / "docs" / "pictures" / "isbi_em.png"
MARGIN = 8
PAPER = 255
CELL = (238, 238, 238)
MEMBRANE = (40, 40, 40)


def half(colours: NDArray[np.uint8]) -> Image.Image:
    """A picture at half its size, averaged."""
    whole = Image.fromarray(colours)
    return whole.resize((whole.width // 2, whole.height // 2), Image.Resampling.BOX)


def panels(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> list[Image.Image]:
    """The prediction, and the errors of it; (H, W) each, True where there is membrane."""
    said = np.where(prediction[..., None], np.uint8(MEMBRANE), np.uint8(CELL))
    wrong = np.full((*prediction.shape, 3), PAPER, np.uint8)
    wrong[prediction & ~reference] = ERRORS["false positive"]
    wrong[~prediction & reference] = ERRORS["false negative"]
    return [half(said), half(wrong)]


def main() -> None:
    """Writes the picture and prints the slice's Dice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="a run's folder, with its masks in validation/")
    parser.add_argument("--slice", default="05")
    parser.add_argument("-o", "--output", type=Path, default=DEFAULT)
    given = parser.parse_args()
    files = [given.run / "validation" / f"{given.slice}.png", given.data / "labels" / f"{given.slice}.png"]
    prediction, reference = (np.asarray(Image.open(file)) == 0 for file in files)
    shown = panels(prediction, reference)
    sheet = Image.new("RGB", (sum(p.width for p in shown) + MARGIN, shown[0].height), (PAPER,) * 3)
    left = 0
    for panel in shown:
        sheet.paste(panel, (left, 0))
        left += panel.width + MARGIN
    sheet.save(given.output, optimize=True)
    dice = 2 * np.sum(prediction & reference) / (np.sum(prediction) + np.sum(reference))
    print(f"{given.output}: slice {given.slice}, membrane Dice {dice:.3f}")


if __name__ == "__main__":
    main()
