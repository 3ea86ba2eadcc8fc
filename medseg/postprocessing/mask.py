"""A mask as the steps of a chain see it: blocks that partition it, read as often as wanted.

    file ── ScanMask ── Mapped (remove_small) ── Mapped (keep_largest) ── written block by block

No step holds a mask. Each looks through the one before it once, keeps a table of components, and answers for a block
by labelling that block again and looking its components up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medseg.datasets.labels import one_channel
from medseg.errors import MedsegError
from medseg.geometry import Box
from medseg.scans.blocks import blocks
from medseg.scans.protocol import Scan
from medseg.scans.zarr import ZarrScan

CUBE = {2: 2048, 3: 128}
"""The sides of blocks of a Zarr: whole chunks of the default size, which a slab across the scan would share."""


@dataclass(frozen=True)
class Grid:
    """Blocks of at most ``sides`` voxels that partition a shape, in C order.

    Attributes:
        shape: voxels along each axis.
        sides: of a block.
    """

    shape: tuple[int, ...]
    sides: tuple[int, ...]

    @classmethod
    def of(cls, scan: Scan) -> Grid:
        """Blocks that a scan is cheap to read by."""
        if isinstance(scan, ZarrScan):
            sides = (CUBE[len(scan.shape)],) * len(scan.shape)
        else:
            sides = next(blocks(scan)).shape
        return cls(tuple(scan.shape), tuple(min(s, n) for s, n in zip(sides, scan.shape, strict=True)))

    @property
    def counts(self) -> tuple[int, ...]:
        """Blocks along each axis."""
        return tuple(-(-n // s) for n, s in zip(self.shape, self.sides, strict=True))

    def __len__(self) -> int:
        return math.prod(self.counts)

    def place(self, index: int) -> tuple[int, ...]:
        """Where a block stands among the blocks."""
        return tuple(map(int, np.unravel_index(index, self.counts)))

    def box(self, index: int) -> Box:
        """A block's voxels."""
        start = tuple(i * s for i, s in zip(self.place(index), self.sides, strict=True))
        return Box(start, tuple(a + s for a, s in zip(start, self.sides, strict=True))).clip(self.shape)

    def __iter__(self) -> Iterator[Box]:
        return map(self.box, range(len(self)))


class Mask(Protocol):
    """Label values, block by block."""

    @property
    def grid(self) -> Grid:
        """The blocks."""

    @property
    def dtype(self) -> np.dtype:
        """Of the values."""

    def block(self, index: int) -> NDArray:
        """The values of a block: (\\*box.shape)."""


@dataclass(frozen=True)
class ScanMask:
    """A mask in a file.

    Attributes:
        scan: of one channel, or of colour channels that agree.
        grid: its blocks.
    """

    scan: Scan
    grid: Grid

    @property
    def dtype(self) -> np.dtype:
        """The file's, or int32 where it stores whole numbers as real ones."""
        return np.dtype(np.int32) if self.scan.dtype.kind == "f" else self.scan.dtype

    def block(self, index: int) -> NDArray:
        """The values of a block.

        Raises:
            GridError: where the scan is in colour.
            MedsegError: for values that are no whole numbers.
        """
        values = one_channel(self.scan.read(self.grid.box(index)), self.scan.name)
        if values.dtype.kind != "f":
            return values
        with np.errstate(invalid="ignore"):
            whole = values.astype(np.int32)
        if not np.array_equal(whole, values):
            raise MedsegError(f"{self.scan.name} holds {values[whole != values][0]}: a mask's values are whole numbers")
        return whole
