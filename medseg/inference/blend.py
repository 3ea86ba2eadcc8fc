"""Sliding windows: overlapping windows are averaged, each weighted towards its middle, and one slab is held at a time.

The result is that of MONAI's ``sliding_window_inference`` on the whole array: the same windows, the same weights, the
same mirror (or zeros) around a scan that is smaller than a window. Only the rows that windows still add to are held
(the figure is in :mod:`medseg.inference.windows`).

Legend: N windows in a batch, C channels, K output channels, roi a window's shape.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise, product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.geometry import Box
from medseg.inference.emit import Decided, Emitter, Output, wanted_voxels
from medseg.inference.journal import Journal
from medseg.inference.pipeline import Clock, Progress, Report, run
from medseg.inference.segment import Pace, as_input, check_channels
from medseg.inference.windows import Blending, Step, Window, Windows, check_roi, replaced
from medseg.networks.network import Network
from medseg.scans.gridmap import grid_map
from medseg.scans.mirror import mirrored
from medseg.scans.protocol import MaskSink, Scan
from medseg.scans.views import check_finite

PIECE_VALUES = 2**23
"""Values (voxels times channels, of the finer of the two grids) that are decided at once."""


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
    return run(job, job.batches(), job.pace.ahead, report)


def outlook(
    scan: Scan, network: Network, blending: Blending, sink: MaskSink | Output, journal: Journal, pace: Pace
) -> tuple[Progress, int]:
    """How far :func:`blend` is before it begins, and how many slabs it will record in the journal."""
    output = sink if isinstance(sink, Output) else Output(sink)
    job = _Job(scan, network, output, Windows.over(scan, blending), journal, pace)
    return job.progress, len(job.todo)


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
        self._dtype = torch.promote_types(parameter.dtype, torch.float32)
        self._hold = pace.hold or self.device
        span = range(windows.slabs) if pace.span is None else pace.span
        slabs = [s for s in span if windows.slab(s, self.wanted).voxels]
        done = frozenset() if journal is None else journal.done
        self.todo = frozenset(slabs) - done
        tiles = self._count(slabs)
        before = tiles - self._count(self.todo)
        self.progress = Progress(tiles, before, before, wanted_voxels(scan, output))

    @cached_property
    def sums(self) -> _Sums:
        """Allotted when the first window is added."""
        return _Sums(self.windows, self.wanted, self.network.out_channels, self._dtype, self._hold)

    @cached_property
    def weights(self) -> Tensor:
        """(\\*roi), where the sums are."""
        return self.windows.blending.weights().to(self._hold, self._dtype)

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

    def tiles(self, batch: _Batch) -> int:
        """Windows that are added."""
        return len(batch.steps)

    def read(self, batch: _Batch) -> Tensor:
        """(N, C, \\*roi) in the network's precision and layout, ready to go to its device."""
        begun = time.perf_counter()
        windows = np.stack([self._read(window.box) for window in batch.windows])
        x = as_input(windows, self.network, self.device)
        self.progress.read.add(time.perf_counter() - begun, windows.nbytes)
        return x

    def _read(self, box: Box) -> NDArray[Any]:
        """(C, \\*roi), padded beyond a view that is smaller."""
        inside = box.clip(self.scan.shape)
        voxels = self.scan.read(inside)
        check_finite(self.scan, inside, voxels)
        if inside == box:
            return voxels
        if self.windows.blending.padding == "mirror":
            return self._mirrored(voxels, box)
        around = np.zeros((self.scan.channels, *box.shape), voxels.dtype)
        around[(slice(None), *_within(inside, box).slices)] = voxels
        return around

    def _mirrored(self, voxels: NDArray[Any], box: Box) -> NDArray[Any]:
        """A window that overhangs, from its voxels within the view: all there are along an axis that it overhangs."""
        for axis, (start, stop, n) in enumerate(zip(box.start, box.stop, self.scan.shape, strict=True)):
            if start < 0 or stop > n:
                voxels = voxels.take(mirrored(start, stop, n), axis + 1)
        return voxels

    def compute(self, batch: _Batch, windows: Tensor) -> tuple[list[_Final], Clock]:
        """(N, C, \\*roi) → the slabs that are final with these windows, in order."""
        with Clock(self.device) as clock, torch.autocast(self.device.type, enabled=self.pace.amp):
            logits = self.network(windows.to(self.device, non_blocking=True))
        self.progress.network.bytes += logits.nbytes
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
        self.box = replaced(windows.with_spare(wanted), self.axis, 0, windows.held[self.axis])
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
        self.box = replaced(self.box, self.axis, row, row + rows)


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
