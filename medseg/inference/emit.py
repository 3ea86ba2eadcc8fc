"""From logits on the view's grid to labels in a file: the decision, and whose voxels it is for.

Both ways through a scan end here, tiles and sliding windows: each hands over boxes of the view's grid that partition
it, and the boxes of the file's own grid that come out partition that.

Legend: K output channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.geometry import Box
from medseg.inference.decode import Decoder
from medseg.scans.gridmap import grid_map, own_scan
from medseg.scans.protocol import MaskSink, Scan


@dataclass(frozen=True)
class Output:
    """Where results go, and in which values.

    Attributes:
        sink: takes the label of each voxel.
        decoder: how the channels are read.
        encode: classes (0 background, 1..F) → the data set's own label values; None writes classes.
        probabilities: takes (K, \\*box.shape) float32 too, where wanted.
        part: the box of the scan's own grid that the sinks cover; None for all of it.
    """

    sink: MaskSink
    decoder: Decoder = field(default_factory=Decoder)
    encode: Callable[[NDArray], NDArray] | None = None
    probabilities: MaskSink | None = None
    part: Box | None = None

    def write(self, box: Box, classes: NDArray, probabilities: NDArray | None) -> int:
        """Puts one box of the scan's own grid away, which lies within ``part``; returns the bytes written."""
        if self.part is not None:
            box = box.shift([-a for a in self.part.start])
        labels = classes if self.encode is None else self.encode(classes)
        self.sink.write(box, labels)
        if self.probabilities is None or probabilities is None:
            return labels.nbytes
        self.probabilities.write(box, probabilities)
        return labels.nbytes + probabilities.nbytes

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


def wanted_voxels(scan: Scan, output: Output) -> int:
    """How many voxels of the file's own grid an output takes of a view."""
    return math.prod(own_scan(scan).shape if output.part is None else output.part.shape)


@dataclass(frozen=True)
class Decided:
    """What is known of a box before it is written: classes, probabilities, or both; see :meth:`Emitter.decide`."""

    write: Box
    own: Box
    classes: Tensor | None
    shares: Tensor | None

    def to_host(self) -> Decided:
        """On its way to the host's memory; from a GPU it has arrived when the stream has come this far."""
        return Decided(self.write, self.own, _to_host(self.classes), _to_host(self.shares))


class Emitter:
    """Decides boxes of a view and writes them on the file's own grid.

    Args:
        scan: the view that the network sees.
        output: where the results go.
    """

    def __init__(self, scan: Scan, output: Output) -> None:
        self.output = output
        self._view_shape = tuple(scan.shape)
        self._own_shape = tuple(own_scan(scan).shape)
        self._grid = grid_map(scan)

    def owned(self, write: Box) -> Box:
        """The voxels of the file's own grid, as far as they are wanted, that a box of the view answers for."""
        own = write if self._grid.identity else self._grid.owned(write, self._view_shape, self._own_shape)
        part = self.output.part
        return own if part is None else own.shift([-a for a in part.start]).clip(part.shape).shift(part.start)

    def __call__(self, write: Box, logits: Tensor) -> int:
        """Decides and writes one box; returns the bytes written.

        Args:
            write: a box of the view's grid.
            logits: (K, \\*n) from ``write.start`` on: the box at least, and one voxel more on each axis where the
                view's grid is not the file's and the view goes on.
        """
        return self.put(self.decide(write, logits))

    def decide(self, write: Box, logits: Tensor) -> Decided:
        """The part that is done where the network runs, so that one byte a voxel comes back where no more is needed."""
        own, decoder = self.owned(write), self.output.decoder
        if not own.voxels:
            return Decided(write, own, None, None)
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        if not self._grid.identity:
            return Decided(write, own, None, decoder.probabilities(logits))
        kept = logits[(slice(None), *own.shift([-a for a in write.start]).slices)]
        shares = decoder.probabilities(kept) if self.output.probabilities is not None else None
        return Decided(write, own, decoder.classes(kept), shares)

    def put(self, decided: Decided) -> int:
        """The rest, on the host; returns the bytes written."""
        own, shares, classes = decided.own, decided.shares, decided.classes
        if not own.voxels:
            return 0
        found = None if shares is None else shares.float().cpu().numpy()
        if classes is None and found is not None:
            found = self._grid.back(found, decided.write.start, own, self._view_shape)
            classes = self.output.decoder.classes_of_probabilities(torch.from_numpy(found))
        if classes is None:
            raise ValueError("neither classes nor probabilities are decided")
        wanted = self.output.probabilities is not None
        return self.output.write(own, classes.cpu().numpy(), found if wanted else None)


def _to_host(values: Tensor | None) -> Tensor | None:
    if values is None or values.device.type != "cuda":
        return values
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)
