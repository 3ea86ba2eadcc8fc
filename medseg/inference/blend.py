"""Sliding windows: overlapping windows are averaged, each weighted towards its middle, and one slab is held at a time.

The result is that of MONAI's ``sliding_window_inference`` on the whole array: the same windows, the same weights, the
same zeros around a scan that is smaller than a window. Only the rows that windows still add to are held:

    slab axis ->  0       s       2s      3s      4s              n
    window 0      |<----- roi ----->|     |       |               |
    window 1      |       |<----- roi ----->|     |               |
    window 2      |       |       |<----- roi ----->|             |
    ...           |       |       |       |     the last one ends with the scan
    last          |       |       |       |       |<---- roi ---->|
    slabs         |   0   |   1   |   2   |  ...  |     last      |
                          ^ once window 0 is added, nothing more comes to the rows before s: slab 0 is final

Where the view's grid is not the file's, values between two voxels are interpolated, and a slab ends one voxel (the
spare) before what is final.

Legend: N windows in a batch, C channels, K output channels, roi a window's shape, s the distance between windows.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain, groupby, pairwise, product
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.errors import ConfigError, TileError, nearest
from medseg.geometry import Box
from medseg.geometry.tiling import unravel
from medseg.inference.emit import Decided, Emitter, Output, wanted_voxels
from medseg.inference.journal import Journal
from medseg.inference.pipeline import AHEAD, Clock, Progress, flow
from medseg.inference.segment import Pace, Report, as_input, check_channels
from medseg.networks.network import Network
from medseg.scans.gridmap import grid_map
from medseg.scans.protocol import MaskSink, Scan
from medseg.scans.views import check_finite

Mode = Literal["gaussian", "constant"]

LEAST_WEIGHT = 1e-3
"""MONAI raises the weights of a window's corners to this, so that none vanishes."""
PIECE_VALUES = 2**23
"""Values (voxels times channels, of the finer of the two grids) that are decided at once."""


@dataclass(frozen=True)
class Blending:
    """How windows overlap, and what each counts where they do.

    Attributes:
        roi: a window's shape, in voxels of the view.
        overlap: the part of a window that the next one covers again, one number an axis or one for all.
        mode: ``gaussian`` counts a window's middle for more, ``constant`` all of it alike.
        sigma_scale: the Gaussian's sigma, as a part of the roi.

    Raises:
        ConfigError: for values that make no windows.
    """

    roi: tuple[int, ...]
    overlap: float | tuple[float, ...] = 0.5
    mode: Mode = "gaussian"
    sigma_scale: float = 0.125

    def __post_init__(self) -> None:
        roi, overlap = tuple(self.roi), self.overlap
        if not roi or not all(isinstance(n, int) and n >= 1 for n in roi):
            raise ConfigError(f"roi {roi}: a window needs a whole number of voxels, 1 or more, along each axis")
        object.__setattr__(self, "roi", roi)
        if not isinstance(overlap, int | float):
            object.__setattr__(self, "overlap", tuple(overlap))
        if len(self.overlaps) != len(roi) or not all(0 <= o < 1 for o in self.overlaps):
            raise ConfigError(f"overlap {overlap}: give a number from 0 to below 1, or one for each axis of roi {roi}")
        if self.mode not in get_args(Mode):
            hint = nearest(str(self.mode), get_args(Mode))
            raise ConfigError(f"blending mode {self.mode!r} is neither gaussian nor constant{hint}")
        if not 0 < self.sigma_scale < math.inf:
            raise ConfigError(f"sigma_scale {self.sigma_scale} must be a number above 0")

    @property
    def overlaps(self) -> tuple[float, ...]:
        """The overlap along each axis."""
        return self.overlap if isinstance(self.overlap, tuple) else (self.overlap,) * len(self.roi)

    def weights(self) -> Tensor:
        """(\\*roi) float32: what each voxel of a window counts; rounded as MONAI rounds it."""
        if self.mode == "constant":
            return torch.ones(self.roi)
        weights = torch.ones(())
        for n in self.roi:
            x = torch.arange(-(n - 1) / 2, (n - 1) / 2 + 1)
            weights = weights.unsqueeze(-1) * torch.exp(x**2 / (-2 * (n * self.sigma_scale) ** 2))
        return weights.clamp(min=max(weights.min().item(), LEAST_WEIGHT))

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Blending:
        """What :meth:`to_dict` gave; all but the roi may be missing.

        Raises:
            ConfigError: where it is not that.
        """
        keys = {"roi", "overlap", "mode", "sigma_scale"}
        if not isinstance(content, Mapping) or "roi" not in content or not set(content) <= keys:
            raise ConfigError(
                f"sliding windows have the keys roi, overlap, mode and sigma_scale; these are {content!r}"
            )
        return cls(**content)


@dataclass(frozen=True)
class Window:
    """One window's place.

    Attributes:
        index: its number among all windows; those of one slab follow each other.
        slab: its position along the slab axis. Once the windows of slab i are added, slab i is final.
        box: in voxels of the view; it overhangs where the roi is larger.
    """

    index: int
    slab: int
    box: Box


@dataclass(frozen=True)
class Step:
    """A window that is added to the sums, and the slabs that are final then."""

    window: Window
    final: tuple[int, ...]


@dataclass(frozen=True)
class Windows:
    """The windows over a view, in the order in which they are added, and the slabs that become final.

    Attributes:
        extent: the view's shape.
        blending: how windows overlap.
        spare: 1 where the view's grid is not the file's, else 0.

    Raises:
        TileError: where the roi has another number of axes.
    """

    extent: tuple[int, ...]
    blending: Blending
    spare: int = 0

    @classmethod
    def over(cls, view: Scan, blending: Blending) -> Windows:
        """Those over what the network sees."""
        return cls(view.shape, blending, 0 if grid_map(view).identity else 1)

    def __post_init__(self) -> None:
        if len(self.extent) != len(self.blending.roi):
            raise TileError(f"roi {self.blending.roi} and the scan {self.extent} have different numbers of axes")

    @cached_property
    def step(self) -> tuple[int, ...]:
        """The distance between windows along each axis."""
        roi, overlaps = self.blending.roi, self.blending.overlaps
        return tuple(max(int(n * (1 - overlap)), 1) for n, overlap in zip(roi, overlaps, strict=True))

    @cached_property
    def starts(self) -> tuple[tuple[int, ...], ...]:
        """Where windows begin along each axis; before the view where the roi is larger."""
        return tuple(map(_starts, self.extent, self.blending.roi, self.step))

    @cached_property
    def axis(self) -> int:
        """The slab axis: the one across which the fewest voxels are held, the longest where the roi is a cube."""
        return min(range(len(self.extent)), key=lambda a: (self.blending.roi[a] / self.extent[a], a))

    @property
    def slabs(self) -> int:
        """How many slabs there are."""
        return len(self.starts[self.axis])

    @cached_property
    def held(self) -> tuple[int, ...]:
        """The shape of what is held: the view's, and along the slab axis a window's and the spare row."""
        rows = min(self.blending.roi[self.axis] + self.spare, self.extent[self.axis])
        return tuple(rows if a == self.axis else n for a, n in enumerate(self.extent))

    def held_bytes(self, channels: int, batch: int = 1, ahead: int = AHEAD, itemsize: int = 4) -> int:
        """The most that is held for K ``channels``: sums and weights, and the slabs that wait to be written."""
        rows, across = self.held[self.axis], math.prod(self.held) // self.held[self.axis]
        at_once = -(-batch * self.slabs // len(self))  # slabs that are final with one batch
        waiting = rows + min((ahead + 1) * at_once - 1, self.slabs - 1) * min(self.step[self.axis], rows)
        return itemsize * across * ((channels + 1) * rows + channels * waiting)

    def rows(self, slab: int) -> tuple[int, int]:
        """The rows along the slab axis, ``start <= row < stop``, that are final with a slab and were not before."""
        starts, n = self.starts[self.axis], self.extent[self.axis]
        start = starts[slab] - self.spare if slab else 0
        return start, starts[slab + 1] - self.spare if slab + 1 < len(starts) else n

    def slab(self, slab: int, wanted: Box) -> Box:
        """The voxels of ``wanted`` that are final with a slab and were not before; may be empty."""
        start, stop = self.rows(slab)
        return _replaced(wanted, self.axis, max(start, wanted.start[self.axis]), min(stop, wanted.stop[self.axis]))

    def with_spare(self, box: Box) -> Box:
        """A box and what interpolating in it needs beyond it."""
        return Box(box.start, tuple(b + self.spare for b in box.stop)).clip(self.extent)

    def __len__(self) -> int:
        return math.prod(map(len, self.starts))

    def __getitem__(self, index: int) -> Window:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        place = unravel(index, [len(self.starts[a]) for a in self._order])
        start = [0] * len(self.extent)
        for a, i in zip(self._order, place, strict=True):
            start[a] = self.starts[a][i]
        return Window(index, place[0], Box.of(self.blending.roi).shift(start))

    def needed(self, slabs: Collection[int], wanted: Box) -> tuple[list[int], list[range]]:
        """What touches these slabs' part of ``wanted``: positions along the slab axis, and along each other axis."""
        positions: set[int] = set()
        for slab in slabs:
            box = self.with_spare(self.slab(slab, wanted))
            positions.update(self._touching(self.axis, box))
        return sorted(positions), [self._touching(a, self.with_spare(wanted)) for a in self._order[1:]]

    def steps(self, slabs: Collection[int], wanted: Box) -> Iterator[Step]:
        """The windows that these slabs' part of ``wanted`` needs, in order, and when each slab is final."""
        counts = [len(self.starts[a]) for a in self._order]
        along, across = self.needed(slabs, wanted)
        indices = (int(np.ravel_multi_index(place, counts)) for place in product(along, *across))
        for window, following in pairwise(chain((self[i] for i in indices), [None])):
            if window is not None:
                until = self.slabs if following is None else following.slab
                yield Step(window, tuple(s for s in range(window.slab, until) if s in slabs))

    @cached_property
    def _order(self) -> tuple[int, ...]:
        """The axes, the one along which windows follow each other last being the fastest."""
        return (self.axis, *(a for a in range(len(self.extent)) if a != self.axis))

    def _touching(self, axis: int, box: Box) -> range:
        """The positions along an axis of the windows that touch a box."""
        starts = self.starts[axis]
        first = bisect_right(starts, box.start[axis] - self.blending.roi[axis])
        return range(first, bisect_left(starts, box.stop[axis]))


def check_roi(network: Network, roi: Sequence[int]) -> None:
    """Refuses a window that the network cannot take, or would not answer for as a whole.

    Raises:
        TileError: with the sizes that would do, or the reason.
    """
    network.check_window(roi)
    lost = tuple(f.trim for f in network.fields)
    if any(lost):
        answered = tuple(n - t for n, t in zip(roi, lost, strict=True))
        raise TileError(
            f"this network answers for {answered} of a window of {tuple(roi)}: its convolutions are valid, and sliding "
            "windows average whole ones; use tiles (--tile-overlap), which are exact"
        )


def blend(
    scan: Scan,
    network: Network,
    blending: Blending,
    sink: MaskSink | Output,
    journal: Journal | None = None,
    pace: Pace | None = None,
    report: Report | None = None,
) -> Progress:
    """Segments a scan by sliding windows into a sink on the scan's own grid; the sink is left open.

    Args:
        scan: what the network sees, a view of the file (float). Where the view turned or resampled it,
            probabilities are interpolated back and decided on the file's own grid.
        network: as :func:`medseg.inference.segment.prepare` leaves it; its output must be as large as its window.
        blending: windows and weights.
        sink: a mask (classes by arg-max) or an :class:`Output` that says more.
        journal: slabs that it holds are skipped, slabs that are written are recorded. A batch that an unfinished slab
            needs is computed whole again, so that the bytes are those of a run that was not stopped.
        pace: windows in a batch and batches ahead; its span counts slabs, its beam means nothing here. An output's part
            leaves out the batches that don't touch it.
        report: called after each batch.

    Raises:
        GridError: where the scan's channels are not the network's.
        TileError: where the network cannot take the roi, or does not answer for all of it.
        ScanError: where a window holds NaN or inf, or cannot be read.
    """
    check_channels(scan, network)
    check_roi(network, blending.roi)
    output = sink if isinstance(sink, Output) else Output(sink)
    job = _Job(scan, network, output, Windows.over(scan, blending), journal, pace or Pace())
    begun = time.perf_counter()
    with torch.inference_mode():
        for batch in flow(job.batches(), job.read, job.compute, job.write, job.pace.ahead):
            job.progress.done += len(batch.steps)
            job.progress.loop_seconds = time.perf_counter() - begun
            if report is not None:
                report(job.progress)
    job.progress.loop_seconds = time.perf_counter() - begun
    return job.progress


@dataclass(frozen=True)
class _Batch:
    """Windows that go through the network together, and those of them that are added."""

    windows: list[Window]
    steps: list[Step]


@dataclass(frozen=True)
class _Final:
    """A slab that is final: pieces as logits, or decided where the network runs on a GPU."""

    slab: int
    pieces: list[tuple[Box, Tensor | Decided]]


class _Job:
    """One segmentation: its fixed parts, the sums, and the three stages of a batch."""

    def __init__(
        self,
        scan: Scan,
        network: Network,
        output: Output,
        windows: Windows,
        journal: Journal | None,
        pace: Pace,
    ) -> None:
        self.scan, self.network, self.output, self.windows = scan, network, output, windows
        self.journal, self.pace = journal, pace
        parameter = next(network.parameters())
        self.device = parameter.device
        self.emit = Emitter(scan, output)
        self.wanted = _wanted(scan, output.part)
        dtype = torch.promote_types(parameter.dtype, torch.float32)
        hold = pace.hold or self.device
        self.sums = _Sums(windows, self.wanted, network.out_channels, dtype, hold)
        self.weights = windows.blending.weights().to(hold, dtype)
        span = range(windows.slabs) if pace.span is None else pace.span
        slabs = [s for s in span if windows.slab(s, self.wanted).voxels]
        done = frozenset() if journal is None else journal.done
        self.todo = frozenset(slabs) - done
        tiles = self._count(slabs)
        before = tiles - self._count(self.todo)
        self.progress = Progress(tiles, before, before, wanted_voxels(scan, output))

    def _count(self, slabs: Collection[int]) -> int:
        along, across = self.windows.needed(slabs, self.wanted)
        return len(along) * math.prod(map(len, across))

    def batches(self) -> Iterator[_Batch]:
        """The batches with a window that an unfinished slab needs; how windows are grouped depends on nothing else."""
        size, total = self.pace.batch, len(self.windows)
        steps = self.windows.steps(self.todo, self.wanted)
        for number, members in groupby(steps, lambda step: step.window.index // size):
            indices = range(number * size, min((number + 1) * size, total))
            yield _Batch([self.windows[i] for i in indices], list(members))

    def read(self, batch: _Batch) -> Tensor:
        """(N, C, \\*roi) in the network's precision and layout, ready to go to its device."""
        begun = time.perf_counter()
        windows = np.stack([self._read(window.box) for window in batch.windows])
        x = as_input(windows, self.network, self.device)
        self.progress.read.add(time.perf_counter() - begun, windows.nbytes)
        return x

    def _read(self, box: Box) -> NDArray[Any]:
        """(C, \\*roi), zero outside of the view."""
        inside = box.clip(self.scan.shape)
        voxels = self.scan.read(inside)
        check_finite(self.scan, inside, voxels)
        if inside == box:
            return voxels
        around = np.zeros((self.scan.channels, *box.shape), voxels.dtype)
        around[(slice(None), *_within(inside, box).slices)] = voxels
        return around

    def compute(self, batch: _Batch, windows: Tensor) -> tuple[list[_Final], Clock]:
        """(N, C, \\*roi) → the slabs that are final with these windows, in order."""
        with Clock(self.device) as clock, torch.autocast(self.device.type, enabled=self.pace.amp):
            logits = self.network(windows.to(self.device, non_blocking=True))
        final = []
        for step in batch.steps:
            self.sums.drop_before(self.windows.rows(step.window.slab)[0])
            self.sums.add(step.window.box, logits[step.window.index - batch.windows[0].index], self.weights)
            final += [_Final(slab, self._pieces(slab)) for slab in step.final]
        return final, clock.mark()

    def _pieces(self, slab: int) -> list[tuple[Box, Tensor | Decided]]:
        self.sums.drop_before(self.windows.rows(slab)[0])
        pieces: list[tuple[Box, Tensor | Decided]] = []
        for piece in self._cut(self.windows.slab(slab, self.wanted)):
            logits = self.sums.mean(self.windows.with_spare(piece))
            decided = self.emit.decide(piece, logits).to_host() if logits.device.type == "cuda" else logits
            pieces.append((piece, decided))
        return pieces

    def _cut(self, slab: Box) -> Iterator[Box]:
        """The slab in pieces that are decided at once; none shares a chunk of the sink with another if it can be."""
        grid, part = grid_map(self.scan), self.output.part
        origin = part.start if part is not None and grid.identity else (0,) * slab.ndim
        unit = self.output.sink.chunks if grid.identity else (1,) * slab.ndim
        finer = max(1.0, 1 / abs(math.prod(grid.scale)))
        most = int(PIECE_VALUES / finer) // self.network.out_channels
        yield from pieces_of(slab, _piece_shape(slab.shape, unit, most), origin)

    def write(self, batch: _Batch, found: tuple[list[_Final], Clock]) -> None:
        """Decides what is not decided, writes, records."""
        final, clock = found
        clock.wait()
        self.progress.network.add(clock.seconds(), 0)
        for slab in final:
            begun = time.perf_counter()
            written = 0
            with torch.inference_mode():
                while slab.pieces:
                    piece, value = slab.pieces.pop(0)
                    written += self.emit.put(value if isinstance(value, Decided) else self.emit.decide(piece, value))
            if self.journal is not None:
                self.output.flush()
                self.journal.record([slab.slab])
            self.progress.write.add(time.perf_counter() - begun, written)


class _Sums:
    """Weighted logits and their weights, over the rows that windows still add to.

    Args:
        windows: whose sums these are.
        wanted: the part of the view that is answered for.
        channels: K.
        dtype: of the sums.
        device: where they are held.
    """

    def __init__(self, windows: Windows, wanted: Box, channels: int, dtype: torch.dtype, device: torch.device) -> None:
        self.axis = windows.axis
        self.box = _replaced(windows.with_spare(wanted), self.axis, 0, windows.held[self.axis])
        self._values = torch.zeros((channels + 1, *self.box.shape), dtype=dtype, device=device)

    def add(self, box: Box, logits: Tensor, weights: Tensor) -> None:
        """Adds a window: (K, \\*roi) logits with (\\*roi) weights; what lies beyond the rows held is left out."""
        common = Box(tuple(map(max, box.start, self.box.start)), tuple(map(min, box.stop, self.box.stop)))
        there = _within(common, box).slices
        sums, counts = self._of(common)
        sums.addcmul_(logits[(slice(None), *there)].to(weights), weights[there])
        counts.add_(weights[there])

    def mean(self, box: Box) -> Tensor:
        """(K, \\*box.shape): the blended logits of a box that is final, a new tensor."""
        sums, counts = self._of(box)
        return sums / counts

    def _of(self, box: Box) -> tuple[Tensor, Tensor]:
        """The sums (K, \\*n) and the weights (\\*n) of a box, as they are held."""
        values = self._values[(slice(None), *_within(box, self.box).slices)]
        return values[:-1], values[-1]

    def drop_before(self, row: int) -> None:
        """Forgets the rows before ``row`` and makes room for as many behind."""
        dropped, rows = row - self.box.start[self.axis], self.box.shape[self.axis]
        if dropped <= 0:
            return
        values, dim = self._values, self.axis + 1
        for to in range(0, rows - dropped, dropped):  # block by block, since a copy onto itself must not overlap
            n = min(dropped, rows - dropped - to)
            values.narrow(dim, to, n).copy_(values.narrow(dim, to + dropped, n))
        kept = max(rows - dropped, 0)
        values.narrow(dim, kept, rows - kept).zero_()
        self.box = _replaced(self.box, self.axis, row, row + rows)


def pieces_of(box: Box, shape: Sequence[int], origin: Sequence[int]) -> Iterator[Box]:
    """A box in pieces of at most ``shape``, cut at its multiples counted from ``origin``, in C order."""
    for sides in product(*map(_cuts, box.start, box.stop, shape, origin)):
        yield Box(tuple(a for a, _ in sides), tuple(b for _, b in sides))


def _cuts(start: int, stop: int, size: int, zero: int) -> list[tuple[int, int]]:
    if stop - start <= size:
        return [(start, stop)] if stop > start else []
    return list(pairwise([start, *range(start + size - (start - zero) % size, stop, size), stop]))


def _piece_shape(shape: Sequence[int], unit: Sequence[int], most: int) -> tuple[int, ...]:
    """A shape of at most ``most`` voxels (or one), in whole units along each axis as long as that is possible."""
    sizes = [-(-n // u) * u for n, u in zip(shape, unit, strict=True)]
    while math.prod(sizes) > max(most, 1):
        axis = max((a for a in range(len(sizes)) if sizes[a] > 1), key=lambda a: sizes[a] / unit[a])
        half, u = -(-sizes[axis] // 2), unit[axis]
        sizes[axis] = -(-half // u) * u if sizes[axis] > u else half
    return tuple(sizes)


def _starts(n: int, roi: int, step: int) -> tuple[int, ...]:
    """Where windows begin along one axis: the last ends with the scan, a single one that is larger surrounds it."""
    if n <= roi:
        return (-((roi - n) // 2),)
    return tuple(min(i * step, n - roi) for i in range(-(-(n - roi) // step) + 1))


def _wanted(scan: Scan, part: Box | None) -> Box:
    """The voxels of the view that answer for a part of the file's own grid."""
    if part is None:
        return Box.of(scan.shape)
    grid, start, stop = grid_map(scan), [], []
    for a, (b, n) in enumerate(zip(grid.axes, scan.shape, strict=True)):
        below = np.floor(grid.coordinates(a, part.start[b], part.stop[b], n))
        start.append(int(below.min()))
        stop.append(int(below.max()) + 1)
    return Box(tuple(start), tuple(stop))


def _within(box: Box, outer: Box) -> Box:
    """The box in the coordinates of another one."""
    return box.shift([-a for a in outer.start])


def _replaced(box: Box, axis: int, start: int, stop: int) -> Box:
    """The box with another side along one axis."""
    return Box(
        (*box.start[:axis], start, *box.start[axis + 1 :]),
        (*box.stop[:axis], max(start, stop), *box.stop[axis + 1 :]),
    )
