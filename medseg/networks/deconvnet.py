"""DeconvNet (Noh, Hong and Han, ICCV 2015).

    224 ── VGG16 with batch norm: 5 stages, 5 poolings ──→ 7 ── fc6 7x7 ──→ 1 ── fc7 1x1 ──→ 1
                        ↓ indices of the maxima                8w → 64w          64w           ↓ 64w
    224 ←── its mirror: 5 unpoolings, transposed convolutions ── 7 ←────────── deconv-fc6 7x7 ──┘
     K                                                          8w

Legend: N batch, C input channels, K output channels, w width (64), sizes along one axis of the paper's window.
"""

from __future__ import annotations

from torch import Tensor, nn

from medseg.networks.blocks import initialise, normalise
from medseg.networks.network import (
    BATCH_NORM,
    CHANNEL_DROPOUT,
    CONVOLUTION,
    UP_CONVOLUTION,
    check_counts,
    check_dropout,
    check_sizes,
)
from medseg.networks.unpooling import UnpoolingNetwork, mirrored
from medseg.networks.vgg import STAGES, VGG16Stages


class DeconvNet(UnpoolingNetwork):
    """The network of figure 2 and table 2: 252 million parameters, four fifths of them in fc6 and its mirror.

    Where we differ, and why: any window of the least size or more is taken (poolings round up as in the paper's Caffe,
    unpoolings restore the size before them), 512 gives 10x10 where 224 gives 1x1; 2D or 3D. The paper gives up
    dropout for batch norm; whole channels are dropped after fc6 and fc7 as VGG16 does, ``dropout=0`` is the paper's
    own. All weights begin as in He et al., which batch norm makes equal to the paper's «zero-mean Gaussians» but for
    the score's.

    Args:
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        width: channels of the first stage, 64 in the paper; fc6 and fc7 have 64 times as many.
        depth: stages that are kept, 5 in the paper.
        fc_size: voxels that fc6 sees along an axis, 7 in the paper; in 3D 7^3 are many, and 3 will do.
        dropout: probability of each channel after fc6 and fc7.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "Noh et al. 2015, arXiv:1505.04366"

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 21,
        dims: int = 2,
        width: int = 64,
        depth: int = 5,
        fc_size: int = 7,
        dropout: float = 0.5,
    ) -> None:
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels, width=width, fc_size=fc_size)
        check_counts(1, len(STAGES), depth=depth)
        check_dropout(dropout=dropout)
        encoder = VGG16Stages(dims, in_channels, width, "batch")[:depth]
        decoder = mirrored(dims, encoder, transposed=True)
        deepest = encoder[-1][0].out_channels
        fc, drop = 64 * width, CHANNEL_DROPOUT[dims](dropout)
        bottom = nn.Sequential(
            FullyConnected(CONVOLUTION[dims](deepest, fc, fc_size), BATCH_NORM[dims](fc), nn.ReLU(inplace=True), drop),
            FullyConnected(CONVOLUTION[dims](fc, fc, 1), BATCH_NORM[dims](fc), nn.ReLU(inplace=True), drop),
            FullyConnected(
                UP_CONVOLUTION[dims](fc, deepest, fc_size), BATCH_NORM[dims](deepest), nn.ReLU(inplace=True)
            ),
        )
        score = CONVOLUTION[dims](width, out_channels, 1)
        super().__init__(dims, in_channels, out_channels, encoder, bottom, decoder, score)
        self.least = (fc_size - 1) * 2**depth + 1
        self.apply(initialise)


class FullyConnected(nn.Sequential):
    """A fully connected layer as a convolution, with batch norm, ReLU and perhaps dropout.

    On a window of the least size it gives one voxel, which in a batch of one has no variance to be normalised by.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, A, \\*n) → (N, B, \\*m)."""
        convolution, norm, *rest = self
        x = normalise(norm, convolution(x))
        for layer in rest:
            x = layer(x)
        return x
