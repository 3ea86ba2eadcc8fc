"""The U-Net paper's weight map, which makes a network learn the thin borders between touching cells.

    w(x) = w_c(x) + w0 · exp(-(d1(x) + d2(x))² / (2 σ²))          Ronneberger, Fischer & Brox 2015, eq. 2

d1 and d2 are the distances, in voxels, from x to the border of the nearest and of the second nearest cell, from inside
and from outside. A cell's border is made of those of its voxels that have a face neighbour outside of the cell; the
image's edge counts as inside.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

CUTOFF = 4.3
"""Cells farther than so many σ are not looked at: w0 · exp(-4.3² / 2) is 1e-3 for the paper's w0 = 10."""


def border_weights(
    instances: NDArray, w0: float = 10.0, sigma: float = 5.0, balance: bool = True, counts: NDArray | None = None
) -> NDArray[np.float32]:
    """The weight of each voxel: (*n) instances, 0 background, any other number a cell → (*n) float32.

    Args:
        instances: a number for each cell; cells may touch.
        w0: the weight of a border between cells that touch.
        sigma: how fast it falls off, in voxels.
        balance: whether w_c gives foreground and background the same share of the loss, as the paper has it: inversely
            to how often each occurs, with a mean of 1. Where there is only one of them, and without, w_c is 1.
        counts: (*n), true for the voxels that w_c counts; all of them by default.

    A distance is found within a crop around each cell, so the cost grows with the cells' area and not with their number
    times the image's. Where the two distances add up to more than :data:`CUTOFF` · sigma the border term is left out.
    """
    weights = _class_weights(instances != 0, counts) if balance else np.ones(instances.shape, np.float32)
    nearest, second = _two_distances(instances, math.ceil(CUTOFF * sigma))
    weights += np.float32(w0) * np.exp(-((nearest + second) ** 2) / np.float32(2 * sigma**2))
    return weights


def instances_from_classes(mask: NDArray) -> NDArray[np.int32]:
    """Connected components of each class: (*n) classes, 0 background → (*n), each component numbered from 1.

    Voxels are connected through their faces, so cells that touch at a corner stay apart.
    """
    instances = np.zeros(mask.shape, np.int32)
    found = 0
    for value in np.unique(mask[mask != 0]):
        components, count = ndimage.label(mask == value)
        np.add(components, found, out=instances, where=components > 0, casting="unsafe")
        found += count
    return instances


def _class_weights(foreground: NDArray, counts: NDArray | None) -> NDArray[np.float32]:
    seen = foreground if counts is None else foreground[counts]
    share = float(seen.mean()) if seen.size else 0.0
    if share in (0.0, 1.0):
        return np.ones(foreground.shape, np.float32)
    return np.where(foreground, np.float32(0.5 / share), np.float32(0.5 / (1 - share)))


def _two_distances(instances: NDArray, reach: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """From each voxel to the nearest and the second nearest border; infinite where its cell is beyond ``reach``."""
    _, places = np.unique(instances, return_inverse=True)
    numbers = np.where(instances == 0, 0, places.reshape(instances.shape) + 1)
    nearest = np.full(instances.shape, np.inf, np.float32)
    second = nearest.copy()
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        if box is None:
            continue
        around = tuple(slice(max(s.start - reach, 0), s.stop + reach) for s in box)
        cell = numbers[around] == number
        inner = ndimage.binary_erosion(cell, border_value=1)
        if inner.all():
            continue  # it fills the image and has no border
        distance = ndimage.distance_transform_edt(~cell | inner).astype(np.float32)
        np.minimum(second[around], np.maximum(nearest[around], distance), out=second[around])
        np.minimum(nearest[around], distance, out=nearest[around])
    return nearest, second
