"""How a model goes through a scan: what a config says, and what a package keeps.

``tile-overlap`` is exact for a network whose voxels depend on a bounded window. ``sliding-window`` averages overlapping
windows, as MONAI does: the default where a network pads its convolutions, since its halo costs much, and the only way
but one pass where a voxel depends on the whole window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from medseg.errors import ConfigError, TileError

if TYPE_CHECKING:
    from medseg.inference.windows import Blending
    from medseg.networks.network import Network

Mode = Literal["auto", "tile-overlap", "sliding-window", "whole"]


class InferenceSettings(BaseModel):
    """The way through a scan, in validation and in ``medseg infer`` where the command line does not say another."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode = Field("auto", description="auto: tile-overlap for valid convolutions, sliding-window for padded ones")
    roi: list[PositiveInt] | None = Field(None, description="the sliding window; null takes the training window")
    overlap: float = Field(0.5, ge=0, lt=1, description="of neighbouring sliding windows")
    blend: Literal["gaussian", "constant"] = Field("gaussian", description="what counts more where windows overlap")
    sigma_scale: PositiveFloat = Field(0.125, description="the Gaussian's sigma, as a part of the window")
    padding: Literal["mirror", "zeros"] = Field(
        "mirror",
        description="what a sliding window sees beyond a scan that is smaller than it: its mirror, as training samples "
        "do, or zeros, as MONAI's windows do by default",
    )

    def resolved(self, network: Network, window: list[int] | None) -> InferenceSettings:
        """With a mode for this network, and a window where windows slide.

        Args:
            network: whose footprint decides.
            window: what it was trained on.

        Raises:
            TileError: for a mode or a window that the network cannot take.
            ConfigError: where windows slide and neither roi nor training window is known.
        """
        mode = _natural(network) if self.mode == "auto" else self.mode
        if mode == "tile-overlap" and not network.footprint.exact:
            raise TileError(
                "overlap tiles need a network whose voxels depend on a bounded window; this one looks at its whole "
                "window (instance, group or layer norm, global pooling or attention): use --sliding-window or --whole"
            )
        if mode != "sliding-window":
            return self.model_copy(update={"mode": mode})
        from medseg.inference.windows import check_roi

        roi = self.roi or window
        if roi is None:
            raise ConfigError("sliding windows need a size and the package names no training window: give --roi N")
        sizes = list(roi) * network.dims if len(roi) == 1 else list(roi)
        check_roi(network, sizes)
        return self.model_copy(update={"mode": mode, "roi": sizes})

    @property
    def blending(self) -> Blending:
        """The windows of resolved settings whose mode is sliding-window."""
        from medseg.inference.windows import Blending

        if self.roi is None:
            raise ValueError("these settings have no window: resolve them first")
        return Blending(tuple(self.roi), self.overlap, self.blend, self.sigma_scale, self.padding)


def _natural(network: Network) -> Mode:
    if any(field.trim for field in network.fields):
        return "tile-overlap" if network.footprint.exact else "whole"
    padded = any(field.padded for field in network.fields)
    return "sliding-window" if padded or not network.footprint.exact else "tile-overlap"
