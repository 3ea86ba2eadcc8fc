"""A dense CRF over probabilities in files: plane by plane, tile by tile, with a halo.

        +-----------------+
        |  halo           |      read of the image and of the probabilities, cut off at the scan's border
        |   +---------+   |
        |   |  tile   |   |      refined, decided and written
        |   +---------+   |
        +-----------------+

A scan of three axes is taken in planes across the axis along which its voxels are farthest apart. With
:attr:`~medseg.postprocessing.crf.DenseCRF.exact_halo` tiles equal the plane; :data:`HALO_RADII` is far less, and enough
since what a pixel hears fades: ``benchmarks/postprocessing.py --halo`` tells what differs.

Legend: C channels, K channels of the probabilities, F foreground labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medseg.datasets.check import check_grid
from medseg.datasets.labels import Labels
from medseg.errors import GridError
from medseg.geometry import Box
from medseg.inference.decode import Decoder
from medseg.postprocessing.components import Report
from medseg.postprocessing.crf import DenseCRF
from medseg.scans.blocks import boxes
from medseg.scans.protocol import MaskSink, Scan
from medseg.scans.statistics import dataset_statistics
from medseg.scans.views import Normalized, Rescale

TILE = 1024
"""The side of a tile, without its halo."""

HALO_RADII = 2
"""Radii of the kernel's window around a tile."""

PERCENTILES = (0.5, 99.5)
"""Of the image's values, that become 0 and 255 where it does not hold bytes."""


@dataclass(frozen=True)
class Refinement:
    """How a mask is made from an image and probabilities.

    Attributes:
        crf: its parameters.
        labels: the values that are written; K = F + 1 channels are read as softmax, K = F as sigmoid.
        device: where it is computed.
        tile: the side of a tile in pixels.
        halo: read around a tile, in pixels; None takes :data:`HALO_RADII` radii.
    """

    crf: DenseCRF
    labels: Labels
    device: torch.device
    tile: int = TILE
    halo: int | None = None

    def run(self, image: Scan, probabilities: Scan, sink: MaskSink, report: Report | None = None) -> None:
        """Writes the mask; the sink is not closed.

        Raises:
            GridError: where image and probabilities lie on different grids, or the channels are not the labels'.
            ScanError: where a file is damaged, or the image holds NaN or inf.
        """
        check_grid(probabilities, image)
        decoder = self._decoder(probabilities)
        seen = levels_of(image)
        across = _across(image)
        tiles = list(self._tiles(image.shape, across))
        for number, tile in enumerate(tiles, 1):
            shares = self._refined(seen, probabilities, tile, across)
            sink.write(tile, self.labels.decode(decoder.classes_of_probabilities(shares).cpu().numpy()))
            if report is not None:
                report(number, len(tiles))

    def _decoder(self, probabilities: Scan) -> Decoder:
        found, classes = probabilities.channels, len(self.labels.targets)
        if found not in (classes, classes if self.labels.regions else classes + 1):
            raise GridError(
                f"{probabilities.name} has {found} channels and the masks {classes} foreground labels: probabilities "
                f"have {classes} (sigmoid) or {classes + 1} (softmax), as medseg infer --probabilities writes them"
            )
        return Decoder("softmax" if found == classes + 1 else "sigmoid", self.labels.written)

    def _tiles(self, shape: tuple[int, ...], across: int | None) -> Iterator[Box]:
        yield from boxes(shape, [1 if axis == across else self.tile for axis in range(len(shape))])

    def _refined(self, image: Scan, probabilities: Scan, tile: Box, across: int | None) -> Tensor:
        """(K, \\*tile.shape) probabilities that follow the image."""
        halo = HALO_RADII * self.crf.radius if self.halo is None else self.halo
        read = tile.grow([0 if axis == across else halo for axis in range(tile.ndim)]).clip(image.shape)
        grey, given = (self._plane(scan.read(read), across) for scan in (image, probabilities))
        if probabilities.dtype == np.uint8:
            given = given / 255
        shares = self._field(grey, given)
        if across is not None:
            shares = shares.unsqueeze(across + 1)
        return shares[(slice(None), *tile.shift([-a for a in read.start]).slices)]

    def _plane(self, voxels: NDArray, across: int | None) -> Tensor:
        flat = voxels if across is None else voxels.take(0, across + 1)
        return torch.from_numpy(np.ascontiguousarray(flat, np.float32)).to(self.device)

    def _field(self, image: Tensor, given: Tensor) -> Tensor:
        if given.shape[0] == len(self.labels.targets) + 1:
            return self.crf.refine(image, given)
        pairs = (self.crf.refine(image, torch.stack([1 - share, share])) for share in given)
        return torch.stack([pair[1] for pair in pairs])


def levels_of(image: Scan) -> Scan:
    """The image in grey levels from 0 to 255: bytes as they are, other types between two percentiles."""
    if image.dtype == np.uint8:
        return image
    found = dataset_statistics([image], PERCENTILES)
    if found.low is None or found.high is None:
        return image
    spans = tuple((high - low) / 255 or 1.0 for low, high in zip(found.low, found.high, strict=True))
    return Normalized(image, Rescale(found.low, found.high, found.low, spans))


def _across(image: Scan) -> int | None:
    """The axis that planes lie across; None for a scan of two axes. Of equal ones, the one that a file runs slowest."""
    if len(image.shape) == 2:
        return None
    slowest = 2 if image.axes.startswith("X") else 0
    return max(range(3), key=lambda axis: (round(image.spacing_mm[axis], 6), axis == slowest))
