"""Residual networks for volumes, as MONAI builds them, with footprints that are composed from MONAI's layers.

    segresnet       strided, interpolated, skips added        exact with norm: batch
    vnet            5^dims convolutions, strided              exact

Legend: N batch, C input channels, K output channels, w width, n voxels along one axis of the window.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medseg.geometry import Field
from medseg.networks.monai_network import MonaiNetwork, halved, monai_nets
from medseg.networks.network import check_choice, check_dropout, check_sizes, follow

GroupOrBatch = Literal["group", "batch"]


class SegResNet(MonaiNetwork):
    """The encoder and decoder of BraTS 2018's winner (figure 1), without its auto-encoder branch.

    MONAI's ``SegResNet``, with the paper's 32 filters. Convolutions stride, maps are interpolated, skips added.

    Args:
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        width: channels of the first level, 32 in the paper; every level doubles them.
        norm: ``group`` (of 8, as in the paper) looks at the whole window, so that its footprint is not exact;
            ``batch`` is.
        dropout: probability after the first convolution, 0.2 in the paper.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "Myronenko 2018, arXiv:1810.11654"

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 21,
        dims: int = 2,
        width: int = 32,
        norm: GroupOrBatch = "group",
        dropout: float = 0.2,
    ) -> None:
        super().__init__(dims, in_channels, out_channels)
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_choice(GroupOrBatch, norm=norm)
        check_dropout(dropout=dropout)
        groups = ("group", {"num_groups": math.gcd(8, width)})
        self.network = monai_nets().SegResNet(
            dims, width, in_channels, out_channels, dropout_prob=dropout, norm=groups if norm == "group" else "batch"
        )

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the same layers as :meth:`forward`."""
        net = self.network
        field = follow(net.convInit, field, axis)
        skips = []
        for stride, *blocks in net.down_layers:
            field = field if isinstance(stride, nn.Identity) else halved(stride, field, axis)
            field = _residual(blocks, field, axis)
            skips.append(field)
        skips.pop()
        for (convolution, _), blocks in zip(net.up_samples, net.up_layers, strict=True):
            field = follow(convolution, field, axis).interpolate(2).crop_and_concatenate(skips.pop())
            field = _residual(blocks, field, axis)
        return follow(net.conv_final, field, axis)


class VNet(MonaiNetwork):
    """Milletari et al.'s residual network for volumes (figure 2): 5^dims convolutions, strided 2^dims ones between.

    MONAI's ``VNet`` and its blocks: batch norm and ELU came with the authors' later code. Its width can be chosen here,
    whole channels are dropped in 2D too, and any number of channels goes in: they are repeated, and the repetition cut,
    to make the first sum.

    Args:
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        width: channels of the first level, 16 in the paper; every level doubles them.
        dropout: probability of each channel on the coarser levels.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "Milletari et al. 2016, arXiv:1606.04797"

    def __init__(
        self, in_channels: int = 3, out_channels: int = 21, dims: int = 2, width: int = 16, dropout: float = 0.5
    ) -> None:
        super().__init__(dims, in_channels, out_channels)
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_dropout(dropout=dropout)
        vnet = monai_nets().vnet
        elu = ("elu", {"inplace": True})
        # MONAI's own widths are fixed: they are made of nothing, and its forward pass is kept.
        with torch.device("meta"):
            net = vnet.VNet(dims)
        first = vnet.Convolution(dims, in_channels, width, kernel_size=5, act=None, norm="batch", bias=False)
        net.in_tr = RepeatedInput(first, width)
        for level, (count, drop) in enumerate([(1, None), (2, None), (3, dropout), (2, dropout)]):
            inputs = width * 2**level
            down = vnet.DownTransition(dims, inputs, count, elu, drop, dropout_dim=dims)
            setattr(net, f"down_tr{32 * 2**level}", down)
        for level, (inputs, count, drops) in enumerate(
            [(4, 1, (None, dropout)), (8, 1, (None, dropout)), (16, 2, (dropout, dropout)), (16, 2, (dropout, dropout))]
        ):
            up = vnet.UpTransition(dims, width * inputs, width * 2 ** (level + 1), count, elu, drops, dropout_dim=dims)
            setattr(net, f"up_tr{32 * 2**level}", up)
        net.out_tr = vnet.OutputTransition(dims, 2 * width, out_channels, elu)
        self.network = net

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the same layers as :meth:`forward`."""
        net = self.network
        skips = [follow(net.in_tr.conv_block, field, axis).crop_and_concatenate(field)]
        for down in (net.down_tr32, net.down_tr64, net.down_tr128, net.down_tr256):
            skips.append(_summed(down.ops, follow(down.down_conv, skips[-1], axis), axis))
        field = skips.pop()
        for up in (net.up_tr256, net.up_tr128, net.up_tr64, net.up_tr32):
            field = follow(up.up_conv, field, axis).crop_and_concatenate(skips.pop())
            field = _summed(up.ops, field, axis)
        return follow(net.out_tr.conv2, follow(net.out_tr.conv_block, field, axis), axis)


class RepeatedInput(nn.Module):
    """V-Net's first level: (N, C, \\*n) → (N, w, \\*n), a convolution plus the input, repeated up to w channels."""

    def __init__(self, conv_block: nn.Module, width: int) -> None:
        super().__init__()
        self.conv_block = conv_block
        self.act_function = nn.ELU(inplace=True)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, \\*n) → (N, w, \\*n)."""
        times = -(-self.width // x.shape[1])
        repeated = x.repeat(1, times, *[1] * (x.ndim - 2)).narrow(1, 0, self.width)
        out: Tensor = self.act_function(self.conv_block(x) + repeated)
        return out


def _residual(blocks: Iterable[Any], field: Field, axis: int) -> Field:
    """Blocks of two convolutions, each with its norm before it, and a sum."""
    for block in blocks:
        through = follow(block.conv1, follow(block.norm1, field, axis), axis)
        field = follow(block.conv2, follow(block.norm2, through, axis), axis).crop_and_concatenate(field)
    return field


def _summed(convolutions: Iterable[Any], field: Field, axis: int) -> Field:
    """V-Net's units: convolutions one after the other, and what went in added."""
    through = field
    for convolution in convolutions:
        through = follow(convolution.conv_block, through, axis)
    return through.crop_and_concatenate(field)
