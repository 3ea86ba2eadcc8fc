"""Augmentation: MONAI dictionary transforms, named in a config.

    read    |<------------------ read_shape(window) ------------------>|    image and label, mirrored beyond the scan
    window           |<------------- window ------------->|                 image: warped once, then flipped and turned
    core                    |<----- core ------>|                           label: the same, at the window's centre

Every transform that interpolates is part of one :class:`~medseg.training.warp.Warpd`, which comes first and fetches
the window out of an area that is large enough for its worst case: no fill value ever reaches the network. Flips and
turns by 90° move voxels without touching them, and intensities come last.

Legend: C channels, d axes. Intensities are those that the network sees, so their unit is the normalised scan's: its SD
where it is z-scored.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Annotated, Any, Literal

import monai.transforms as mt
import numpy as np
import torch
from monai.data.meta_obj import get_track_meta, set_track_meta
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, field_validator

from medseg.errors import ConfigError, GridError, nearest
from medseg.training.warp import Elastic, Rotation, Scaling, Warpd

Probability = Annotated[float, Field(ge=0, le=1)]
Axis = Annotated[int, Field(ge=0, le=2)]
Range = tuple[PositiveFloat, PositiveFloat]
IMAGE = ("image",)
BOTH = ("image", "label")


class Spec(BaseModel):
    """One transform as a config names it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    probability: Probability = 0.5

    @field_validator("range", check_fields=False)
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("the first number must not be above the second")
        return value


class SpatialSpec(Spec):
    """One that interpolates: a piece of the one warp."""

    def piece(self, dims: int) -> Rotation | Scaling | Elastic:
        """What :class:`Warpd` composes."""
        raise NotImplementedError


class ExactSpec(Spec):
    """One that moves voxels, or changes their values: MONAI transforms."""

    def transforms(self, dims: int) -> list[Any]:
        """MONAI dictionary transforms of ``image`` and ``label``."""
        raise NotImplementedError


class Flip(ExactSpec):
    """Mirrors each of ``axes`` (default: all) by its own draw; leave out an axis whose sides the labels tell apart."""

    name: Literal["flip"] = "flip"
    axes: list[Axis] | None = None

    def transforms(self, dims: int) -> list[Any]:
        """One RandFlipd an axis."""
        axes = range(dims) if self.axes is None else self.axes
        return [mt.RandFlipd(BOTH, self.probability, axis) for axis in axes]


class Rotate90(ExactSpec):
    """Turns by 90°, 180° or 270° in the plane of ``axes``, where the window is as long on both."""

    name: Literal["rotate90"] = "rotate90"
    axes: tuple[Axis, Axis] = (0, 1)

    def transforms(self, dims: int) -> list[Any]:
        """One RandRotate90d."""
        return [_RandRotate90OfSquaresd(BOTH, self.probability, spatial_axes=self.axes)]


class Rotate(SpatialSpec):
    """Turns by an angle within ± ``degrees`` in the plane of ``axes``, which should have one spacing."""

    name: Literal["rotate"] = "rotate"
    degrees: float = Field(15, gt=0, le=180)
    axes: tuple[Axis, Axis] = (0, 1)

    def piece(self, dims: int) -> Rotation:
        """A rotation matrix."""
        return Rotation(self.degrees, self.axes, self.probability)


class Scale(SpatialSpec):
    """Magnifies by a factor within ``range``: above 1 things become larger."""

    name: Literal["scale"] = "scale"
    range: Range = (0.85, 1.25)

    def piece(self, dims: int) -> Scaling:
        """A multiple of the identity."""
        return Scaling(*self.range, self.probability)


class ElasticDeformation(SpatialSpec):
    """The U-Net paper's: Gaussian displacements on a coarse ``grid``, bicubic, cut at 3 sigma.

    ``sigma`` is in voxels, one number or one an axis. Up to some four times as many voxels more are read on each side.
    """

    name: Literal["elastic"] = "elastic"
    sigma: PositiveFloat | list[PositiveFloat] = 10
    grid: int = Field(3, ge=2, le=32)

    def piece(self, dims: int) -> Elastic:
        """A displacement field."""
        sigma = self.sigma if isinstance(self.sigma, list) else [self.sigma] * dims
        return Elastic(tuple(sigma), self.grid, self.probability)


class Gamma(ExactSpec):
    """Values between the window's least and largest raised to a power within ``range``."""

    name: Literal["gamma"] = "gamma"
    probability: Probability = 0.3
    range: Range = (0.7, 1.5)

    def transforms(self, dims: int) -> list[Any]:
        """RandAdjustContrastd."""
        return [mt.RandAdjustContrastd(IMAGE, self.probability, self.range)]


class Brightness(ExactSpec):
    """Adds one value within ± ``amount`` to every voxel."""

    name: Literal["brightness"] = "brightness"
    probability: Probability = 0.3
    amount: PositiveFloat = 0.3

    def transforms(self, dims: int) -> list[Any]:
        """RandShiftIntensityd."""
        return [mt.RandShiftIntensityd(IMAGE, self.amount, prob=self.probability)]


class Contrast(ExactSpec):
    """Stretches values about the window's mean by a factor within ``range``."""

    name: Literal["contrast"] = "contrast"
    probability: Probability = 0.3
    range: Range = (0.75, 1.25)

    def transforms(self, dims: int) -> list[Any]:
        """RandScaleIntensityFixedMeand."""
        factors = tuple(factor - 1 for factor in self.range)
        return [mt.RandScaleIntensityFixedMeand(IMAGE, factors, prob=self.probability)]


class GaussianNoise(ExactSpec):
    """Adds white noise whose SD is drawn between 0 and ``std``."""

    name: Literal["gaussian_noise"] = "gaussian_noise"
    probability: Probability = 0.2
    std: PositiveFloat = 0.1

    def transforms(self, dims: int) -> list[Any]:
        """RandGaussianNoised."""
        return [mt.RandGaussianNoised(IMAGE, self.probability, std=self.std)]


class GaussianBlur(ExactSpec):
    """Blurs by a Gaussian whose SD is drawn within ``range``, in voxels, for each axis."""

    name: Literal["gaussian_blur"] = "gaussian_blur"
    probability: Probability = 0.2
    range: Range = (0.5, 1.0)

    def transforms(self, dims: int) -> list[Any]:
        """RandGaussianSmoothd."""
        return [mt.RandGaussianSmoothd(IMAGE, self.range, self.range, self.range, prob=self.probability)]


class GaussianSharpen(ExactSpec):
    """Adds what a Gaussian blur took away, by a factor within ``range``."""

    name: Literal["gaussian_sharpen"] = "gaussian_sharpen"
    probability: Probability = 0.2
    range: Range = (1.0, 3.0)

    def transforms(self, dims: int) -> list[Any]:
        """RandGaussianSharpend."""
        return [mt.RandGaussianSharpend(IMAGE, alpha=self.range, prob=self.probability)]


class LowResolution(ExactSpec):
    """Down-samples by a factor within ``range`` and back, as a coarser scanner would have seen it."""

    name: Literal["low_resolution"] = "low_resolution"
    probability: Probability = 0.2
    range: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (0.5, 1.0)

    def transforms(self, dims: int) -> list[Any]:
        """RandSimulateLowResolutiond."""
        linear = {2: "bilinear", 3: "trilinear"}[dims]
        return [mt.RandSimulateLowResolutiond(IMAGE, self.probability, upsample_mode=linear, zoom_range=self.range)]


TRANSFORMS: dict[str, type[Spec]] = {
    "flip": Flip,
    "rotate90": Rotate90,
    "rotate": Rotate,
    "scale": Scale,
    "elastic": ElasticDeformation,
    "gamma": Gamma,
    "brightness": Brightness,
    "contrast": Contrast,
    "gaussian_noise": GaussianNoise,
    "gaussian_blur": GaussianBlur,
    "gaussian_sharpen": GaussianSharpen,
    "low_resolution": LowResolution,
}
"""Every transform that a config can name."""


class Augmentation:
    """The transforms of a config, ready to be applied to samples; see the module for their order.

    An object serves one thread at a time: MONAI's transforms keep what they have drawn.
    """

    def __init__(self, specs: Sequence[Spec], dims: int) -> None:
        self.dims = dims
        self.warp = Warpd([spec.piece(dims) for spec in specs if isinstance(spec, SpatialSpec)])
        exact = [t for spec in specs if isinstance(spec, ExactSpec) for t in spec.transforms(dims)]
        moving = (mt.RandFlipd, mt.RandRotate90d)
        ordered = sorted(exact, key=lambda transform: not isinstance(transform, moving))
        self.transforms = mt.Compose([self.warp, *ordered])

    def read_shape(self, window: Sequence[int]) -> tuple[int, ...]:
        """How large an area must be read around a window so that whatever is drawn stays within it."""
        return tuple(n + 2 * m for n, m in zip(window, self.warp.margin(window), strict=True))

    def __call__(
        self, image: NDArray, label: NDArray, window: Sequence[int], core: Sequence[int], seed: int
    ) -> tuple[NDArray, NDArray]:
        """Image (C, \\*read) float32 → (C, \\*window), label (\\*read) → (\\*core), by ``seed`` alone.

        Raises:
            GridError: where less was read than :meth:`read_shape` or the core is not at the window's centre.
        """
        self._check(image, label, window, core)
        self.transforms.set_random_state(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        sample = {
            "image": torch.from_numpy(np.ascontiguousarray(image, np.float32)),
            "label": torch.from_numpy(_torch_knows(label))[None],
            "window": tuple(window),
            "core": tuple(core),
        }
        # MONAI's record of what was done to a tensor costs more than most transforms; nothing here is inverted.
        tracked = get_track_meta()
        set_track_meta(False)
        try:
            done: Mapping[str, Any] = self.transforms(sample)
        finally:
            set_track_meta(tracked)
        kept = np.ascontiguousarray(done["label"][0].numpy())
        return np.ascontiguousarray(done["image"].numpy()), kept.astype(label.dtype, copy=False)

    def _check(self, image: NDArray, label: NDArray, window: Sequence[int], core: Sequence[int]) -> None:
        needed = self.read_shape(window)
        if image.shape[1:] != label.shape or any(r < n for r, n in zip(label.shape, needed, strict=True)):
            raise GridError(
                f"augmentation of a window {tuple(window)} needs image and label of {needed} voxels; "
                f"they have {image.shape[1:]} and {label.shape}"
            )
        if any((n - c) % 2 or c > n for n, c in zip(window, core, strict=True)):
            raise GridError(f"core {tuple(core)} does not lie at the centre of window {tuple(window)}")


def build_augmentation(specs: Sequence[Mapping[str, Any]], dims: int) -> Augmentation:
    """The augmentation that a config's list names, e.g. ``[{"name": "flip", "axes": [0]}, {"name": "elastic"}]``.

    Args:
        specs: a name of :data:`TRANSFORMS` and its arguments each.
        dims: the axes of the samples, 2 or 3.

    Raises:
        ConfigError: for an unknown name or argument or a value that is not allowed.
    """
    return Augmentation([_parsed(spec, i, dims) for i, spec in enumerate(specs)], dims)


def _parsed(spec: Mapping[str, Any], index: int, dims: int) -> Spec:
    key, name = f"augmentation.{index}", spec.get("name")
    if name not in TRANSFORMS:
        hint = nearest(str(name), TRANSFORMS)
        raise ConfigError(f"{key}.name is {name!r}{hint}; it must be one of {', '.join(TRANSFORMS)}")
    chosen = TRANSFORMS[name]
    for argument in spec:
        if argument not in chosen.model_fields:
            takes = ", ".join(field for field in chosen.model_fields if field != "name")
            hint = nearest(str(argument), chosen.model_fields)
            raise ConfigError(f"{key}.{argument} is no argument of {name}{hint}; it takes {takes}")
    try:
        parsed = chosen.model_validate(spec)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (key, *first["loc"])))
        raise ConfigError(f"{where} is {first['input']!r}: {first['msg']} ({name})") from None
    _check_axes(parsed, key, dims)
    return parsed


def _check_axes(spec: Spec, key: str, dims: int) -> None:
    if isinstance(spec, ElasticDeformation) and isinstance(spec.sigma, list) and len(spec.sigma) != dims:
        raise ConfigError(f"{key}.sigma has {len(spec.sigma)} numbers and the samples have {dims} axes")
    axes = (spec.axes or ()) if isinstance(spec, Flip | Rotate | Rotate90) else ()
    if any(axis >= dims for axis in axes) or len(set(axes)) < len(axes):
        raise ConfigError(f"{key}.axes is {list(axes)}; the samples have the axes {list(range(dims))}, name each once")


def _torch_knows(label: NDArray) -> NDArray:
    """The label in a type that PyTorch can flip: of the unsigned ones only bytes."""
    wide = label.dtype.kind == "u" and label.dtype.itemsize > 1
    return np.ascontiguousarray(label, np.int64 if wide else label.dtype)


class _RandRotate90OfSquaresd(mt.RandRotate90d):
    """RandRotate90d that leaves samples alone whose shape would change."""

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> Mapping[Hashable, Any]:
        sides = [data[key].shape[1 + axis] for key in self.keys for axis in self.spatial_axes]
        square = sides[0] == sides[1] and sides[2] == sides[3]
        return super().__call__(data, lazy) if square else data
