"""All of a sample's interpolating transforms as one resampling.

Rotation, scaling and elastic deformation are composed into one map from the window back into the scan, and image and
label are sampled once: three resamplings would blur three times and cost three times as much.

    source(p) = A_1 A_2 ... p + D_1(p) + D_2(p) ...        p, source(p): voxels from the window's centre

The map is drawn before the scan is read, so that as much is read as it needs: no fill value ever reaches the network,
and where nothing is drawn the window alone is read.

Legend: d axes, n_a voxels of the window along axis a, g nodes of the coarse grid along each axis, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

TRUNCATION = 3.0
"""Gaussian displacements are cut at so many standard deviations: one node in a thousand would fold things over."""


@dataclass(frozen=True)
class Rotation:
    """In each of ``planes``, one after the other, by up to ``degrees`` either way, uniformly and each by itself."""

    degrees: float
    planes: tuple[tuple[int, int], ...]
    probability: float

    def matrix(self, random: RandomState, dims: int) -> NDArray:
        """(d, d)."""
        matrix = np.eye(dims)
        for a, b in self.planes:
            angle = math.radians(random.uniform(-self.degrees, self.degrees))
            turn = np.eye(dims)
            turn[a, a] = turn[b, b] = math.cos(angle)
            turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
            matrix = turn @ matrix
        return matrix


@dataclass(frozen=True)
class Scaling:
    """Some axes together by a factor between ``low`` and ``high``, uniformly; above 1 things become larger."""

    low: float
    high: float
    axes: tuple[int, ...]
    probability: float

    def matrix(self, random: RandomState, dims: int) -> NDArray:
        """(d, d)."""
        factor = random.uniform(self.low, self.high)
        return np.diag([1 / factor if axis in self.axes else 1.0 for axis in range(dims)])


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


@dataclass(frozen=True)
class Warp:
    """One drawn map.

    Attributes:
        source: for each axis, how far from the window's centre each voxel of the window is taken from: a float32
            tensor (\\*window), in voxels.
    """

    source: tuple[Tensor, ...]

    @classmethod
    def drawn(
        cls, pieces: Sequence[Rotation | Scaling | Elastic], window: Sequence[int], random: RandomState
    ) -> Warp | None:
        """Draws each piece with its probability; None where none is."""
        chosen = [piece for piece in pieces if random.uniform() < piece.probability]
        if not chosen:
            return None
        matrix, fields = np.eye(len(window)), []
        for piece in chosen:
            if isinstance(piece, Elastic):
                fields.append(piece.displacement(random, window))
            else:
                matrix = matrix @ piece.matrix(random, len(window))
        return cls(tuple(torch.stack(parts).sum(0) for parts in zip(_turned(matrix, window), *fields, strict=True)))

    @cached_property
    def margin(self) -> tuple[int, ...]:
        """Voxels to be read on each side of the window so that no sample falls outside."""
        reaches = [float(s.abs().max()) for s in self.source]
        halves = [(n - 1) / 2 for n in self.source[0].shape]
        # One voxel more: coordinates are rounded to float32 on their way.
        return tuple(math.ceil(r - h) + 1 if r > h else 0 for r, h in zip(reaches, halves, strict=True))

    def __call__(self, image: Tensor, label: Tensor, core: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Image (C, \\*read) → (C, \\*window) linearly, label (1, \\*read) → (1, \\*core) by the nearest voxel."""
        centred = [s + (n - 1) / 2 for s, n in zip(self.source, image.shape[1:], strict=True)]
        inner = [centre_crop(s[None], core)[0] for s in centred]
        return sample_linear(image, centred), sample_nearest(label, inner)


def _turned(matrix: NDArray, window: Sequence[int]) -> list[Tensor]:
    """``matrix`` times each voxel's place: one float32 tensor (\\*window) for each axis."""
    places = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in window]
    turned = []
    for row in matrix.tolist():
        whole = torch.zeros(tuple(window))
        for axis, (factor, place) in enumerate(zip(row, places, strict=True)):
            if factor:
                whole += (factor * place).view([-1 if c == axis else 1 for c in range(len(window))])
        turned.append(whole)
    return turned


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
