"""The baselines of today, as MONAI builds them, with footprints: U-Nets, residual, gated and with transformers.

    basic_unet      pooling, two convolutions a level         exact with norm: batch
    dynunet         strided convolutions (nnU-Net's)          exact with norm: batch
    attention_unet  strided, gates on the skips               exact with norm: batch
    segresnet       residual, strided, interpolated           exact with norm: batch
    vnet            residual 5^dims convolutions              exact
    unetr           a transformer over the whole window       not; one window size
    swin_unetr      a transformer over cells of 7^dims        not

What is exact is composed from MONAI's layers, block by block. MONAI is imported when one of these is built.

Legend: N batch, C input channels, K output channels, w width, n voxels along one axis of the window.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from medseg.errors import ConfigError, TileError
from medseg.geometry import Field
from medseg.networks.network import BATCH_NORM, Network, check_choice, check_counts, check_dims, check_dropout, follow

Norm = Literal["instance", "batch"]
GroupOrBatch = Literal["group", "batch"]
NORMS: dict[str, tuple[str, dict[str, Any]]] = {"instance": ("instance", {"affine": True}), "batch": ("batch", {})}
MOST_LEVELS = 8
"""Halvings of a window that a dynunet may have."""


class MonaiNetwork(Network):
    """A network of MONAI's, as ``network``, behind the check of its window.

    Attributes:
        over_instances: whether the coarsest maps are normalised each by itself, which one voxel cannot be.
    """

    network: Any
    over_instances = False

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, \\*n) → (N, K, \\*n), logits.

        Raises:
            TileError: for a window that the network cannot take.
        """
        self.check_window(x.shape[2:])
        out: Tensor = self.network(x)
        return out

    def check_window(self, window: Sequence[int]) -> None:
        """Refuses a window that does not divide evenly, or that leaves instance norm a single voxel.

        Raises:
            TileError: with the sizes that would do.
        """
        super().check_window(window)
        steps = self.footprint.step
        if self.over_instances and tuple(window) == steps:
            least = 2 * steps[0]
            raise TileError(f"a window of {tuple(window)} leaves instance norm one voxel: {least} on one axis will do")


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
        _check(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_choice(Norm, norm=norm)
        check_dropout(dropout=dropout)
        self.over_instances = norm == "instance"
        self.network = _nets().BasicUNet(
            dims, in_channels, out_channels, _times(width, 1, 1, 2, 4, 8, 1), norm=NORMS[norm], dropout=dropout
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
        supervised: coarser levels that give logits too when it is trained, see :meth:`outputs`.
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
    ) -> None:
        super().__init__(dims, in_channels, out_channels)
        _check(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_counts(2, depth=depth)
        check_counts(0, supervised=supervised)
        check_choice(Norm, norm=norm)
        check_dropout(dropout=dropout)
        if depth > MOST_LEVELS:
            raise ConfigError(f"network.depth is {depth}: {MOST_LEVELS} halvings are the most")
        if supervised >= depth:
            raise ConfigError(f"network.supervised is {supervised}: depth {depth} has {depth - 1} coarser levels")
        self.over_instances = norm == "instance"
        most = 512 if dims == 2 else 320
        self.network = _nets().DynUNet(
            dims,
            in_channels,
            out_channels,
            kernel_size=[3] * (depth + 1),
            strides=[1] + [2] * depth,
            upsample_kernel_size=[2] * depth,
            filters=[min(width * 2**level, max(most, width)) for level in range(depth + 1)],
            norm_name=NORMS[norm],
            deep_supervision=supervised > 0,
            deep_supr_num=max(supervised, 1),
            dropout=dropout or None,
        )
        del self.network.skip_layers, self.network.heads
        self.supervised = supervised

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, \\*n) → (N, K, \\*n), logits.

        Raises:
            TileError: for a window that the network cannot take.
        """
        out: Tensor = self.network.output_block(self._levels(x)[-1])
        return out

    def outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, C, \\*n) → the logits, then those of the coarser levels, each (N, K, \\*n), the finer first."""
        *coarser, finest = self._levels(x)
        scores = [self.network.output_block(finest)]
        heads = self.network.deep_supervision_heads if self.supervised else []
        for head, level in zip(heads, reversed(coarser), strict=False):
            scores.append(functional.interpolate(head(level), x.shape[2:]))
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
            field = _pair(block, field, axis)
            skips.append(field)
        skips.pop()
        for up in net.upsamples:
            field = follow(up.transp_conv, field, axis).crop_and_concatenate(skips.pop())
            field = _pair(up.conv_block, field, axis)
        return follow(net.output_block.conv, field, axis)


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
        _check(dims, in_channels=in_channels, out_channels=out_channels)
        check_counts(2, width=width)
        check_counts(depth=depth)
        check_choice(Norm, norm=norm)
        check_dropout(dropout=dropout)
        if depth > MOST_LEVELS:
            raise ConfigError(f"network.depth is {depth}: {MOST_LEVELS} halvings are the most")
        channels = [width * 2**level for level in range(depth + 1)]
        self.network = _nets().AttentionUnet(dims, in_channels, out_channels, channels, [2] * depth, dropout=dropout)
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
            lower = _halved(convolution, lower, axis)
        if not last:
            lower = self._level(level.submodule[1], lower, axis)
        return follow(level.merge, _doubled(level.upconv.up, lower, axis).crop_and_concatenate(field), axis)


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
        _check(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_choice(GroupOrBatch, norm=norm)
        check_dropout(dropout=dropout)
        groups = ("group", {"num_groups": math.gcd(8, width)})
        self.network = _nets().SegResNet(
            dims, width, in_channels, out_channels, dropout_prob=dropout, norm=groups if norm == "group" else "batch"
        )

    def trace(self, field: Field, axis: int) -> Field:
        """One axis through the same layers as :meth:`forward`."""
        net = self.network
        field = follow(net.convInit, field, axis)
        skips = []
        for stride, *blocks in net.down_layers:
            field = field if isinstance(stride, nn.Identity) else _halved(stride, field, axis)
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
        _check(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_dropout(dropout=dropout)
        vnet = _nets().vnet
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
            skips.append(self._sum(down.ops, follow(down.down_conv, skips[-1], axis), axis))
        field = skips.pop()
        for up in (net.up_tr256, net.up_tr128, net.up_tr64, net.up_tr32):
            field = follow(up.up_conv, field, axis).crop_and_concatenate(skips.pop())
            field = self._sum(up.ops, field, axis)
        return follow(net.out_tr.conv2, follow(net.out_tr.conv_block, field, axis), axis)

    def _sum(self, convolutions: Any, field: Field, axis: int) -> Field:
        through = field
        for convolution in convolutions:
            through = follow(convolution.conv_block, through, axis)
        return through.crop_and_concatenate(field)


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


class UNETR(MonaiNetwork):
    """A vision transformer over the window's patches of 16^dims, and a U-Net's decoder (figure 2).

    MONAI's ``UNETR``, of the paper's sizes at width 16, without the norms for a cross-attention that it does not have.
    Each patch's place is learned, so that windows have one size.

    Args:
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        width: channels of the decoder's finest level, 16 in the paper; the transformer has 48 times as many.
        image_size: voxels of the window along each axis, 96 in the paper.
        dropout: probability in the transformer.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "Hatamizadeh et al. 2022, arXiv:2103.10504"
    PATCH = 16

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 21,
        dims: int = 2,
        width: int = 16,
        image_size: int = 96,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(dims, in_channels, out_channels)
        _check(dims, in_channels=in_channels, out_channels=out_channels, width=width, image_size=image_size)
        check_dropout(dropout=dropout)
        if image_size % self.PATCH:
            raise ConfigError(f"network.image_size is {image_size}: it must be a multiple of {self.PATCH}")
        self.image_size = image_size
        self.network = _nets().UNETR(
            in_channels,
            out_channels,
            image_size,
            feature_size=width,
            hidden_size=48 * width,
            mlp_dim=192 * width,
            dropout_rate=dropout,
            spatial_dims=dims,
        )
        for block in self.network.vit.blocks:
            block.norm_cross_attn = nn.Identity()

    def check_window(self, window: Sequence[int]) -> None:
        """Refuses every window but the one.

        Raises:
            TileError: with its size.
        """
        if tuple(window) != (self.image_size,) * self.dims:
            size = (self.image_size,) * self.dims
            raise TileError(f"a window of {tuple(window)}: this network takes {size} alone (network.image_size)")

    def trace(self, field: Field, axis: int) -> Field:
        """One axis: all of the window is attended to."""
        n = self.image_size
        return field.convolve(n, n).up_convolve(n, n).over_window()


class SwinUNETR(MonaiNetwork):
    """A Swin transformer over the window's patches of 2^dims, and a U-Net's decoder (figure 1).

    MONAI's ``SwinUNETR``, of the paper's 48 features at width 4: 62.19 million parameters in 3D for 14 classes of CT,
    as its authors' repository counts them.

    Args:
        in_channels: C.
        out_channels: K.
        dims: 2 or 3.
        width: a twelfth of the first stage's channels, 4 in the paper; every stage doubles them.
        dropout: probability in the transformer's projections.

    Raises:
        ConfigError: for a value that no network can be built from.
    """

    paper = "Hatamizadeh et al. 2022, arXiv:2201.01266"
    over_instances = True
    STEP = 32

    def __init__(
        self, in_channels: int = 3, out_channels: int = 21, dims: int = 2, width: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__(dims, in_channels, out_channels)
        _check(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_dropout(dropout=dropout)
        with _ScalarsOnCPU():
            self.network = _nets().SwinUNETR(
                in_channels, out_channels, feature_size=12 * width, drop_rate=dropout, spatial_dims=dims
            )

    def trace(self, field: Field, axis: int) -> Field:
        """One axis: cells shift from block to block, and instance norm looks at all of the window."""
        return field.convolve(self.STEP, self.STEP).up_convolve(self.STEP, self.STEP).over_window()


class _ScalarsOnCPU(TorchFunctionMode):
    """Keeps ``linspace`` on the CPU: MONAI's Swin reads its rates from one, which on the meta device has no values."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.linspace:
            kwargs["device"] = "cpu"
        return function(*args, **kwargs)


def _nets() -> Any:
    # MONAI imports MLflow where it finds it, and MLflow reads its telemetry switch when it is imported.
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")
    import monai.networks.nets as nets

    return nets


def _check(dims: object, **counts: object) -> None:
    check_dims(dims)
    check_counts(**counts)


def _times(width: int, *factors: int) -> tuple[int, ...]:
    return tuple(width * factor for factor in factors)


def _halved(layer: Any, field: Field, axis: int) -> Field:
    """A padded convolution that strides (or not), of even windows: they leave the last voxel of padding unused."""
    stride = layer.conv.stride[axis]
    sized = field.convolve(stride, stride)
    return _reaching(sized, follow(layer, replace(field, rounds=True), axis))


def _doubled(layer: Any, field: Field, axis: int) -> Field:
    """A transposed convolution that is padded at the end to give twice the size."""
    stride = layer.conv.stride[axis]
    return _reaching(field.up_convolve(stride, stride), follow(layer, field, axis))


def _reaching(sized: Field, through: Field) -> Field:
    return replace(sized, first=through.first, last=through.last, padded=True, exact=through.exact)


def _pair(block: Any, field: Field, axis: int) -> Field:
    """A block of two convolutions with norms, the first of which may stride."""
    field = follow(block.norm1, _halved(block.conv1, field, axis), axis)
    return follow(block.norm2, follow(block.conv2, field, axis), axis)


def _residual(blocks: Any, field: Field, axis: int) -> Field:
    """Blocks of two convolutions and a sum."""
    for block in blocks:
        through = follow(block.conv1, follow(block.norm1, field, axis), axis)
        field = follow(block.conv2, follow(block.norm2, through, axis), axis).crop_and_concatenate(field)
    return field
