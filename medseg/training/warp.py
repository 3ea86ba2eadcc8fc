"""All of a sample's interpolating transforms as one resampling.

Rotation, scaling and elastic deformation are composed into one map from the window back into the area that was read,
and image and label are sampled once: three resamplings would blur three times and cost three times as much.

    source(p) = centre + A_1 A_2 ... p + D_1(p) + D_2(p) ...        p voxels from the window's centre

Legend: d axes, n_a voxels of the window along axis a, g nodes of the coarse grid along each axis, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform, RandomizableTransform
from numpy.random import RandomState
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

TRUNCATION = 3.0
"""Gaussian displacements are cut at so many standard deviations: without an end no border would be wide enough."""


@dataclass(frozen=True)
class Rotation:
    """By up to ``degrees`` either way in the plane of two axes, uniformly."""

    degrees: float
    plane: tuple[int, int]
    probability: float

    def matrix(self, random: RandomState, dims: int) -> NDArray:
        """(d, d)."""
        angle = math.radians(random.uniform(-self.degrees, self.degrees))
        a, b = self.plane
        matrix = np.eye(dims)
        matrix[a, a] = matrix[b, b] = math.cos(angle)
        matrix[a, b], matrix[b, a] = -math.sin(angle), math.sin(angle)
        return matrix

    def farthest(self, half: Sequence[float]) -> tuple[float, ...]:
        """Half extents that hold a box of half extents ``half`` however it is turned: max of cos·own + sin·other."""
        limit, reach = math.radians(self.degrees), list(half)
        for own, other in (self.plane, self.plane[::-1]):
            angle = min(limit, math.atan2(half[other], half[own]))
            reach[own] = math.cos(angle) * half[own] + math.sin(angle) * half[other]
        return tuple(reach)


@dataclass(frozen=True)
class Scaling:
    """All axes together by a factor between ``low`` and ``high``, uniformly; above 1 things become larger."""

    low: float
    high: float
    probability: float

    def matrix(self, random: RandomState, dims: int) -> NDArray:
        """(d, d)."""
        return np.eye(dims) / random.uniform(self.low, self.high)

    def farthest(self, half: Sequence[float]) -> tuple[float, ...]:
        """Half extents that hold a box of half extents ``half``: the smaller things become, the more is seen."""
        return tuple(h / self.low for h in half)


@dataclass(frozen=True)
class Elastic:
    """Gaussian displacements on a coarse grid over the window, interpolated cubically (Ronneberger et al. 2015, §3.1).

    The nodes lie on the window's edges and evenly between them. Keys' cubic convolution (1981, a = -1/2) interpolates
    along one axis after the other. The component along axis a is cut at :data:`TRUNCATION` · sigma_a.
    """

    sigma: tuple[float, ...]
    grid: int
    probability: float

    def displacement(self, random: RandomState, window: Sequence[int]) -> list[Tensor]:
        """One float32 tensor (\\*window) for each axis, in voxels."""
        nodes = random.normal(0, 1, (len(window), *(self.grid,) * len(window))).clip(-TRUNCATION, TRUNCATION)
        nodes = np.stack([sigma * node for sigma, node in zip(self.sigma, nodes, strict=True)])
        fields = torch.from_numpy(nodes.astype(np.float32))
        for axis, n in enumerate(window, start=1):
            weights = torch.from_numpy(cubic_weights(n, self.grid))
            fields = torch.tensordot(fields, weights, ([axis], [1])).movedim(-1, axis)
        return list(fields.contiguous())

    def largest(self, window: Sequence[int]) -> tuple[float, ...]:
        """For each axis: all nodes pulling at their limit. Cubic weights overshoot, so their absolute sums count."""
        overshoot = math.prod(float(np.abs(cubic_weights(n, self.grid)).sum(1).max()) for n in window)
        return tuple(TRUNCATION * sigma * overshoot for sigma in self.sigma)


class Warpd(RandomizableTransform, MapTransform):
    """A MONAI dictionary transform: the drawn pieces composed, the window sampled once (image linear, label nearest).

    Expects ``image`` (C, \\*read), ``label`` (1, \\*read) and the shapes ``window`` and ``core``; leaves ``image``
    (C, \\*window) and ``label`` (1, \\*core) around the centre of what was read: plain crops where nothing is drawn.
    """

    def __init__(self, pieces: Sequence[Rotation | Scaling | Elastic]) -> None:
        MapTransform.__init__(self, ("image", "label"))
        RandomizableTransform.__init__(self, prob=1.0)
        self.pieces = tuple(pieces)
        self.matrix: NDArray | None = None
        self.displacement: list[Tensor] | None = None

    def margin(self, window: Sequence[int]) -> tuple[int, ...]:
        """Voxels to be read on each side of the window so that no sample falls outside, whatever is drawn."""
        half = tuple((n - 1) / 2 for n in window)
        reach = half
        for piece in self.pieces:
            if not isinstance(piece, Elastic):
                # Where it is not drawn, things stay where they are.
                reach = tuple(map(max, reach, piece.farthest(reach)))
        # Displacements are added to where the matrices lead, and are not turned or scaled by them.
        for piece in self.pieces:
            if isinstance(piece, Elastic):
                reach = tuple(r + d for r, d in zip(reach, piece.largest(window), strict=True))
        # One voxel more: coordinates are rounded to float32 on their way.
        return tuple(math.ceil(r - h) + 1 if r > h else 0 for r, h in zip(reach, half, strict=True))

    def randomize(self, data: Any = None) -> None:
        """Draws each piece; ``data`` is the window."""
        super().randomize(None)
        window: tuple[int, ...] = data
        self.matrix, self.displacement = None, None
        for piece in self.pieces:
            if self.R.uniform() >= piece.probability:
                continue
            if isinstance(piece, Elastic):
                fields = piece.displacement(self.R, window)
                before = self.displacement or [torch.zeros(())] * len(fields)
                self.displacement = [a + b for a, b in zip(before, fields, strict=True)]
            else:
                matrix = piece.matrix(self.R, len(window))
                self.matrix = matrix if self.matrix is None else self.matrix @ matrix

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """See the class."""
        done = dict(data)
        window, core = done["window"], done["core"]
        self.randomize(window)
        if self.matrix is None and self.displacement is None:
            done["image"] = centre_crop(done["image"], window)
            done["label"] = centre_crop(done["label"], core)
            return done
        source = self._source(window, done["image"].shape[1:])
        done["image"] = sample_linear(done["image"], source)
        done["label"] = sample_nearest(done["label"], [centre_crop(s[None], core)[0] for s in source])
        return done

    def _source(self, window: Sequence[int], read: Sequence[int]) -> list[Tensor]:
        """For each axis of the area read, the coordinate (\\*window) that each voxel of the window is taken from."""
        dims = len(window)
        matrix = np.eye(dims) if self.matrix is None else self.matrix
        source = []
        for a in range(dims):
            coordinate = torch.tensor((read[a] - window[a]) // 2 + (window[a] - 1) / 2, dtype=torch.float32)
            for b, n in enumerate(window):
                steps = (torch.arange(n, dtype=torch.float32) - (n - 1) / 2) * float(matrix[a, b])
                coordinate = coordinate + steps.view([-1 if c == b else 1 for c in range(dims)])
            source.append(coordinate if self.displacement is None else coordinate.add_(self.displacement[a]))
        return source


@lru_cache(maxsize=64)
def cubic_weights(n: int, nodes: int) -> NDArray:
    """(n, nodes) float32: Keys' cubic convolution from ``nodes`` on [0, n - 1] to n voxels, the end nodes repeated."""
    weights = np.zeros((n, nodes))
    position = np.linspace(0, nodes - 1, n) if n > 1 else np.full(1, (nodes - 1) / 2)
    base = np.minimum(np.floor(position), nodes - 2).astype(int)
    for tap in range(-1, 3):
        distance = np.abs(position - (base + tap))
        near = 1.5 * distance**3 - 2.5 * distance**2 + 1
        far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
        share = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
        np.add.at(weights, (np.arange(n), np.clip(base + tap, 0, nodes - 1)), share)
    return weights.astype(np.float32)


def centre_crop(array: Tensor, shape: Sequence[int]) -> Tensor:
    """(C, \\*n) → (C, \\*shape), around the centre."""
    starts = [(n - m) // 2 for n, m in zip(array.shape[1:], shape, strict=True)]
    return array[(slice(None), *(slice(a, a + m) for a, m in zip(starts, shape, strict=True)))]


def sample_linear(image: Tensor, source: Sequence[Tensor]) -> Tensor:
    """Image (C, \\*read) at coordinates (\\*window) → (C, \\*window), zeros outside.

    ``grid_sample`` itself and not MONAI's Resample around it: that one stacks, copies and re-normalises the grid, which
    costs more than the sampling.
    """
    grid = torch.empty(*source[0].shape, len(source))
    for axis, coordinate in enumerate(source):
        # grid_sample counts axes from the last, and an area of n voxels from -1 to 1, edge to edge.
        n = image.shape[1 + axis]
        torch.mul(coordinate + 0.5, 2 / n, out=grid[..., -1 - axis])
    sampled: Tensor = functional.grid_sample(image[None], grid.sub_(1)[None], align_corners=False)
    return sampled[0]


def sample_nearest(label: Tensor, source: Sequence[Tensor]) -> Tensor:
    """Label (1, \\*read) of any type at coordinates (\\*core) → (1, \\*core), by index: values stay what they are."""
    nearest = [s.round().long() for s in source]
    return torch.stack([channel[tuple(nearest)] for channel in label])
