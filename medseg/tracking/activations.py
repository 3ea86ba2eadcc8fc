"""A picture of what a decoder makes of one window (Noh et al. 2015, figure 4): one map a layer, the coarsest first.

Legend: C channels, A channels of a map, H × W the picture's rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from medseg.errors import MedsegError
from medseg.geometry import Box
from medseg.inference.model import Model
from medseg.inference.segment import check_channels
from medseg.networks.activations import Activations, decoder_activations
from medseg.scans.mirror import read_mirrored
from medseg.scans.scan import Scan, open_scan
from medseg.tracking.pictures import as_rgb, painted

PANEL = 168
"""Pixels along a panel's longer side."""
COLUMNS = 6
CAPTION = 28
MARGIN = 6
RANGE = (1.0, 99.0)
"""The percentiles of a map that are black and white."""
HEAT = (
    (0, 0, 4),
    (40, 11, 84),
    (101, 21, 110),
    (159, 42, 99),
    (212, 72, 66),
    (245, 125, 21),
    (250, 193, 39),
    (252, 255, 164),
)
"""From low to high: dark blue, purple, red, yellow, of evenly growing lightness (after matplotlib's «inferno»)."""

Panel = tuple[str, NDArray]


def draw_activations(model: Model, path: Path) -> Image.Image:
    """The window in the middle of a scan, what is predicted there, and the decoder's maps.

    The window is the one that the model was trained on, read as inference reads it, mirrored where the scan is smaller.
    Of each layer the channel of the largest variance is shown; of a volume the middle plane across the axis of the
    largest spacing.

    Args:
        model: ready on its device.
        path: the scan's file.

    Raises:
        MedsegError: for a scan that cannot be read or that the model cannot take, or a network that enlarges nothing.
    """
    scan = open_scan(path)
    check_channels(scan, model.network)
    view = model.card.preprocessing.view(scan)
    voxels = read_mirrored(view, middle(view, model.card.window))
    x = torch.from_numpy(np.ascontiguousarray(voxels, np.float32))[None].to(model.device)
    layers, logits = decoder_activations(model.network, x)
    if not layers:
        raise MedsegError(
            f"{model.folder}: a {model.card.network['name']} neither unpools nor up-samples: it has no decoder to draw"
        )
    classes = model.decoder.classes(logits[0]).cpu().numpy()
    axis = across(view.spacing_mm) if len(view.shape) == 3 else None
    return arranged([*_window(voxels, classes, axis), *(_layer(layer, axis) for layer in layers)])


def middle(view: Scan, window: Sequence[int] | None) -> Box:
    """The window's place, in the middle; it may overhang.

    Raises:
        MedsegError: where none is known.
    """
    if window is None:
        raise MedsegError("the model names no training window: train it with this version of medseg to draw its maps")
    start = tuple((n - w) // 2 for n, w in zip(view.shape, window, strict=True))
    return Box(start, tuple(a + w for a, w in zip(start, window, strict=True)))


def across(spacing: Sequence[float]) -> int:
    """The axis of the largest spacing, the last of equal ones."""
    return max(range(len(spacing)), key=lambda axis: (round(spacing[axis], 9), axis))


def heat(values: NDArray) -> NDArray[np.uint8]:
    """(H, W) → (H, W, 3): dark for low values, light for high ones, between percentiles; flat where all are equal."""
    low, high = np.percentile(values, RANGE)
    scaled = np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros(values.shape)
    stops = np.linspace(0, 1, len(HEAT))
    channels = [np.interp(scaled, stops, [colour[i] for colour in HEAT]) for i in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def arranged(panels: Sequence[Panel]) -> Image.Image:
    """Captioned panels (H, W, 3) in rows; each is shown as large, its pixels as they are."""
    rows = math.ceil(len(panels) / COLUMNS)
    width = min(len(panels), COLUMNS) * (PANEL + MARGIN) - MARGIN
    picture = Image.new("RGB", (width, rows * (PANEL + CAPTION + MARGIN) - MARGIN), "white")
    draw = ImageDraw.Draw(picture)
    draw.font = ImageFont.load_default(11)
    for number, (caption, panel) in enumerate(panels):
        row, column = divmod(number, COLUMNS)
        left, top = column * (PANEL + MARGIN), row * (PANEL + CAPTION + MARGIN)
        draw.multiline_text((left, top), caption, "black", spacing=1)
        picture.paste(_enlarged(panel), (left, top + CAPTION))
    return picture


def _window(voxels: NDArray, classes: NDArray, axis: int | None) -> list[Panel]:
    """The image, and the prediction upon it; a valid network's is smaller, and lies in the middle."""
    offsets = [(n - m) // 2 for n, m in zip(voxels.shape[1:], classes.shape, strict=True)]
    placed = np.zeros(voxels.shape[1:], classes.dtype)
    placed[tuple(slice(a, a + n) for a, n in zip(offsets, classes.shape, strict=True))] = classes
    base = as_rgb(_plane(voxels, axis))
    shown = _plane(placed[None], axis)[0]
    size = " x ".join(map(str, voxels.shape[1:]))
    return [(f"image\n{size}", base), ("prediction", painted(base, shown))]


def _layer(layer: Activations, axis: int | None) -> Panel:
    channel, size = layer.representative, " x ".join(map(str, layer.maps.shape[1:]))
    values = layer.maps[channel : channel + 1].float().cpu().numpy()
    caption = f"{layer.kind} {layer.number}, {size}\nchannel {channel + 1} of {len(layer.maps)}"
    return caption, heat(_plane(values, axis)[0])


def _plane(maps: NDArray, axis: int | None) -> NDArray:
    """(A, \\*n) → (A, H, W): the middle across an axis."""
    return maps if axis is None else maps.take(maps.shape[axis + 1] // 2, axis + 1)


def _enlarged(panel: NDArray) -> Image.Image:
    height, width = panel.shape[:2]
    scale = PANEL / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return Image.fromarray(panel).resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR)
