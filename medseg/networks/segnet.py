"""SegNet (Badrinarayanan, Kendall and Cipolla, PAMI 2017), its small sibling SegNet-Basic, and a teaching variant.

    encoder (VGG16)    w w │ 2w 2w │ 4w 4w 4w │ 8w 8w 8w │ 8w 8w 8w │            13 convolutions, 5 poolings
                           ↓ indices
    decoder            w K │ 2w w  │ 4w 4w 2w │ 8w 8w 4w │ 8w 8w 8w │            13 convolutions, 5 unpoolings

Legend: C input channels, K output channels, w width, │ a pooling or the unpooling with its indices.
"""

from __future__ import annotations

from torch import nn

from medseg.networks.blocks import initialise
from medseg.networks.network import (
    BATCH_NORM,
    CONVOLUTION,
    MOST_LEVELS,
    check_choice,
    check_counts,
    check_flags,
    check_odd,
    check_sizes,
)
from medseg.networks.unpooling import Unpool, UnpoolingNetwork, mirrored
from medseg.networks.vgg import STAGES, VGG16Stages


class SegNet(UnpoolingNetwork):
    """The network of figure 2: VGG16's 13 convolutions and their mirror, 29.4 million parameters.

    Section 3: each convolution has batch norm and ReLU; the encoder hands over nothing but the places of its maxima,
    and the decoder's convolutions make its sparse maps dense. The last of them gives K channels (as in the released
    ``conv1_1_D``), with neither norm nor ReLU. Weights as in He et al. (section 3.2).

    Where we differ, and why: poolings round up and unpoolings restore the size before them, so that any window can be
    taken (the released network names the sizes of a 360x480 image); 2D or 3D. ``unpool="bilinear"`` interpolates and
    keeps the decoder's convolutions, to tell what the indices are worth; «Bilinear-Interpolation» in section 3.1 has
    none.

    Args:
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        width: channels of the first stage, 64 in the paper.
        depth: stages that are kept, 5 in the paper.
        unpool: with the pooling's ``indices``, or by ``bilinear`` (trilinear) interpolation.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "Badrinarayanan et al. 2017, arXiv:1511.00561"

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 21,
        dims: int = 2,
        width: int = 64,
        depth: int = 5,
        unpool: Unpool = "indices",
    ) -> None:
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_counts(1, len(STAGES), depth=depth)
        check_choice(Unpool, unpool=unpool)
        encoder = VGG16Stages(dims, in_channels, width, "batch")[:depth]
        decoder = mirrored(dims, encoder, last=1)
        score = CONVOLUTION[dims](width, out_channels, 3, padding=1)
        super().__init__(dims, in_channels, out_channels, encoder, nn.Identity(), decoder, score, unpool)
        self.apply(initialise)


class SegNetBasic(UnpoolingNetwork):
    """Four stages of one 7^dims convolution each, all of one width: section 3.1's network for comparing decoders.

    The decoder has no ReLU and no convolution a bias; a voxel of the last pooling sees 106 voxels of the window, as the
    section says. The first layer of the released network, local response normalisation of the input, is left to
    preprocessing. 1.416 million parameters for CamVid's 11 classes; 1.425 in the paper's table 1, whose
    numbers are multiples of 0.025.

    Args:
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        width: channels of every stage, 64 in the paper.
        depth: stages, 4 in the paper.
        kernel: of the convolutions, 7 in the paper.
        unpool: with the pooling's ``indices``, or by ``bilinear`` (trilinear) interpolation.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "Badrinarayanan et al. 2017, arXiv:1511.00561, section 3.1"

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 21,
        dims: int = 2,
        width: int = 64,
        depth: int = 4,
        kernel: int = 7,
        unpool: Unpool = "indices",
    ) -> None:
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_counts(1, MOST_LEVELS, depth=depth)
        check_odd(kernel=kernel)
        check_choice(Unpool, unpool=unpool)

        def stage(inputs: int, *after: nn.Module) -> nn.Sequential:
            convolution = CONVOLUTION[dims](inputs, width, kernel, padding=kernel // 2, bias=False)
            return nn.Sequential(convolution, BATCH_NORM[dims](width), *after)

        encoder = [stage(width if level else in_channels, nn.ReLU(inplace=True)) for level in range(depth)]
        decoder = [stage(width) for _ in range(depth)]
        score = CONVOLUTION[dims](width, out_channels, 1)
        super().__init__(dims, in_channels, out_channels, encoder, nn.Identity(), decoder, score, unpool)
        self.apply(initialise)


class SegNetSmall(UnpoolingNetwork):
    """Five convolutions of 16 to 256 channels, four poolings, bilinear up-sampling, one logit: SegNet as it is taught.

    No paper: the network that courses and tutorials call SegNet. It keeps the encoder and its mirror, and leaves out
    the indices, the batch norm and most layers. The code that goes around aligns corners when it up-samples, and rounds
    poolings down; here they round up, and ``align_corners`` is exact in tiles of n ≡ 1 (mod 2^depth).

    Args:
        in_channels: C.
        out_channels: K, one logit unless more classes are wanted.
        dims: 2 or 3.
        width: channels of the first convolution, 16 usually; each next one doubles them.
        depth: poolings, 4 usually.
        align_corners: of the interpolation.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "after Badrinarayanan et al. 2017, arXiv:1511.00561"

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        dims: int = 2,
        width: int = 16,
        depth: int = 4,
        align_corners: bool = True,
    ) -> None:
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_counts(1, MOST_LEVELS, depth=depth)
        check_flags(align_corners=align_corners)
        widths = [width * 2**level for level in range(depth + 1)]

        def stage(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(CONVOLUTION[dims](inputs, outputs, 3, padding=1), nn.ReLU(inplace=True))

        encoder = [stage(inputs, outputs) for inputs, outputs in zip([in_channels, *widths], widths[:-1], strict=False)]
        bottom = stage(widths[-2], widths[-1])
        decoder = [stage(inputs, outputs) for inputs, outputs in zip(widths[:0:-1], widths[-2::-1], strict=True)]
        score = CONVOLUTION[dims](width, out_channels, 3, padding=1)
        super().__init__(dims, in_channels, out_channels, encoder, bottom, decoder, score, "bilinear", align_corners)
        self.apply(initialise)
