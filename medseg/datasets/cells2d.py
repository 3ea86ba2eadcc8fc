"""Cells as an electron microscope shows them: touching, bent and uneven in size, with dark membranes that
fade at places.

Sites on a jittered lattice own the plane as in a power diagram; neighbours may merge, which makes cells that
are not convex; and the plane is warped, which bends their borders. A voxel's distance to the border then
gives the label and the image alike. What makes a threshold fail is dark too: mitochondria, reticulum,
vesicles and uneven staining. Legend: (h, w) a box of pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medseg.datasets.noise import Array, hashed, seed_of, smooth, step, uniform, white
from medseg.geometry import Box

HALO = 16
Window = tuple[slice, slice]


@dataclass(frozen=True)
class Tissue:
    """What the tissue looks like; lengths in pixels, grey levels from 0 (black) to 1."""

    lattice: int = 64
    merged: float = 0.5
    size_spread: float = 900.0
    warps: tuple[tuple[float, float], ...] = ((100.0, 10.0), (36.0, 4.0))
    half_width: float = 3.0
    faded: float = 1.55
    cytoplasm: float = 0.56
    tint: float = 0.2
    texture: tuple[tuple[float, float], ...] = ((4.0, 0.035), (13.0, 0.035))
    membrane: float = 0.26
    organelle_lattice: int = 19
    organelle: float = 0.4
    reticulum: float = 0.16
    stain_gain: tuple[float, float] = (190.0, 0.17)
    stain_offset: tuple[float, float] = (120.0, 0.09)
    blur: float = 0.9
    noise: float = 0.075


@dataclass(frozen=True)
class Cells2d:
    """One case: an endless plane of tissue, any box of which can be rendered by itself."""

    seed: int
    tissue: Tissue = field(default_factory=Tissue)

    def render(self, box: Box) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The image (h, w) and whether each pixel is membrane (h, w)."""
        wide = box.grow(HALO)
        axes = [np.arange(a, b) for a, b in zip(wide.start, wide.stop, strict=True)]
        border, cell = self._borders(axes)
        image = self._blurred(self._scene(axes, border, cell))
        inner = Box.of(wide.shape).grow(-HALO).slices
        noisy = image[inner] + np.float32(self.tissue.noise) * white(self._seed("noise"), [a[HALO:-HALO] for a in axes])
        return (noisy * 255).clip(0, 255).astype(np.uint8), border[inner] < self.tissue.half_width

    def _seed(self, purpose: str) -> int:
        return seed_of(self.seed, purpose)

    def _borders(self, axes: list[NDArray]) -> tuple[Array, NDArray[np.int64]]:
        """The distance to the cell's border and the cell's number, each (h, w)."""
        place = self._warped(axes)
        sites = self._sites(axes)
        shape = (len(axes[0]), len(axes[1]))
        power = np.full(shape, np.inf, np.float32)
        owner = np.zeros(shape, np.int32)
        for number, (window, here) in enumerate(sites.powers(axes, place)):
            closer = here < power[window]
            np.copyto(power[window], here, where=closer)
            np.copyto(owner[window], number, where=closer)
        cell = sites.cell[owner]
        return self._to_border(cell), cell

    def _warped(self, axes: list[NDArray]) -> tuple[Array, Array]:
        bent = []
        for axis, line in enumerate((axes[0].reshape(-1, 1), axes[1].reshape(1, -1))):
            place = line.astype(np.float32)
            for number, (period, amplitude) in enumerate(self.tissue.warps):
                place = place + np.float32(amplitude) * smooth(self._seed(f"warp {number} {axis}"), axes, period)
            bent.append(place)
        return bent[0], bent[1]

    def _sites(self, axes: list[NDArray]) -> Sites:
        """Every site whose window meets the box."""
        pitch = self.tissue.lattice
        reach = int(2 * pitch + 3 * sum(amplitude for _, amplitude in self.tissue.warps))
        rows, columns = (np.arange((a[0] - reach) // pitch - 1, (a[-1] + reach) // pitch + 2) for a in axes)
        grid = [rows, columns]
        y = (rows[:, None] + uniform(self._seed("site y"), grid)) * pitch
        x = (columns[None, :] + uniform(self._seed("site x"), grid)) * pitch
        weight = uniform(self._seed("size"), grid) * self.tissue.size_spread
        merged = uniform(self._seed("merge"), grid) < self.tissue.merged
        turn = hashed(self._seed("partner"), grid) & 3
        down = rows[:, None] + np.where(merged, np.array([0, 1, 0, -1])[turn], 0)
        right = columns[None, :] + np.where(merged, np.array([1, 0, -1, 0])[turn], 0)
        y, x, weight = (np.ravel(v).astype(np.float32) for v in (y, x, weight))
        return Sites(y, x, weight, np.ravel(down * (1 << 32) + right), reach)

    def _scene(self, axes: list[NDArray], border: Array, cell: NDArray[np.int64]) -> Array:
        """Grey levels before the microscope blurs them."""
        tissue = self.tissue
        tint = uniform(self._seed("tint"), [np.unique(cell)])[
            np.unique(cell, return_inverse=True)[1].reshape(cell.shape)
        ]
        image = np.float32(tissue.cytoplasm) + np.float32(tissue.tint) * (2 * tint - 1)
        for period, amplitude in tissue.texture:
            image += np.float32(amplitude) * smooth(self._seed(f"texture {period}"), axes, period)
        inside = step(border, tissue.half_width + 1, tissue.half_width + 4)
        strands = np.abs(smooth(self._seed("reticulum"), axes, 21))
        image -= np.float32(tissue.reticulum) * step(strands, 0.16, 0.04) * inside
        image -= np.float32(tissue.organelle) * self._organelles(axes) * inside
        visible = step(smooth(self._seed("fading"), axes, 17), tissue.faded + 0.25, tissue.faded - 0.25)
        wall = step(border, tissue.half_width + 0.6, tissue.half_width - 0.6) * (0.12 + 0.88 * visible)
        image += (np.float32(tissue.membrane) - image) * wall
        gain, offset = (
            smooth(self._seed(f"stain {p}"), axes, p) * np.float32(a)
            for p, a in (tissue.stain_gain, tissue.stain_offset)
        )
        return image * (1 + gain) + offset

    def _organelles(self, axes: list[NDArray]) -> Array:
        """How much of each pixel is organelle: dark-rimmed ellipses with stripes, 0 to 1: (h, w)."""
        dark = np.zeros((len(axes[0]), len(axes[1])), np.float32)
        pitch = self.tissue.organelle_lattice
        grid = [np.arange(a[0] // pitch - 1, a[-1] // pitch + 2) for a in axes]
        drawn = [uniform(self._seed(f"organelle {k}"), grid) for k in range(7)]
        for i, j in np.argwhere(drawn[0] < 0.8):
            _, y, x, long, short, turn, shade = (float(d[i, j]) for d in drawn)
            centre = ((grid[0][i] + y) * pitch, (grid[1][j] + x) * pitch)
            radii = (6 + 9 * long, 3.5 + 3.5 * short)
            window = _window(centre, int(max(radii)) + 2, axes)
            dy, dx = (
                axes[0][window[0]].reshape(-1, 1) - centre[0],
                axes[1][window[1]].reshape(1, -1) - centre[1],
            )
            along, across = (
                dy * np.cos(np.pi * turn) + dx * np.sin(np.pi * turn),
                dx * np.cos(np.pi * turn) - dy * np.sin(np.pi * turn),
            )
            depth = (1 - np.hypot(along / radii[0], across / radii[1])) * radii[1]
            stripes = 0.84 + 0.16 * np.cos(along * 1.7)
            body = np.clip(depth + 0.5, 0, 1) * np.where(depth < 1.6, 1, stripes) * (0.8 + 0.4 * shade)
            np.maximum(dark[window], body.astype(np.float32), out=dark[window])
        return dark

    @staticmethod
    def _to_border(cell: NDArray[np.int64]) -> Array:
        """The distance from each pixel's centre to the next edge between two cells, true below the halo: (h, w)."""
        from scipy.ndimage import distance_transform_edt

        inner = np.ones(cell.shape, bool)
        for axis in (0, 1):
            differs = np.diff(cell, axis=axis) != 0
            before, after = [slice(None)] * 2, [slice(None)] * 2
            before[axis], after[axis] = slice(None, -1), slice(1, None)
            inner[tuple(before)] &= ~differs
            inner[tuple(after)] &= ~differs
        return (distance_transform_edt(inner) if not inner.all() else np.full(cell.shape, 99.0)).astype(
            np.float32
        ) + np.float32(0.5)

    def _blurred(self, image: Array) -> Array:
        from scipy.ndimage import gaussian_filter

        return gaussian_filter(image, self.tissue.blur, radius=4)


@dataclass(frozen=True)
class Sites:
    """Sites of a power diagram, each with the cell that it belongs to: (m,)."""

    y: Array
    x: Array
    weight: Array
    cell: NDArray[np.int64]
    reach: int

    def powers(self, axes: list[NDArray], place: tuple[Array, Array]) -> Iterator[tuple[Window, Array]]:
        """For each site its window in the box and the power distance of the window's pixels, in square pixels."""
        for y, x, weight in zip(self.y, self.x, self.weight, strict=True):
            window = _window((y, x), self.reach, axes)
            yield window, (place[0][window] - y) ** 2 + (place[1][window] - x) ** 2 - weight


def _window(centre: tuple[float, float], reach: int, axes: list[NDArray]) -> Window:
    first = [min(max(int(c) - reach - int(a[0]), 0), len(a)) for c, a in zip(centre, axes, strict=True)]
    last = [min(max(int(c) + reach + 1 - int(a[0]), 0), len(a)) for c, a in zip(centre, axes, strict=True)]
    return slice(first[0], last[0]), slice(first[1], last[1])
