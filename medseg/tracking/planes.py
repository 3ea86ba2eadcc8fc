"""One case as one picture, for where there is no viewer: image, outlines and errors, in each of its planes.

    axial      image   outlines   errors
    coronal    image   outlines   errors        a case of two axes has one row
    sagittal   image   outlines   errors

The planes go through the part's focus, where most is wrong, and have the aspect that the voxels have.
Legend: (z, y, x) the displayed axes; H, W rows and columns of a panel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from medseg.tracking.html.parts import Grey, Part
from medseg.tracking.html.shown import ShownCase
from medseg.tracking.pictures import ERRORS, errors, panel_size, resized

ROWS = (("axial", "xy", 0), ("coronal", "xz", 1), ("sagittal", "yz", 2))
"""What a plane is called in patients and in other volumes, and the axis that it is at one place of."""
OUTLINES = {"reference": ERRORS["false negative"], "prediction": ERRORS["false positive"]}
COLUMNS = ("image", "outlines", "errors")
MARGIN = 4
CAPTION = 18
LEAST_WIDTH = 130
"""Of a column, so that captions do not run into each other."""
PAPER, INK = (255, 255, 255), (0, 0, 0)


def case_picture(shown: ShownCase, ignored: int) -> Image.Image:
    """A picture of the last part of a case, the one that shows errors at full resolution.

    Args:
        shown: the case.
        ignored: the class of voxels that don't count.

    Returns:
        RGB.
    """
    part = shown.parts[-1]
    axes = (0,) if part.reference.shape[0] == 1 else (0, 1, 2)
    rows = [_panels(part, axis, shown.anatomical, ignored) for axis in axes]
    names = [ROWS[axis][0 if shown.anatomical else 1] for axis in axes] if len(axes) > 1 else [""]
    places = part.focus()
    captions = [
        f"{name} {places[axis] * part.step[axis] + part.offset[axis]}" * bool(name)
        for name, axis in zip(names, axes, strict=True)
    ]
    title = f"{shown.ranked.name}: {shown.ranked.word}, mean {shown.ranked.score:.3f}"
    title += ", no prediction" * (part.prediction is None) + f", {part.title}" * (len(shown.parts) > 1)
    return _grid(rows, captions, title)


def _panels(part: Part, axis: int, anatomical: bool, ignored: int) -> list[NDArray]:
    """The three panels (H, W, 3) of one plane."""
    place = part.focus()[axis]
    up = anatomical and axis > 0
    masks = [part.reference, part.reference if part.prediction is None else part.prediction]
    truth, found = (_cut(np.where(mask == ignored, 0, mask), axis, place, up) for mask in masks)
    size = panel_size(truth.shape, [mm for a, mm in enumerate(part.spacing) if a != axis])
    base = np.asarray(
        Image.fromarray(_grey(part.image, truth.shape, axis, place, up)).resize(size, Image.Resampling.BILINEAR)
    )
    truth, found = resized(truth, size), resized(found, size)
    outlined = base.copy()
    outlined[outline(truth)] = OUTLINES["reference"]
    if part.prediction is not None:
        outlined[outline(found)] = OUTLINES["prediction"]
    return [base, outlined, errors(base, truth, found)]


def outline(classes: NDArray) -> NDArray[np.bool_]:
    """(H, W): the pixels of a label that touch another one, or background, above, below or beside them."""
    framed = np.pad(classes, 1, mode="edge")
    middle = framed[1:-1, 1:-1]
    neighbours = (framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:])
    return np.asarray((middle > 0) & np.any([middle != other for other in neighbours], axis=0))


def _cut(volume: NDArray, axis: int, place: int, up: bool) -> NDArray:
    """(z, y, x) → (H, W), with the head above."""
    plane = volume.take(place, axis)
    return plane[::-1] if up else plane


def _grey(image: Grey | None, shape: tuple[int, ...], axis: int, place: int, up: bool) -> NDArray[np.uint8]:
    """(H, W, 3) of the image in its window; black without an image."""
    if image is None:
        return np.zeros((*shape, 3), np.uint8)
    low, high = image.window
    codes = np.stack([_cut(channel, axis, place, up) for channel in image.codes], -1)
    grey = np.clip((image.low + image.step * codes - low) / (high - low), 0, 1)
    return np.ascontiguousarray(np.broadcast_to((255 * grey).round().astype(np.uint8), (*shape, 3)))


def _grid(rows: list[list[NDArray]], captions: list[str], title: str) -> Image.Image:
    widths = [max(LEAST_WIDTH, *(row[c].shape[1] for row in rows)) + MARGIN for c in range(len(COLUMNS))]
    heights = [row[0].shape[0] + CAPTION for row in rows]
    picture = Image.new("RGB", (sum(widths), sum(heights) + 2 * CAPTION), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.font = ImageFont.load_default(12)
    draw.text((0, 1), title, INK)
    top = CAPTION
    for row, caption, height in zip(rows, captions, heights, strict=True):
        left = 0
        for panel, name, width in zip(row, COLUMNS, widths, strict=True):
            draw.text((left, top + 1), f"{caption} {name}".strip(), INK)
            picture.paste(Image.fromarray(panel), (left, top + CAPTION))
            left += width
        top += height
    _legend(draw, top + 2)
    return picture


def _legend(draw: ImageDraw.ImageDraw, top: int) -> None:
    left = 0
    words = {"reference, missed": OUTLINES["reference"], "prediction, too much": OUTLINES["prediction"]}
    for name, colour in {**words, "another label": ERRORS["wrong class"]}.items():
        draw.rectangle((left, top + 2, left + 9, top + 11), fill=colour)
        draw.text((left + 13, top - 1), name, INK)
        left += int(draw.textlength(name)) + 26
