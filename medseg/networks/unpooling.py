"""What DeconvNet and SegNet share: an encoder, a bottom, and the encoder's mirror, which unpools where it pooled.

    stage 0 ── pool ↓ ── stage 1 ── pool ↓ ── ... bottom ... ── unpool ↑ ── stage 1 ── unpool ↑ ── stage 0 ── score
                 │                    └ indices, size ────────────────┘                   │
                 └ indices, size ─────────────────────────────────────────────────────────┘

Poolings round up, and each unpooling restores the size that its pooling found, so that a window of any size gives
logits of its own size. Tiling is exact for n ≡ 0 (mod 2^depth), or with ``align_corners`` for n ≡ 1.

A maximum's place is a choice: where two voxels of a pooling window are equal, as in a flat background, rounding decides
which of them is unpooled, and decides differently for windows of other shapes.

Legend: N batch, C input channels, K output channels, n voxels along one axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from torch import Tensor, nn

from medseg.geometry import Field
from medseg.networks.blocks import resize
from medseg.networks.network import (
    BATCH_NORM,
    CONVOLUTION,
    MAX_POOLING,
    MAX_UNPOOLING,
    UP_CONVOLUTION,
    Network,
    follow,
)

Unpool = Literal["indices", "bilinear"]


class UnpoolingNetwork(Network):
    """Stages with poolings between them, a bottom, stages with unpoolings before them, and a score layer.

    Args:
        dims: 2 or 3.
        in_channels: C.
        out_channels: K.
        encoder: the stages before each pooling, the finest first.
        bottom: between the last pooling and the first unpooling; it keeps its size.
        decoder: the stages after each unpooling, the coarsest first.
        score: the last layer.
        unpool: by the encoder's ``indices``, or ``bilinear`` (trilinear) interpolation, which needs none.
        align_corners: of the interpolation.
    """

    any_size = True

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        encoder: Sequence[nn.Module],
        bottom: nn.Module,
        decoder: Sequence[nn.Module],
        score: nn.Module,
        unpool: Unpool = "indices",
        align_corners: bool = False,
    ) -> None:
        super().__init__(dims, in_channels, out_channels)
        self.encoder = nn.ModuleList(encoder)
        self.bottom = bottom
        self.decoder = nn.ModuleList(decoder)
        self.score = score
        self.by_indices = unpool == "indices"
        self.align_corners = align_corners and not self.by_indices
        self.pool = MAX_POOLING[dims](2, stride=2, ceil_mode=True, return_indices=self.by_indices)
        self.unpool = MAX_UNPOOLING[dims](2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, \\*n) → (N, K, \\*n), logits.

        Raises:
            TileError: for a window of other axes, or of fewer voxels than the network needs.
        """
        self.check_window(x.shape[2:])
        pooled: list[tuple[Tensor | None, Sequence[int]]] = []
        for stage in self.encoder:
            x = stage(x)
            size = x.shape[2:]
            x, indices = self.pool(x) if self.by_indices else (self.pool(x), None)
            pooled.append((indices, size))
        x = self.bottom(x)
        for stage in self.decoder:
            x = stage(self._up(x, *pooled.pop()))
        out: Tensor = self.score(x)
        return out

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the same layers as :meth:`forward`."""
        pooled = []
        for stage in self.encoder:
            field = follow(stage, field, axis)
            pooled.append(field)
            field = follow(self.pool, field, axis)
            if self.align_corners:
                # n ≡ 1 is exact: poolings round up, which is rounding down after one more voxel at the end.
                field = replace(field, trim=field.trim - pooled[-1].stride, padded=True)
        field = follow(self.bottom, field, axis)
        for stage in self.decoder:
            before = pooled.pop()
            field = field.unpool(before) if self.by_indices else field.resize(before, self.align_corners)
            field = follow(stage, field, axis)
        return follow(self.score, field, axis)

    def _up(self, x: Tensor, indices: Tensor | None, size: Sequence[int]) -> Tensor:
        """(N, A, \\*⌈n / 2⌉) → (N, A, \\*n)."""
        if indices is None:
            return resize(x, size, self.align_corners)
        up: Tensor = self.unpool(x, indices, output_size=tuple(size))
        return up


def mirrored(
    dims: int, encoder: Sequence[nn.Sequential], transposed: bool = False, last: int = 0
) -> list[nn.Sequential]:
    """An encoder's stages the other way round: 3^dims convolutions with batch norm and ReLU, the coarsest first.

    There are as many as in the encoder. A stage keeps its channels up to its last convolution, which goes over to those
    of the next finer stage. The finest keeps its own.

    Args:
        dims: 2 or 3.
        encoder: stages of convolutions.
        transposed: whether the convolutions are transposed ones.
        last: convolutions of the finest stage that are left for the score layer.
    """
    layer = (UP_CONVOLUTION if transposed else CONVOLUTION)[dims]
    convolutions = [[m for m in stage if isinstance(m, CONVOLUTION[dims])] for stage in encoder]
    channels = [stage[-1].out_channels for stage in convolutions]
    decoder = []
    for level in reversed(range(len(encoder))):
        inputs, finer = channels[level], channels[max(level - 1, 0)]
        count = len(convolutions[level]) - (0 if level else last)
        stage = nn.Sequential()
        for outputs in [inputs] * (count - 1) + [finer]:
            stage.extend([layer(inputs, outputs, 3, padding=1), BATCH_NORM[dims](outputs), nn.ReLU(inplace=True)])
        decoder.append(stage)
    return decoder
