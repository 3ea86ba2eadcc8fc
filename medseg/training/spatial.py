"""The transforms that move voxels, image and label alike.

Rotation, scaling and elastic deformation interpolate: they are pieces of the one warp. Flips and turns by 90° do not.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Literal

import monai.transforms as mt
from pydantic import Field, PositiveFloat

from medseg.training.transform import Axis, ExactSpec, Range, Spec
from medseg.training.warp import Elastic, Rotation, Scaling

BOTH = ("image", "label")


class SpatialSpec(Spec):
    """One that interpolates: a piece of the one warp."""

    def piece(self, dims: int) -> Rotation | Scaling | Elastic:
        """What :class:`~medseg.training.warp.Warp` composes."""
        raise NotImplementedError


class Flip(ExactSpec):
    """Mirrors each of ``axes`` (default: all) by its own draw; leave out an axis whose sides the labels tell apart."""

    name: Literal["flip"] = "flip"
    axes: list[Axis] | None = None

    def transforms(self, dims: int) -> list[Any]:
        """One RandFlipd an axis."""
        axes = range(dims) if self.axes is None else self.axes
        return [mt.RandFlipd(BOTH, self.probability, axis) for axis in axes]

    @property
    def named_axes(self) -> list[int]:
        """Those of ``axes``."""
        return self.axes or []


class Rotate90(ExactSpec):
    """Turns by 90°, 180° or 270° in the plane of ``axes``, where the window is as long on both."""

    name: Literal["rotate90"] = "rotate90"
    axes: tuple[Axis, Axis] = (0, 1)

    def transforms(self, dims: int) -> list[Any]:
        """One RandRotate90d."""
        return [_RandRotate90OfSquaresd(BOTH, self.probability, spatial_axes=self.axes)]

    @property
    def named_axes(self) -> list[int]:
        """Those of ``axes``."""
        return list(self.axes)


class Rotate(SpatialSpec):
    """Turns by an angle within ± ``degrees`` in the plane of ``axes``, which should have one spacing.

    ``axes: all`` turns in every plane, by an angle each: for samples of one spacing.
    """

    name: Literal["rotate"] = "rotate"
    degrees: float = Field(15, gt=0, le=180)
    axes: tuple[Axis, Axis] | Literal["all"] = (0, 1)

    def piece(self, dims: int) -> Rotation:
        """A rotation matrix."""
        every = tuple((a, b) for a in range(dims) for b in range(a + 1, dims))
        return Rotation(self.degrees, every if self.axes == "all" else (self.axes,), self.probability)

    @property
    def named_axes(self) -> list[int]:
        """Those of ``axes``."""
        return [] if self.axes == "all" else list(self.axes)


class Scale(SpatialSpec):
    """Magnifies ``axes`` (default: all) by one factor within ``range``: above 1 things become larger."""

    name: Literal["scale"] = "scale"
    range: Range = (0.85, 1.25)
    axes: list[Axis] | None = None

    def piece(self, dims: int) -> Scaling:
        """A diagonal matrix."""
        axes = tuple(range(dims)) if self.axes is None else tuple(self.axes)
        return Scaling(*self.range, axes, self.probability)

    @property
    def named_axes(self) -> list[int]:
        """Those of ``axes``."""
        return self.axes or []


class ElasticDeformation(SpatialSpec):
    """The U-Net paper's: Gaussian displacements on a coarse ``grid``, bicubic, cut at 3 sigma.

    ``sigma`` is in voxels, one number or one an axis.
    """

    name: Literal["elastic"] = "elastic"
    sigma: PositiveFloat | list[PositiveFloat] = 10
    grid: int = Field(3, ge=2, le=32)

    def piece(self, dims: int) -> Elastic:
        """A displacement field."""
        sigma = self.sigma if isinstance(self.sigma, list) else [self.sigma] * dims
        return Elastic(tuple(sigma), self.grid, self.probability)


class _RandRotate90OfSquaresd(mt.RandRotate90d):
    """RandRotate90d that leaves samples alone whose shape would change."""

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> Mapping[Hashable, Any]:
        sides = [data[key].shape[1 + axis] for key in self.keys for axis in self.spatial_axes]
        square = sides[0] == sides[1] and sides[2] == sides[3]
        return super().__call__(data, lazy) if square else data
