"""U-Nets of today, as MONAI builds them, with footprints that are composed from MONAI's layers.

    basic_unet      pooling, two convolutions a level         exact with norm: batch
    dynunet         strided convolutions (nnU-Net's)          exact with norm: batch
    attention_unet  strided, gates on the skips               exact with norm: batch

Legend: N batch, C input channels, K output channels, w width, n voxels along one axis of the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.geometry import Field
from medseg.networks.monai_network import (
    NORMS,
    MonaiNetwork,
    Norm,
    doubled,
    halved,
    monai_nets,
    two_convolutions,
)
from medseg.networks.network import (
    BATCH_NORM,
    MOST_LEVELS,
    check_choice,
    check_counts,
    check_dropout,
    check_lists,
    check_odd,
    check_sizes,
    follow,
)

GroupOrBatch = Literal["group", "batch"]
PerLevel = Sequence[int | Sequence[int]]


class BasicUNet(MonaiNetwork):
    """U-Net as Falk et al. released it: padded, 3^dims convolutions, leaky ReLU, four poolings.

    MONAI's ``BasicUNet``; its last level keeps w channels where the released one has 2w.

    Args:
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        width: channels of the first two levels, 32 in MONAI.
        norm: ``instance`` looks at the whole window, so that its footprint is not exact; ``batch`` is.
        dropout: probability after every convolution.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "Falk et al. 2019, doi:10.1038/s41592-018-0261-2"

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 21,
        dims: int = 2,
        width: int = 32,
        norm: Norm = "instance",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(dims, in_channels, out_channels)
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_choice(Norm, norm=norm)
        check_dropout(dropout=dropout)
        self.over_instances = norm == "instance"
        widths = [width * factor for factor in (1, 1, 2, 4, 8, 1)]
        self.network = monai_nets().BasicUNet(
            dims, in_channels, out_channels, widths, norm=NORMS[norm], dropout=dropout
        )

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the same layers as :meth:`forward`."""
        net = self.network
        skips = [follow(net.conv_0, field, axis)]
        for down in (net.down_1, net.down_2, net.down_3, net.down_4):
            skips.append(follow(down, skips[-1], axis))
        field = skips.pop()
        for up in (net.upcat_4, net.upcat_3, net.upcat_2, net.upcat_1):
            field = follow(up.upsample, field, axis).crop_and_concatenate(skips.pop())
            field = follow(up.convs, field, axis)
        return follow(net.final_conv, field, axis)


class DynUNet(MonaiNetwork):
    """nnU-Net's network: strided convolutions, instance norm, leaky ReLU, deep supervision.

    MONAI's ``DynUNet`` by its own blocks. Its recursion over skips, which keeps every weight under two names, is a loop
    here. Widths double up to 512 channels, in 3D 320, as in nnU-Net.

    Args:
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        width: channels of the first level, 32 in nnU-Net.
        depth: halvings of the window; nnU-Net takes as many as leave 4 voxels or more.
        norm: ``instance`` looks at the whole window, so that its footprint is not exact; ``batch`` is.
        kernels: of each level, the finest first, ``depth + 1`` sizes, each one odd number or one an axis, such as
            ``[[1, 3, 3], 3, 3]`` where the first axis is coarse; 3 where not given.
        strides: between the levels, ``depth`` of them, each a number or one an axis, such as ``[[1, 2, 2], 2]``; 2
            where not given. nnU-Net chooses both by the spacing.
        supervised: coarser levels that give logits too when it is trained, see :meth:`outputs`; nnU-Net takes all but
            the coarsest two. Each one's loss counts half of the finer one's: 1, 1/2, 1/4 ... (nnU-Net divides these by
            their sum, which is a factor of the whole loss.)
        dropout: probability in every convolution.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "Isensee et al. 2021, arXiv:1809.10486"

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 21,
        dims: int = 2,
        width: int = 32,
        depth: int = 5,
        norm: Norm = "instance",
        supervised: int = 0,
        dropout: float = 0.0,
        kernels: PerLevel | None = None,
        strides: PerLevel | None = None,
    ) -> None:
        super().__init__(dims, in_channels, out_channels)
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_counts(2, MOST_LEVELS, depth=depth)
        kernel_size = per_level("kernels", kernels, depth + 1, dims, 3)
        steps = per_level("strides", strides, depth, dims, 2)
        for level in kernel_size:
            for kernel in level:
                check_odd(kernels=kernel)
        check_counts(0, depth - 1, supervised=supervised)
        check_choice(Norm, norm=norm)
        check_dropout(dropout=dropout)
        self.over_instances = norm == "instance"
        most = 512 if dims == 2 else 320
        self.network = monai_nets().DynUNet(
            dims,
            in_channels,
            out_channels,
            kernel_size=kernel_size,
            strides=[(1,) * dims, *steps],
            upsample_kernel_size=steps,
            filters=[min(width * 2**level, max(most, width)) for level in range(depth + 1)],
            norm_name=NORMS[norm],
            deep_supervision=supervised > 0,
            deep_supr_num=max(supervised, 1),
            dropout=dropout or None,
        )
        del self.network.skip_layers, self.network.heads
        self.auxiliary_weights = tuple(0.5**level for level in range(1, supervised + 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, \\*n) → (N, K, \\*n), logits.

        Raises:
            TileError: for a window that the network cannot take.
        """
        out: Tensor = self.network.output_block(self._levels(x)[-1])
        return out

    def outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, C, \\*n) → the logits (N, K, \\*n), then the coarser levels' own, (N, K, \\*n/2), (N, K, \\*n/4) ..."""
        *coarser, finest = self._levels(x)
        scores = [self.network.output_block(finest)]
        heads = self.network.deep_supervision_heads if self.auxiliary_weights else []
        for head, level in zip(heads, reversed(coarser), strict=False):
            scores.append(head(level))
        return tuple(scores)

    def _levels(self, x: Tensor) -> list[Tensor]:
        """The maps of the expanding path, the coarsest first."""
        self.check_window(x.shape[2:])
        net = self.network
        skips = [net.input_block(x)]
        for down in net.downsamples:
            skips.append(down(skips[-1]))
        x = net.bottleneck(skips[-1])
        levels = []
        for up in net.upsamples:
            x = up(x, skips.pop())
            levels.append(x)
        return levels

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the same layers as :meth:`forward`."""
        net = self.network
        skips = []
        for block in (net.input_block, *net.downsamples, net.bottleneck):
            field = two_convolutions(block, field, axis)
            skips.append(field)
        skips.pop()
        for up in net.upsamples:
            field = follow(up.transp_conv, field, axis).crop_and_concatenate(skips.pop())
            field = two_convolutions(up.conv_block, field, axis)
        return follow(net.output_block.conv, field, axis)


def per_level(name: str, given: PerLevel | None, levels: int, dims: int, usual: int) -> list[tuple[int, ...]]:
    """Sizes of each level, one number an axis.

    Args:
        name: the argument's.
        given: a number, or one an axis, for each level; None for ``usual`` everywhere.
        levels: how many there must be.
        dims: axes.
        usual: where nothing is given.

    Raises:
        ConfigError: for another number of levels or axes, or what is no whole number of 1 or more.
    """
    wanted = [usual] * levels if given is None else given
    if not isinstance(wanted, list | tuple) or len(wanted) != levels:
        raise ConfigError(f"network.{name} is {wanted!r}: it must be a list of {levels}, one for each level")
    axes = [tuple(level) if isinstance(level, list | tuple) else (level,) * dims for level in wanted]
    for level in axes:
        if len(level) != dims:
            raise ConfigError(f"network.{name} is {list(level)} at a level: it must be one number, or {dims} of them")
        check_lists(**{name: level})
    return axes


class AttentionUNet(MonaiNetwork):
    """U-Net whose skips pass gates that the decoder sets (figures 1 and 2).

    MONAI's ``AttentionUnet``: where the paper pools, its convolutions stride, and each gate looks at the decoder's map
    after up-sampling, so that it needs no resampling of its own. A gate is pointwise: batch norm and a sigmoid.

    Args:
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        width: channels of the first level, 16 in the released network; every level doubles them.
        depth: halvings of the window.
        norm: where gated skip and decoder merge: MONAI has ``instance`` there (and batch norm everywhere else), which
            looks at the whole window, so that the footprint is not exact; with ``batch`` it is.
        dropout: probability after every convolution.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "Oktay et al. 2018, arXiv:1804.03999"

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 21,
        dims: int = 2,
        width: int = 16,
        depth: int = 4,
        norm: Norm = "instance",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(dims, in_channels, out_channels)
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels)
        check_counts(2, width=width)
        check_counts(1, MOST_LEVELS, depth=depth)
        check_choice(Norm, norm=norm)
        check_dropout(dropout=dropout)
        channels = [width * 2**level for level in range(depth + 1)]
        self.network = monai_nets().AttentionUnet(
            dims, in_channels, out_channels, channels, [2] * depth, dropout=dropout
        )
        if norm == "batch":
            merges = [m.merge for m in self.network.modules() if hasattr(m, "merge")]
            for merge in merges:
                merge.adn.N = BATCH_NORM[dims](merge.conv.out_channels)

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the same layers as :meth:`forward`."""
        head, levels, score = self.network.model
        return follow(score, self._level(levels, follow(head.conv, field, axis), axis), axis)

    def _level(self, level: Any, field: Field, axis: int) -> Field:
        last = not isinstance(level.submodule, nn.Sequential)
        convolutions = level.submodule if last else level.submodule[0]
        lower = field
        for convolution in convolutions.conv:
            lower = halved(convolution, lower, axis)
        if not last:
            lower = self._level(level.submodule[1], lower, axis)
        return follow(level.merge, doubled(level.upconv.up, lower, axis).crop_and_concatenate(field), axis)
