"""Randomness as a function of position: what a phantom is made of.

Every number depends on a seed and on where it stands, never on what was drawn before it, so any box of a
phantom can be made by itself and boxes join without a seam. Legend: n voxels along an axis, d axes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def seed_of(*parts: int | str) -> int:
    """A 32 bit seed for a purpose: ``seed_of(seed, case, "noise")``."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:4], "little")


def hashed(seed: int, axes: Sequence[NDArray]) -> NDArray[np.uint32]:
    """Whole-numbered positions along each axis → (n_1, ..., n_d) evenly spread 32 bit numbers."""
    lines = []
    for axis, positions in enumerate(axes):
        shape = [1] * len(axes)
        shape[axis] = -1
        salted = positions.astype(np.int64).astype(np.uint32) * np.uint32(0x9E3779B1) + np.uint32(seed_of(seed, axis))
        lines.append(_mix(salted).reshape(shape))
    return _mix(reduce(np.add, lines))


def uniform(seed: int, axes: Sequence[NDArray]) -> Array:
    """Evenly spread in [0, 1): (n_1, ..., n_d)."""
    return (hashed(seed, axes) >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def white(seed: int, axes: Sequence[NDArray]) -> Array:
    """Bell-shaped with mean 0 and SD 1, from -3.45 to 3.45 (the sum of four bytes): (n_1, ..., n_d)."""
    bits = hashed(seed, axes)
    total = np.zeros(bits.shape, np.float32)
    for shift in (0, 8, 16, 24):
        total += (bits >> np.uint32(shift)) & np.uint32(255)
    return (total - np.float32(510)) / np.float32(147.8)


def smooth(seed: int, axes: Sequence[NDArray], period: float) -> Array:
    """Smooth, with mean 0 and SD 1: cubic B-splines over random numbers ``period`` apart; positions of any unit."""
    places = [np.asarray(a, np.float64) / period for a in axes]
    first = [int(np.floor(p.min())) - 1 for p in places]
    last = [int(np.floor(p.max())) + 2 for p in places]
    values = white(seed, [np.arange(a, b + 1) for a, b in zip(first, last, strict=True)])
    for axis, (place, origin) in enumerate(zip(places, first, strict=True)):
        values = _interpolate(values, axis, place - origin)
    return values * np.float32((315 / 151) ** (len(axes) / 2))


def step(x: Array, low: float, high: float) -> Array:
    """0 up to ``low``, 1 from ``high`` on, smooth between; falls instead where ``low > high``."""
    t = ((x - np.float32(low)) * np.float32(1 / (high - low))).clip(0, 1)
    return t * t * (3 - 2 * t)


def _interpolate(values: Array, axis: int, place: NDArray) -> Array:
    whole = np.floor(place).astype(np.intp)
    t = (place - whole).astype(np.float32)
    taps = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    shape = [1] * values.ndim
    shape[axis] = -1
    parts = (np.take(values, whole - 1 + k, axis) * (tap / 6).reshape(shape) for k, tap in enumerate(taps))
    return reduce(np.add, parts)


def _mix(h: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The «lowbias32» finaliser (C. Wellons, hash-prospector)."""
    h = h ^ (h >> np.uint32(16))
    h = h * np.uint32(0x7FEB352D)
    h = h ^ (h >> np.uint32(15))
    h = h * np.uint32(0x846CA68B)
    return h ^ (h >> np.uint32(16))
