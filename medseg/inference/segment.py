"""The inference loop: read a tile's window, run the network, write what the tile answers for.

A reader fetches the next windows and a writer puts the last labels away while the network computes; at most two
groups of tiles wait on each side, so memory depends on the tile, never on the scan.

Legend: N tiles in a batch, C channels, K output channels.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.errors import GridError, ScanError
from medseg.geometry import Box, Tile, Tiling
from medseg.inference.decode import Decoder
from medseg.inference.journal import Journal
from medseg.networks.network import Network
from medseg.scans.gridmap import GridMap, grid_map, own_scan
from medseg.scans.mirror import read_mirrored
from medseg.scans.scan import MaskSink, Scan
from medseg.scans.views import check_finite

CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
AHEAD = 2
"""Groups of tiles that are read before, and written after, the one that is computed."""


@dataclass
class Progress:
    """How far a segmentation is: what a bar shows, and where the time went."""

    tiles: int
    done: int = 0
    forward_seconds: float = 0.0
    loop_seconds: float = 0.0


@dataclass(frozen=True)
class Output:
    """Where results go, and in which values.

    Attributes:
        sink: takes the label of each voxel of the scan's own grid.
        decoder: how the channels are read.
        encode: classes (0 background, 1..F) → the data set's own label values; None writes classes.
        probabilities: takes (K, \\*box.shape) float32 too, where wanted.
    """

    sink: MaskSink
    decoder: Decoder = field(default_factory=Decoder)
    encode: Callable[[NDArray], NDArray] | None = None
    probabilities: MaskSink | None = None

    def write(self, box: Box, classes: NDArray, probabilities: NDArray | None) -> None:
        """Puts one box away."""
        self.sink.write(box, classes if self.encode is None else self.encode(classes))
        if self.probabilities is not None and probabilities is not None:
            self.probabilities.write(box, probabilities)

    @property
    def sinks(self) -> tuple[MaskSink, ...]:
        """All of them."""
        return (self.sink,) if self.probabilities is None else (self.sink, self.probabilities)

    @property
    def resumed(self) -> bool:
        """Whether every sink goes on where an earlier start left it."""
        return all(sink.resumed for sink in self.sinks)

    def flush(self) -> None:
        """Returns when what was written outlives this process."""
        for sink in self.sinks:
            sink.flush()

    def close(self) -> None:
        """Completes every sink and gives it its final name."""
        for sink in self.sinks:
            sink.close()


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
    *,
    batch: int = 1,
    report: Callable[[Progress], None] | None = None,
) -> Progress:
    """Segments a scan tile by tile into a sink on the scan's own grid; the sink is left open.

    Args:
        scan: what the network sees, a view of the file (float). Where the view turned or resampled it, each tile's
            probabilities are interpolated back and decided on the file's own grid.
        network: as :func:`prepare` leaves it, on any device.
        tiling: of the view's extent; with ``spare=1`` where the view's grid is not the file's.
        sink: a mask (classes by arg-max) or an :class:`Output` that says more.
        journal: tiles that it holds are skipped, tiles that are done are recorded.
        batch: tiles that go through the network together; the grouping depends on nothing else.
        report: called after each group.

    Raises:
        GridError: where the scan's channels are not the network's.
        ScanError: where a window holds NaN or inf, or cannot be read.
    """
    check_channels(scan, network)
    job = _Job(scan, network, sink if isinstance(sink, Output) else Output(sink), grid_map(scan))
    done = journal.done if journal is not None else frozenset()
    groups = [g for g in _groups(tiling, batch) if not done.issuperset(g)]
    progress = Progress(len(tiling), len(tiling) - sum(map(len, groups)))
    begun = time.perf_counter()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer, torch.inference_mode():
        writes: deque[Future[None]] = deque()
        for group, windows in _read_ahead(reader, job.read, (tiling[g.start : g.stop] for g in groups)):
            before = time.perf_counter()
            logits = job.compute(windows)
            progress.forward_seconds += time.perf_counter() - before
            writes.append(writer.submit(job.write, group, logits, journal))
            while len(writes) > AHEAD:
                writes.popleft().result()
            progress.done += len(group)
            progress.loop_seconds = time.perf_counter() - begun
            if report is not None:
                report(progress)
        for write in writes:
            write.result()
    progress.loop_seconds = time.perf_counter() - begun
    return progress


@dataclass(frozen=True)
class _Job:
    """One segmentation's fixed parts."""

    scan: Scan
    network: Network
    output: Output
    grid: GridMap

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def read(self, group: Sequence[Tile]) -> Tensor:
        """(N, C, \\*window) in the network's precision and layout."""
        windows = np.stack([read_mirrored(self.scan, tile.read) for tile in group])
        if not np.isfinite(windows).all():
            self._refuse(group)
        dtype = next(self.network.parameters()).dtype
        x = torch.from_numpy(windows).to(dtype)
        return x.contiguous(memory_format=CHANNELS_LAST[self.network.dims])

    def _refuse(self, group: Sequence[Tile]) -> None:
        """Names the voxel that is not finite; a mirrored window holds it too."""
        for tile in group:
            box = tile.read.clip(self.scan.shape)
            check_finite(self.scan, box, self.scan.read(box))
        raise ScanError(f"{self.scan.name} has NaN or inf near {group[0].write}: replace these voxels")

    def compute(self, windows: Tensor) -> Tensor:
        """(N, C, \\*window) → (N, K, \\*core), when the device is done."""
        logits = self.network.core(windows.to(self.device))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return logits

    def write(self, group: Sequence[Tile], logits: Tensor, journal: Journal | None) -> None:
        with torch.inference_mode():
            for tile, core in zip(group, logits, strict=True):
                box, classes, shares = self._decided(tile, core)
                if box.voxels:
                    self.output.write(box, classes, shares)
        if journal is not None:
            self.output.flush()
            journal.record(tile.index for tile in group)

    def _decided(self, tile: Tile, core: Tensor) -> tuple[Box, NDArray, NDArray | None]:
        """The box of the file's own grid that a tile answers for, its classes and probabilities."""
        decoder = self.output.decoder
        wanted = self.output.probabilities is not None
        if self.grid.identity:
            kept = core[(slice(None), *tile.keep.slices)]
            shares = decoder.probabilities(kept).float().cpu().numpy() if wanted else None
            return tile.write, decoder.classes(kept).cpu().numpy(), shares
        own = self.grid.owned(tile.write, self.scan.shape, own_scan(self.scan).shape)
        view = decoder.probabilities(core).float().cpu().numpy()
        shares = self.grid.back(view, tile.write.start, own, self.scan.shape)
        classes = decoder.classes_of_probabilities(torch.from_numpy(shares)).numpy()
        return own, classes, shares if wanted else None


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


def _groups(tiling: Tiling, batch: int) -> list[range]:
    return [range(i, min(i + batch, len(tiling))) for i in range(0, len(tiling), batch)]


def _read_ahead(
    reader: ThreadPoolExecutor, read: Callable[[Sequence[Tile]], Tensor], groups: Iterable[list[Tile]]
) -> Iterator[tuple[list[Tile], Tensor]]:
    """Each group with its windows, the next ones being read meanwhile."""
    waiting: deque[tuple[list[Tile], Future[Tensor]]] = deque()
    for group in groups:
        waiting.append((group, reader.submit(read, group)))
        if len(waiting) > AHEAD:
            first, windows = waiting.popleft()
            yield first, windows.result()
    for first, windows in waiting:
        yield first, windows.result()
