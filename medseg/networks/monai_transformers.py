"""Networks with transformers, as MONAI builds them.

    unetr           a transformer over the whole window       one window size
    swin_unetr      a transformer over cells of 7^dims

Both look at the whole window: their footprints are not exact.

Legend: N batch, C input channels, K output channels, n voxels along one axis of the window.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from medseg.errors import ConfigError, TileError
from medseg.geometry import Field
from medseg.networks.monai_network import MonaiNetwork, ScalarsOnCPU, monai_nets
from medseg.networks.network import check_dropout, check_sizes


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
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels, width=width, image_size=image_size)
        check_dropout(dropout=dropout)
        if image_size % self.PATCH:
            raise ConfigError(f"network.image_size is {image_size}: it must be a multiple of {self.PATCH}")
        self.image_size = image_size
        self.network = monai_nets().UNETR(
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
        check_sizes(dims, in_channels=in_channels, out_channels=out_channels, width=width)
        check_dropout(dropout=dropout)
        with ScalarsOnCPU():
            self.network = monai_nets().SwinUNETR(
                in_channels, out_channels, feature_size=12 * width, drop_rate=dropout, spatial_dims=dims
            )

    def trace(self, field: Field, axis: int) -> Field:
        """One axis: cells shift from block to block, and instance norm looks at all of the window."""
        return field.convolve(self.STEP, self.STEP).up_convolve(self.STEP, self.STEP).over_window()
