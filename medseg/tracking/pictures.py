"""Overlays of one case: image, reference, prediction and what differs.

Legend: C channels, H × W the picture's rows and columns. Colours are Okabe & Ito's palette (2008), which people with
any common colour blindness tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
_LEAST_WIDTH = 320
"""Of a picture, so that captions and what colours mean do not run into each other."""
_PAPER = (255, 255, 255)
_INK = (0, 0, 0)


def overlay(
    image: NDArray,
    reference: NDArray,
    prediction: NDArray,
    spacing: Sequence[float] | None = None,
    axis: int | None = None,
) -> Image.Image:
    """Four captioned panels: the reference on the image, the prediction on it, the image, and the errors.

    They lie as near to a square as they go; what differs from step to step is in the upper half, which MLflow's grid
    shows without scrolling. Of a 3D case one slice is shown: the one with the most reference foreground, or the middle
    one where there is none. One or two channels are shown in grey, the first alone, from the 0.5th to the 99.5th
    percentile of its finite values; three or more as RGB.

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
    base, truth, guess = _planes(image, (reference, prediction), spacing, axis)
    marked = {"reference": painted(base, truth), "prediction": painted(base, guess)}
    return _arranged({**marked, "image": base, "errors": errors(base, truth, guess)}, ERRORS)


def unpredicted(
    image: NDArray, reference: NDArray, spacing: Sequence[float] | None = None, axis: int | None = None
) -> Image.Image:
    """Reference and image as in :func:`overlay`, for when nothing is predicted yet.

    Raises:
        ValueError: where the shapes do not belong together.
    """
    base, truth = _planes(image, (reference,), spacing, axis)
    return _arranged({"reference": painted(base, truth), "image": base}, {})


def _planes(
    image: NDArray, masks: Sequence[NDArray], spacing: Sequence[float] | None, axis: int | None
) -> tuple[NDArray, ...]:
    """The slice that is shown, of the image in grey or colours and of each mask, the first of which chooses it."""
    shape = masks[0].shape
    if any(other != shape for other in (image.shape[1:], *(mask.shape for mask in masks))) or len(shape) not in (2, 3):
        shapes = " and ".join(str(mask.shape) for mask in masks)
        raise ValueError(f"image {image.shape} and masks {shapes} do not match")
    spacing = tuple(spacing or (1.0,) * len(shape))
    if len(shape) == 3:
        axis = _across(shape, spacing) if axis is None else axis
        index = shown_slice(masks[0], axis)
        image, *masks = (array.take(index, axis - 3) for array in (image, *masks))
        spacing = spacing[:axis] + spacing[axis + 1 :]
    size = panel_size(masks[0].shape, spacing)
    base = np.asarray(Image.fromarray(as_rgb(_thinned(image))).resize(size, Image.Resampling.BILINEAR))
    return base, *(resized(mask, size) for mask in masks)


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
    known = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    # Halves, since the difference of the largest numbers is none.
    scaled = np.clip((known / 2 - low / 2) / (high / 2 - low / 2), 0, 1)
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


def _arranged(panels: Mapping[str, NDArray], colours: Mapping[str, tuple[int, int, int]]) -> Image.Image:
    """Panels (H, W, 3) with their captions, as near to a square as they go, and below what colours mean."""
    height, width = next(iter(panels.values())).shape[:2]
    column, row = max(width, _LEAST_WIDTH // 2) + _MARGIN, height + _CAPTION
    columns = min((n for n in (4, 2, 1) if n <= len(panels)), key=lambda n: max(n * column, len(panels) // n * row))
    rows = len(panels) // columns
    size = (max(columns * column - _MARGIN, _LEAST_WIDTH), rows * row + _CAPTION * bool(colours))
    picture = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(picture)
    draw.font = ImageFont.load_default(12)
    for number, (caption, panel) in enumerate(panels.items()):
        left, top = number % columns * column, number // columns * row
        draw.text((left, top + 1), caption, _INK)
        picture.paste(Image.fromarray(panel), (left, top + _CAPTION))
    _legend(draw, colours, rows * row + 2)
    return picture


def _legend(draw: ImageDraw.ImageDraw, colours: Mapping[str, tuple[int, int, int]], top: int) -> None:
    left = 0
    for name, colour in colours.items():
        draw.rectangle((left, top + 2, left + 9, top + 11), fill=colour)
        draw.text((left + 13, top - 1), name, _INK)
        left += int(draw.textlength(name)) + 26
