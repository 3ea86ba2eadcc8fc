"""The inference loop over tiles: read a tile's window, run the network, write what the tile answers for.

Reading the next windows and writing the last labels overlap with the network (:mod:`medseg.inference.pipeline`), and
tiles are visited in beams (:class:`medseg.geometry.walk.Walk`), so memory depends on the tile, never on the scan.

Legend: N tiles in a batch, C channels, K output channels.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.errors import GridError, ScanError
from medseg.geometry import Tile, Tiling, Walk
from medseg.inference.emit import Decided, Emitter, Output, wanted_voxels
from medseg.inference.journal import Journal
from medseg.inference.pipeline import AHEAD, Clock, Progress, Report, run
from medseg.networks.network import Network
from medseg.scans.mirror import read_mirrored
from medseg.scans.protocol import MaskSink, Scan
from medseg.scans.views import check_finite

CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


@dataclass(frozen=True)
class Pace:
    """How a tiling is gone through; of these, ``batch`` and ``beam`` decide which tiles are computed together.

    Attributes:
        batch: tiles that go through the network together.
        ahead: batches that wait, at most, before and after the network.
        beam: tiles across a beam of the walk, one number an axis after the first; None for one beam.
        span: the batches to compute, counted along the walk; None for all. (Of sliding windows: slabs.)
        amp: half precision where a GPU is faster in it.
        hold: where the sums of sliding windows are held; None for the network's device.
    """

    batch: int = 1
    ahead: int = AHEAD
    beam: tuple[int, ...] | None = None
    span: range | None = None
    amp: bool = False
    hold: torch.device | None = None

    def batches(self, tiling: Tiling) -> Batches:
        """The tiling's batches, in the order in which they are computed."""
        walk = Walk(tiling.grid, tiling.grid[1:] if self.beam is None else self.beam)
        return Batches(walk, self.batch)


class Batches(Sequence[list[int]]):
    """A walk cut into batches of tile indices."""

    def __init__(self, walk: Walk, batch: int) -> None:
        self.walk = walk
        self.batch = batch

    def __len__(self) -> int:
        return -(-len(self.walk) // self.batch)

    def __getitem__(self, index: int) -> list[int]:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        return self.walk[index * self.batch : (index + 1) * self.batch]


def prepare(network: Network, device: torch.device) -> Network:
    """The network on its device, in evaluation mode, in the memory layout that convolutions are fastest in."""
    network = network.to(device).eval()
    for parameter in network.parameters():
        if parameter.ndim == network.dims + 2:
            parameter.data = parameter.data.contiguous(memory_format=CHANNELS_LAST[network.dims])
    return network


def segment(
    scan: Scan,
    network: Network,
    tiling: Tiling,
    sink: MaskSink | Output,
    journal: Journal | None = None,
    pace: Pace | None = None,
    report: Report | None = None,
) -> Progress:
    """Segments a scan tile by tile into a sink on the scan's own grid; the sink is left open.

    Args:
        scan: what the network sees, a view of the file (float). Where the view turned or resampled it, each tile's
            probabilities are interpolated back and decided on the file's own grid.
        network: as :func:`prepare` leaves it, on any device.
        tiling: of the view's extent; with ``spare=1`` where the view's grid is not the file's.
        sink: a mask (classes by arg-max) or an :class:`Output` that says more.
        journal: tiles that it holds are skipped, tiles that are done are recorded.
        pace: batches and order; batches whose tiles all lie outside of the output's part are skipped.
        report: called after each batch.

    Raises:
        GridError: where the scan's channels are not the network's.
        ScanError: where a window holds NaN or inf, or cannot be read.
    """
    check_channels(scan, network)
    pace = pace or Pace()
    job = _job_of(scan, network, tiling, sink, journal, pace)
    return run(job, job.left(pace), pace.ahead, report)


def outlook(
    scan: Scan, network: Network, tiling: Tiling, sink: MaskSink | Output, journal: Journal, pace: Pace
) -> tuple[Progress, int]:
    """How far :func:`segment` is before it begins, and how many tiles it will record in the journal."""
    progress = _job_of(scan, network, tiling, sink, journal, pace).progress
    return progress, progress.tiles - progress.done


def _job_of(
    scan: Scan, network: Network, tiling: Tiling, sink: MaskSink | Output, journal: Journal | None, pace: Pace
) -> _Job:
    output = sink if isinstance(sink, Output) else Output(sink)
    job = _Job(scan, network, tiling, output, Emitter(scan, output), journal, pace.amp)
    tiles, done = job.extent(pace)
    job.progress = Progress(tiles, done, done, wanted_voxels(scan, output))
    return job


@dataclass
class _Job:
    """One segmentation's parts, and the three stages of a batch."""

    scan: Scan
    network: Network
    tiling: Tiling
    output: Output
    emit: Emitter
    journal: Journal | None
    amp: bool
    progress: Progress = field(default_factory=lambda: Progress(0))

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def wanted(self, pace: Pace) -> Iterator[list[int]]:
        """The batches that have a tile within the output's part."""
        batches = pace.batches(self.tiling)
        for number in range(len(batches)) if pace.span is None else pace.span:
            batch = batches[number]
            if self.output.part is None or any(self.emit.owned(self.tiling[i].write).voxels for i in batch):
                yield batch

    def left(self, pace: Pace) -> Iterator[list[Tile]]:
        """Those that are not done."""
        done = frozenset() if self.journal is None else self.journal.done
        for batch in self.wanted(pace):
            if not done.issuperset(batch):
                yield [self.tiling[i] for i in batch]

    def extent(self, pace: Pace) -> tuple[int, int]:
        """How many tiles there are, and how many of them are done."""
        done = frozenset() if self.journal is None else self.journal.done
        sizes = [(len(batch), done.issuperset(batch)) for batch in self.wanted(pace)]
        return sum(n for n, _ in sizes), sum(n for n, is_done in sizes if is_done)

    def tiles(self, batch: list[Tile]) -> int:
        return len(batch)

    def read(self, batch: list[Tile]) -> Tensor:
        """(N, C, \\*window) in the network's precision and layout, ready to go to its device."""
        begun = time.perf_counter()
        windows = np.stack([read_mirrored(self.scan, tile.read) for tile in batch])
        if not np.isfinite(windows).all():
            self._refuse(batch)
        x = as_input(windows, self.network, self.device)
        self.progress.read.add(time.perf_counter() - begun, windows.nbytes)
        return x

    def _refuse(self, batch: Sequence[Tile]) -> None:
        """Names the voxel that is not finite; a mirrored window holds it too."""
        for tile in batch:
            box = tile.read.clip(self.scan.shape)
            check_finite(self.scan, box, self.scan.read(box))
        raise ScanError(f"{self.scan.name} has NaN or inf near {batch[0].write}: replace these voxels")

    def compute(self, batch: list[Tile], windows: Tensor) -> tuple[list[Decided] | Tensor, Clock]:
        """(N, C, \\*window) → (N, K, \\*core) on the CPU; on a GPU what is decided of it, on its way to the host."""
        with Clock(self.device) as clock, torch.autocast(self.device.type, enabled=self.amp):
            logits = self.network.core(windows.to(self.device, non_blocking=True))
        self.progress.network.bytes += logits.nbytes
        if self.device.type != "cuda":
            return logits, clock.mark()
        decided = [self.emit.decide(t.write, core).to_host() for t, core in zip(batch, logits, strict=True)]
        return decided, clock.mark()

    def write(self, batch: list[Tile], found: tuple[list[Decided] | Tensor, Clock]) -> None:
        """Decides what is not decided, writes, records."""
        values, clock = found
        clock.wait()
        self.progress.network.add(clock.seconds(), 0)
        begun = time.perf_counter()
        with torch.inference_mode():
            written = 0
            for tile, value in zip(batch, values, strict=True):
                decided = value if isinstance(value, Decided) else self.emit.decide(tile.write, value)
                written += self.emit.put(decided)
        if self.journal is not None:
            self.output.flush()
            self.journal.record(tile.index for tile in batch)
        self.progress.write.add(time.perf_counter() - begun, written)


def as_input(windows: NDArray, network: Network, device: torch.device) -> Tensor:
    """(N, C, \\*window) as the network takes it: its precision and layout, in pinned memory where a GPU fetches it."""
    x = torch.from_numpy(windows).to(next(network.parameters()).dtype)
    x = x.contiguous(memory_format=CHANNELS_LAST[network.dims])
    return x.pin_memory() if device.type == "cuda" else x


def check_channels(scan: Scan, network: Network) -> None:
    """Refuses a scan that the network cannot take.

    Raises:
        GridError: with the channels and axes of both.
    """
    if (scan.channels, len(scan.shape)) != (network.in_channels, network.dims):
        raise GridError(
            f"{scan.name} has {scan.channels} channels and {len(scan.shape)} axes {scan.shape}; "
            f"the model takes {network.in_channels} channels and {network.dims} axes"
        )
