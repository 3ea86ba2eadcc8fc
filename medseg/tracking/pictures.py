"""Overlays of one case: image, reference, prediction and what differs, side by side.

Legend: C channels, H × W the picture's rows and columns. Colours are Okabe & Ito's palette (2008), which
    people with any
common colour blindness tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

LONG_SIDE = 512
"""The most pixels along a panel's longer side."""

PALETTE = (
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (0, 114, 178),
    (86, 180, 233),
    (213, 94, 0),
)
"""The colours of classes 1, 2, ...; an eighth class begins again."""

ERRORS = {
    "false positive": (213, 94, 0),
    "false negative": (86, 180, 233),
    "wrong class": (240, 228, 66),
}

_OPACITY = 0.55
_GREY_RANGE = (0.5, 99.5)
_MARGIN = 4
_CAPTION = 18
_PAPER = (255, 255, 255)
_INK = (0, 0, 0)


def overlay(
    image: NDArray,
    reference: NDArray,
    prediction: NDArray,
    spacing: Sequence[float] | None = None,
    axis: int | None = None,
) -> Image.Image:
    """Four captioned panels: the image, the reference on it, the prediction on it, and the errors.

    Of a 3D case one slice is shown: the one with the most reference foreground, or the middle one where there
    is none. One or two channels are shown in grey, the first alone, from the 0.5th to the 99.5th percentile
    of its finite values; three or more as RGB.

    Args:
        image: (C, \\*spatial), spatial 2 or 3 axes.
        reference: (\\*spatial), the class of each voxel, 0 the background.
        prediction: (\\*spatial), as the reference.
        spacing: the size of a voxel along each axis, for the right aspect; None takes equal ones.
        axis: the axis of a volume that is cut across; None takes the one of the largest spacing, of equal
            ones the one with the fewest voxels.

    Returns:
        An RGB picture; a panel's longer side has at most ``LONG_SIDE`` pixels.

    Raises:
        ValueError: where the shapes do not belong together.
    """
    shape = reference.shape
    if image.shape[1:] != shape or prediction.shape != shape or len(shape) not in (2, 3):
        raise ValueError(f"image {image.shape}, reference {shape} and prediction {prediction.shape} do not match")
    spacing = tuple(spacing or (1.0,) * len(shape))
    if len(shape) == 3:
        axis = _across(shape, spacing) if axis is None else axis
        index = shown_slice(reference, axis)
        image, reference, prediction = (a.take(index, axis - 3) for a in (image, reference, prediction))
        spacing = spacing[:axis] + spacing[axis + 1 :]
    size = panel_size(reference.shape, spacing)
    base = np.asarray(Image.fromarray(as_rgb(_thinned(image))).resize(size, Image.Resampling.BILINEAR))
    truth, guess = resized(reference, size), resized(prediction, size)
    panels = [base, painted(base, truth), painted(base, guess), errors(base, truth, guess)]
    return _side_by_side(panels, ("image", "reference", "prediction", "errors"))


def _across(shape: Sequence[int], spacing: Sequence[float]) -> int:
    return max(range(3), key=lambda axis: (spacing[axis], -shape[axis]))


def shown_slice(reference: NDArray, axis: int) -> int:
    """The index along an axis of the slice with the most foreground; the middle where there is none."""
    counts = np.count_nonzero(reference, axis=tuple(a for a in range(3) if a != axis))
    return int(np.argmax(counts)) if counts.any() else reference.shape[axis] // 2


def _thinned(image: NDArray) -> NDArray:
    """Every n-th row and column of a large (C, H, W), twice as many as can be shown."""
    step = max(1, max(image.shape[1:]) // (2 * LONG_SIDE))
    return image[:, ::step, ::step]


def as_rgb(image: NDArray) -> NDArray:
    """(C, H, W) → (H, W, 3) uint8: RGB of 8 bit as it is, else stretched between percentiles."""
    channels = image[:3] if image.shape[0] >= 3 else image[:1]
    if channels.dtype != np.uint8 or len(channels) == 1:
        channels = _stretched(channels.astype(np.float64))
    return np.ascontiguousarray(np.broadcast_to(np.moveaxis(channels, 0, -1), (*image.shape[1:], 3)))


def _stretched(values: NDArray) -> NDArray:
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, _GREY_RANGE) if finite.size else (0.0, 1.0)
    if high <= low:
        low, high = low - 0.5, low + 0.5
    scaled = np.clip((np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / (high - low), 0, 1)
    return np.asarray((scaled * 255).round(), np.uint8)


def painted(base: NDArray, classes: NDArray) -> NDArray:
    """(H, W, 3) with each class's colour laid over it."""
    colours = np.array([(0, 0, 0), *PALETTE])
    indices = np.where(classes > 0, (classes.astype(np.int64) - 1) % len(PALETTE) + 1, 0)
    return _blend(base, colours[indices], classes > 0)


def errors(base: NDArray, reference: NDArray, prediction: NDArray) -> NDArray:
    """(H, W, 3) with false positives, false negatives and wrong classes in their colours."""
    wrong = reference != prediction
    colours = np.zeros_like(base)
    colours[wrong & (reference == 0)] = ERRORS["false positive"]
    colours[wrong & (prediction == 0)] = ERRORS["false negative"]
    colours[wrong & (reference > 0) & (prediction > 0)] = ERRORS["wrong class"]
    return _blend(base // 2, colours, wrong, opacity=1.0)


def _blend(base: NDArray, colours: NDArray, where: NDArray, opacity: float = _OPACITY) -> NDArray:
    mixed = (1 - opacity) * base + opacity * colours
    return np.where(where[..., None], mixed.round(), base).astype(np.uint8)


def panel_size(shape: Sequence[int], spacing: Sequence[float]) -> tuple[int, int]:
    """Width and height of a panel: square pixels, none smaller than a voxel unless the panel would be too long."""
    least = min(spacing)
    sides = [n * s / least for n, s in zip(shape, spacing, strict=True)]
    scale = min(1.0, LONG_SIDE / max(sides))
    if max(sides) < LONG_SIDE / 2:
        scale = LONG_SIDE // 2 // max(sides) or 1.0
    height, width = (max(round(side * scale), 1) for side in sides)
    return width, height


def resized(classes: NDArray, size: tuple[int, int]) -> NDArray:
    """The classes of the nearest voxels, at a panel's size."""
    rows = (np.arange(size[1]) + 0.5) * classes.shape[0] / size[1]
    columns = (np.arange(size[0]) + 0.5) * classes.shape[1] / size[0]
    return np.asarray(classes[np.ix_(rows.astype(int), columns.astype(int))])


def _side_by_side(panels: Sequence[NDArray], captions: Sequence[str]) -> Image.Image:
    height, width = panels[0].shape[:2]
    column = max(width, 100) + _MARGIN
    size = (len(panels) * column - _MARGIN, height + 2 * _CAPTION)
    picture = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(picture)
    draw.font = ImageFont.load_default(12)
    for number, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        draw.text((number * column, 1), caption, _INK)
        picture.paste(Image.fromarray(panel), (number * column, _CAPTION))
    _legend(draw, size[0], height + _CAPTION + 2)
    return picture


def _legend(draw: ImageDraw.ImageDraw, right: int, top: int) -> None:
    for name, colour in reversed(ERRORS.items()):
        right -= int(draw.textlength(name)) + 4
        draw.text((right, top - 1), name, _INK)
        draw.rectangle((right - 13, top + 2, right - 4, top + 11), fill=colour)
        right -= 22
