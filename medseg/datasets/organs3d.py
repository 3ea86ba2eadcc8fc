"""An abdomen as computed tomography shows it, in Hounsfield units (HU), with contrast agent in the vessels.

Every organ is a solid: a field that is positive inside and falls by about 1 a millimetre. Solids are painted
one over the other, each with the share of the voxel that it fills (partial volume), onto a body that is
warped smoothly from case to case. Unlabelled neighbours (muscle, stomach, bowel, bone) look much like the
organs. World: x right, y anterior, z superior, in millimetres about the body's centre. Legend: (nx, ny, nz) a
box of voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medseg.datasets.noise import Array, seed_of, smooth, step, white
from medseg.geometry import Box

VIEW_MM = (360.0, 270.0, 250.0)
"""What a scan shows of the body along x, y and z."""
LIVER, KIDNEY, SPLEEN, VESSEL = 1, 2, 3, 4
HALO = 3
Point = tuple[float, float, float]
Window = tuple[slice, slice, slice]
Depth = Callable[[Array, Array, Array], Array]


@dataclass(frozen=True)
class Scanner:
    """How the body is imaged; HU unless said otherwise."""

    warps_mm: tuple[tuple[float, float], ...] = ((110.0, 6.0), (45.0, 2.0))
    texture: float = 5.0
    noise: float = 16.0
    noise_blur: tuple[float, float, float] = (0.6, 0.6, 0.0)
    cupping: float = 22.0
    trend: float = 7.0
    air: float = -1000.0
    fat: float = -98.0
    wall: float = 48.0


@dataclass(frozen=True)
class Solid:
    """Something to paint.

    Attributes:
        centre: of the box that it lies in.
        reach: half the sides of that box, in millimetres.
        hu: its density.
        label: its class, or None to keep that of what lies below.
        depth: its field at x, y and z.
    """

    centre: Point
    reach: Point
    hu: float
    label: int | None
    depth: Depth


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a scan lie; axes run along the world's, some backwards.

    Attributes:
        shape: voxels along x, y and z.
        signs: 1 or -1 for each axis: LPS is (-1, -1, 1).
    """

    shape: tuple[int, int, int]
    signs: tuple[int, int, int] = (1, 1, 1)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """The same along x and y, as a scanner has it."""
        plane = max(VIEW_MM[0] / self.shape[0], VIEW_MM[1] / self.shape[1])
        return plane, plane, VIEW_MM[2] / self.shape[2]

    @property
    def affine(self) -> NDArray[np.float64]:
        """4 x 4: voxel indices to RAS+ millimetres."""
        steps = np.array(self.signs) * self.spacing_mm
        affine = np.diag([*steps, 1.0])
        affine[:3, 3] = -steps * (np.array(self.shape) - 1) / 2
        return affine

    def lines(self, box: Box) -> list[Array]:
        """The world coordinates of a box's voxels along each axis."""
        pairs = zip(np.diag(self.affine), self.affine[:3, 3], box.start, box.stop, strict=False)
        return [(origin + step_mm * np.arange(a, b)).astype(np.float32) for step_mm, origin, a, b in pairs]


@dataclass(frozen=True)
class Organs3d:
    """One case: a body on a grid, any box of which can be rendered by itself."""

    seed: int
    grid: Grid
    scanner: Scanner = field(default_factory=Scanner)

    def render(self, box: Box) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """The image in HU and the labels, each (nx, ny, nz)."""
        lines = self.grid.lines(box)
        hu, labels = self._painted(lines)
        hu += self._shading(lines, hu) + self._noise(box)
        return np.rint(hu).clip(-1024, 3071).astype(np.int16), labels

    def _seed(self, purpose: str) -> int:
        return seed_of(self.seed, purpose)

    @cached_property
    def _solids(self) -> list[Solid]:
        return list(anatomy(np.random.default_rng(self.seed)))

    def _painted(self, lines: list[Array]) -> tuple[Array, NDArray[np.uint8]]:
        warped = self._warped(lines)
        shape = (len(lines[0]), len(lines[1]), len(lines[2]))
        hu = np.full(shape, self.scanner.air, np.float32)
        labels = np.zeros(shape, np.uint8)
        soft = np.float32(np.prod(self.grid.spacing_mm) ** (1 / 3))
        slack = 3 * sum(amplitude for _, amplitude in self.scanner.warps_mm)
        for solid in (*body(self.scanner), *self._solids):
            window = _window(solid, slack, lines)
            if any(w.start >= w.stop for w in window):
                continue
            depth = solid.depth(*(w[window] for w in warped))
            share = (depth / soft + np.float32(0.5)).clip(0, 1)
            hu[window] += (np.float32(solid.hu) - hu[window]) * share
            if solid.label is not None:
                np.copyto(labels[window], np.uint8(solid.label), where=depth > 0)
        return hu, labels

    def _warped(self, lines: list[Array]) -> list[Array]:
        warped = []
        for axis in range(3):
            place = lines[axis].reshape([-1 if axis == a else 1 for a in range(3)])
            for period, amplitude in self.scanner.warps_mm:
                place = place + np.float32(amplitude) * smooth(self._seed(f"warp {period} {axis}"), lines, period)
            warped.append(place)
        return warped

    def _shading(self, lines: list[Array], hu: Array) -> Array:
        """What bends the numbers: beam hardening darkens the middle, a trend runs through, tissue has texture."""
        x, y, _ = np.ix_(*lines)
        middle = np.exp(-((x / 110) ** 2) - (y / 80) ** 2)
        tissue = step(hu, -250, -60)
        trend = np.float32(self.scanner.trend) * smooth(self._seed("trend"), lines, 160)
        texture = np.float32(self.scanner.texture) * smooth(self._seed("texture"), lines, 9)
        bent = tissue * (trend + texture - np.float32(self.scanner.cupping) * middle)
        return bent.astype(np.float32)

    def _noise(self, box: Box) -> Array:
        from scipy.ndimage import gaussian_filter

        wide = box.grow(HALO)
        drawn = white(self._seed("noise"), [np.arange(a, b) for a, b in zip(wide.start, wide.stop, strict=True)])
        blurred = gaussian_filter(drawn, self.scanner.noise_blur, radius=HALO)[Box.of(wide.shape).grow(-HALO).slices]
        gain = np.prod([np.sqrt(2 * np.sqrt(np.pi) * s) if s else 1.0 for s in self.scanner.noise_blur])
        noise: Array = blurred * np.float32(self.scanner.noise * gain)
        return noise


def body(scanner: Scanner) -> Iterator[Solid]:
    """Skin and fat, then the wall of muscle, then the fat of the cavity."""
    for radii, hu in (
        ((166.0, 118.0), scanner.fat),
        ((150.0, 102.0), scanner.wall),
        ((138.0, 90.0), scanner.fat),
    ):
        yield Solid((0, 0, 0), (radii[0], radii[1], 1e4), hu, 0, _column((0, 0), radii))


def anatomy(rng: np.random.Generator) -> Iterator[Solid]:
    """What lies in the body, in the order of painting; sizes, places and HU vary with ``rng``."""

    def vary(spread: float) -> float:
        return float(rng.uniform(-spread, spread))

    def moved(point: Point, spread: float = 5.0) -> Point:
        return point[0] + vary(spread), point[1] + vary(spread), point[2] + vary(spread)

    def sized(radii: Point, spread: float = 0.1) -> Point:
        return radii[0] * (1 + vary(spread)), radii[1] * (1 + vary(spread)), radii[2] * (1 + vary(spread))

    yield from _chest()
    yield from _bowel(rng)
    for side in (-1.0, 1.0):
        yield _solid((side * 38, -58, -70), (19, 19, 95), 56 + vary(5), 0)
        yield _solid((side * 36, -84, 0), (30, 15, 1e4), 54 + vary(5), 0)
    yield from _stomach(moved((-58, 38, 48)), sized((46, 34, 36)), 42 + vary(12))
    lobes = moved((80, 6, 30)), moved((12, 38, 42))
    liver = _in_cavity(_liver(*lobes, sized((58, 72, 68)), sized((62, 34, 32)), 104 + vary(9)))
    yield liver
    yield _in_cavity(_solid(moved((-106, -28, 42)), sized((28, 48, 42)), 118 + vary(9), SPLEEN))
    kidneys = [moved((66, -52, -34)), moved((-66, -50, -20))]
    for centre in kidneys:
        yield from _kidney(centre, sized((25, 24, 48)), 158 + vary(12))
    yield from _spine()
    yield from _ribs()
    yield from _vessels(rng, liver, kidneys, 172 + vary(12))


def _solid(centre: Point, radii: Point, hu: float, label: int | None) -> Solid:
    return Solid(centre, radii, hu, label, _ellipsoid(centre, radii))


def _ellipsoid(centre: Point, radii: Point) -> Depth:
    """|gradient| = 1 on the axes' ends, by the quotient of the two norms that iso-surfaces of an ellipsoid have."""
    c, r = np.array(centre, np.float32), np.array(radii, np.float32)

    def depth(x: Array, y: Array, z: Array) -> Array:
        u, v, w = (x - c[0]) / r[0], (y - c[1]) / r[1], (z - c[2]) / r[2]
        norm = np.sqrt(u * u + v * v + w * w)
        slope = np.sqrt((u / r[0]) ** 2 + (v / r[1]) ** 2 + (w / r[2]) ** 2)
        inside: Array = norm * (1 - norm) / np.maximum(slope, np.float32(1e-6))
        return inside

    return depth


def _column(centre: tuple[float, float], radii: tuple[float, float]) -> Depth:
    return _ellipsoid((*centre, 0.0), (*radii, 1e6))


def _both(first: Depth, second: Depth) -> Depth:
    """What lies in both."""
    return lambda x, y, z: np.minimum(first(x, y, z), second(x, y, z))


def _in_cavity(solid: Solid) -> Solid:
    """What of a solid lies within the ribs."""
    cavity = _column((0, 0), (136, 88))
    return replace(solid, depth=_both(solid.depth, cavity))


def _chest() -> Iterator[Solid]:
    """Heart and lungs above the two domes of the diaphragm."""
    cavity, middle = _column((0, 0), (136, 88)), _column((-6, 4), (40, 66))

    def above(x: Array, y: Array, z: Array) -> Array:
        return z - 92 + np.float32(0.007) * ((np.abs(x) - 70) ** 2 + y * y)

    yield Solid((-6, 4, 110), (40, 66, 60), 60, 0, lambda x, y, z: np.minimum(middle(x, y, z), above(x, y, z) - 8))
    yield Solid(
        (0, 0, 90),
        (136, 88, 110),
        -845,
        0,
        lambda x, y, z: np.minimum(np.minimum(cavity(x, y, z), above(x, y, z)), -middle(x, y, z)),
    )


def _liver(right: Point, left: Point, right_radii: Point, left_radii: Point, hu: float) -> Solid:
    """Two lobes that flow into each other."""
    lobes = _ellipsoid(right, right_radii), _ellipsoid(left, left_radii)

    def depth(x: Array, y: Array, z: Array) -> Array:
        a, b = (lobe(x, y, z) for lobe in lobes)
        joined: Array = (a + b + np.sqrt((a - b) ** 2 + 300)) / 2
        return joined

    centre = (right[0] - 30, right[1] + 12, right[2])
    return Solid(centre, (right_radii[0] + 70, right_radii[1] + 25, right_radii[2] + 25), hu, LIVER, depth)


def _kidney(centre: Point, radii: Point, hu: float) -> Iterator[Solid]:
    """A bean: the side towards the spine is hollowed out, and holds fat."""
    whole = _ellipsoid(centre, radii)
    hollow = _ellipsoid((centre[0] - np.sign(centre[0]) * radii[0] * 0.95, centre[1] + 4, centre[2]), (15, 13, 19))

    def depth(x: Array, y: Array, z: Array) -> Array:
        return np.minimum(whole(x, y, z), -hollow(x, y, z))

    yield Solid(centre, radii, hu, KIDNEY, depth)


def _stomach(centre: Point, radii: Point, hu: float) -> Iterator[Solid]:
    """Food, and above it (the patient lies on his back) air."""
    whole = _ellipsoid(centre, radii)
    level = np.float32(centre[1] + 0.45 * radii[1])
    yield Solid(centre, radii, hu, 0, whole)
    yield Solid(centre, radii, -880, None, lambda x, y, z: np.minimum(whole(x, y, z) - 4, y - level))


def _bowel(rng: np.random.Generator) -> Iterator[Solid]:
    for _ in range(70):
        centre = (float(rng.uniform(-105, 105)), float(rng.uniform(-25, 66)), float(rng.uniform(-140, -15)))
        long = float(rng.uniform(16, 34))
        radii = [long, float(rng.uniform(11, 16)), float(rng.uniform(11, 16))]
        rng.shuffle(radii)
        yield _solid(centre, (radii[0], radii[1], radii[2]), float(rng.uniform(15, 95)), 0)
        if rng.random() < 0.25:
            yield _solid((centre[0], centre[1] + 4, centre[2]), (radii[0] - 6, radii[1] - 6, radii[2] - 6), -860, None)


def _spine() -> Iterator[Solid]:
    def vertebra(x: Array, y: Array, z: Array) -> Array:
        disc = np.abs(np.mod(z, np.float32(34)) - 17) - 5
        return np.minimum(column(x, y, z), disc)

    column = _column((0, -66), (21, 16))
    yield Solid((0, -66, 0), (21, 16, 1e4), 92, 0, column)
    yield Solid((0, -66, 0), (21, 16, 1e4), 520, 0, vertebra)
    yield Solid((0, -66, 0), (21, 16, 1e4), 215, 0, lambda x, y, z: vertebra(x, y, z) - 3)
    yield Solid((0, -90, 0), (14, 12, 1e4), 430, 0, _column((0, -90), (14, 12)))
    yield Solid((0, -89, 0), (9, 7, 1e4), 22, 0, _column((0, -89), (9, 7)))


def _ribs() -> Iterator[Solid]:
    cage = _column((0, 0), (142, 94))

    def ribs(x: Array, y: Array, z: Array) -> Array:
        across = 4.5 - np.abs(np.mod(z + np.float32(0.45) * y, np.float32(30)) - 15)
        upper = z + 20 + np.float32(0.3) * np.abs(y)
        return np.minimum(np.minimum(across, 3.5 - np.abs(cage(x, y, z))), upper)

    yield Solid((0, 0, 60), (148, 100, 110), 390, 0, ribs)


def _vessels(rng: np.random.Generator, liver: Solid, kidneys: Sequence[Point], hu: float) -> Iterator[Solid]:
    """Aorta and vena cava, the kidneys' vessels, and the portal vein's tree in the liver."""
    aorta, cava = (-12.0, -38.0), (18.0, -36.0)
    yield Solid((*aorta, 0), (9.5, 9.5, 1e4), hu + 10, VESSEL, _column(aorta, (9.5, 9.5)))
    yield Solid((*cava, 0), (11.5, 8.5, 1e4), hu - 18, VESSEL, _column(cava, (11.5, 8.5)))
    for kidney in kidneys:
        start = (aorta if kidney[0] < 0 else cava, kidney[2] + 8)
        hilum = (kidney[0] - np.sign(kidney[0]) * 20, kidney[1] + 3, kidney[2])
        yield _tube((*start[0], start[1]), hilum, 5.0, 3.5, hu)
    porta = (34.0, 2.0, 12.0)
    yield _tube((10, -8, -50), porta, 7.0, 7.0, hu)
    yield _tube((-78, -20, 30), (6, -10, -14), 3.5, 5.0, hu)
    for branch in _branches(rng, porta, (0.75, 0.1, 0.65), 46, 6.0):
        yield replace(branch, hu=hu, depth=_both(branch.depth, liver.depth))


def _branches(rng: np.random.Generator, start: Point, heading: Point, length: float, radius: float) -> Iterator[Solid]:
    """A tree: each branch divides into two or three thinner and shorter ones."""
    direction = np.array(heading) / np.linalg.norm(heading)
    x, y, z = np.array(start) + length * direction
    end = (float(x), float(y), float(z))
    yield _tube(start, end, radius, radius * 0.8, 0)
    if radius < 2.6:
        return
    for _ in range(2 + int(rng.random() < 0.5)):
        turned = direction + rng.normal(0, 0.55, 3)
        yield from _branches(rng, end, tuple(turned), length * 0.76, radius * 0.75)


def _tube(start: Point, end: Point, first: float, last: float, hu: float) -> Solid:
    """A straight piece of vessel with round ends, its radius running from ``first`` to ``last``."""
    a = np.array(start, np.float32)
    along = np.array(end, np.float32) - a
    square = np.float32(along @ along)

    def depth(x: Array, y: Array, z: Array) -> Array:
        dx, dy, dz = x - a[0], y - a[1], z - a[2]
        t = ((dx * along[0] + dy * along[1] + dz * along[2]) / square).clip(0, 1)
        off = np.sqrt((dx - t * along[0]) ** 2 + (dy - t * along[1]) ** 2 + (dz - t * along[2]) ** 2)
        inside: Array = first + t * np.float32(last - first) - off
        return inside

    x, y, z = (np.array(start) + np.array(end)) / 2
    rx, ry, rz = np.abs(along) / 2 + max(first, last)
    return Solid((float(x), float(y), float(z)), (float(rx), float(ry), float(rz)), hu, VESSEL, depth)


def _window(solid: Solid, slack: float, lines: list[Array]) -> Window:
    """The voxels of a block in which a solid can be, the warp and half a voxel of partial volume included."""
    sides = []
    for line, centre, reach in zip(lines, solid.centre, solid.reach, strict=True):
        pitch = abs(float(line[1] - line[0])) if len(line) > 1 else 10.0
        near = np.flatnonzero(np.abs(line - np.float32(centre)) <= reach + slack + pitch)
        sides.append(slice(int(near[0]), int(near[-1]) + 1) if len(near) else slice(0, 0))
    return sides[0], sides[1], sides[2]
