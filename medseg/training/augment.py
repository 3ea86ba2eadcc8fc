"""Augmentation: MONAI dictionary transforms, named in a config.

    read    |<------------------ draw.read_shape ----------------->|    image and label, mirrored beyond the scan
    window           |<------------- window ------------->|             image: warped once, then flipped and turned
    core                    |<----- core ------>|                       label: the same, at the window's centre

Every transform that interpolates is part of one :class:`~medseg.training.warp.Warp`, which comes first and fetches the
window out of an area that is large enough for what was drawn: no fill value ever reaches the network. Flips and turns
by 90° move voxels without touching them, and intensities come last, in the order of the config.

Legend: C channels, d axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import monai.transforms as mt
import numpy as np
import torch
from monai.data.meta_obj import get_track_meta, set_track_meta
from numpy.random import RandomState
from numpy.typing import NDArray
from pydantic import ValidationError

from medseg.errors import ConfigError, GridError, nearest
from medseg.training.intensity import (
    Brightness,
    Contrast,
    Gamma,
    GaussianBlur,
    GaussianNoise,
    GaussianSharpen,
    LowResolution,
    Multiply,
)
from medseg.training.spatial import ElasticDeformation, Flip, Rotate, Rotate90, Scale, SpatialSpec
from medseg.training.transform import ExactSpec, Spec
from medseg.training.warp import Warp, centre_crop

TRANSFORMS: dict[str, type[Spec]] = {
    "flip": Flip,
    "rotate90": Rotate90,
    "rotate": Rotate,
    "scale": Scale,
    "elastic": ElasticDeformation,
    "gamma": Gamma,
    "brightness": Brightness,
    "multiply": Multiply,
    "contrast": Contrast,
    "gaussian_noise": GaussianNoise,
    "gaussian_blur": GaussianBlur,
    "gaussian_sharpen": GaussianSharpen,
    "low_resolution": LowResolution,
}
"""Every transform that a config can name."""


@dataclass(frozen=True)
class Draw:
    """What a seed has drawn for one sample, before anything is read.

    Attributes:
        window: voxels along each axis that the network will see.
        warp: where they are taken from; None: from where they are.
        seed: of the transforms that follow.
    """

    window: tuple[int, ...]
    warp: Warp | None
    seed: int

    @property
    def read_shape(self) -> tuple[int, ...]:
        """The area around the window's centre that must be read."""
        margin = (0,) * len(self.window) if self.warp is None else self.warp.margin
        return tuple(n + 2 * m for n, m in zip(self.window, margin, strict=True))


class Augmentation:
    """The transforms of a config, ready to be applied to samples; see the module for their order.

    An object serves one thread at a time: MONAI's transforms keep what they have drawn.
    """

    def __init__(self, specs: Sequence[Spec], dims: int) -> None:
        self.dims = dims
        self.flips = [spec for spec in specs if isinstance(spec, Flip) and spec.probability > 0]
        self.pieces = [spec.piece(dims) for spec in specs if isinstance(spec, SpatialSpec)]
        exact = [t for spec in specs if isinstance(spec, ExactSpec) for t in spec.transforms(dims)]
        moving = (mt.RandFlipd, mt.RandRotate90d)
        self.transforms = mt.Compose(sorted(exact, key=lambda transform: not isinstance(transform, moving)))

    @property
    def mirrored(self) -> list[int]:
        """The axes along which some samples are mirrored."""
        return sorted({axis for flip in self.flips for axis in (range(self.dims) if flip.axes is None else flip.axes)})

    def draw(self, window: Sequence[int], seed: int) -> Draw:
        """What ``seed`` alone decides."""
        warping, following = np.random.SeedSequence(seed).generate_state(2).tolist()
        return Draw(tuple(window), Warp.drawn(self.pieces, window, RandomState(warping)), following)

    def __call__(self, image: NDArray, label: NDArray, draw: Draw, core: Sequence[int]) -> tuple[NDArray, NDArray]:
        """Image (C, \\*read) float32 → (C, \\*window), label (\\*read) → (\\*core).

        Raises:
            GridError: where less was read than ``draw.read_shape`` or the core is not at the window's centre.
        """
        _check(image, label, draw, core)
        seen = torch.from_numpy(np.ascontiguousarray(image, np.float32))
        kept = torch.from_numpy(_torch_knows(label))[None]
        if draw.warp is None:
            seen, kept = centre_crop(seen, draw.window), centre_crop(kept, core)
        else:
            seen, kept = draw.warp(seen, kept, core)
        self.transforms.set_random_state(draw.seed)
        # MONAI's record of what was done to a tensor costs more than most transforms; nothing here is inverted.
        tracked = get_track_meta()
        set_track_meta(False)
        try:
            done: Mapping[str, Any] = self.transforms({"image": seen, "label": kept})
        finally:
            set_track_meta(tracked)
        classes = np.ascontiguousarray(done["label"][0].numpy())
        return np.ascontiguousarray(done["image"].numpy()), classes.astype(label.dtype, copy=False)


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
    if not isinstance(name, str) or name not in TRANSFORMS:
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
    axes = spec.named_axes
    if any(axis >= dims for axis in axes) or len(set(axes)) < len(axes):
        raise ConfigError(f"{key}.axes is {axes}; the samples have the axes {list(range(dims))}, name each once")


def _check(image: NDArray, label: NDArray, draw: Draw, core: Sequence[int]) -> None:
    needed = draw.read_shape
    if image.shape[1:] != label.shape or any(r < n for r, n in zip(label.shape, needed, strict=True)):
        raise GridError(
            f"augmentation of a window {draw.window} needs image and label of {needed} voxels; "
            f"they have {image.shape[1:]} and {label.shape}"
        )
    if any((n - c) % 2 or c > n for n, c in zip(draw.window, core, strict=True)):
        raise GridError(f"core {tuple(core)} does not lie at the centre of window {draw.window}")


def _torch_knows(label: NDArray) -> NDArray:
    """The label in a type that PyTorch can flip: of the unsigned ones only bytes."""
    wide = label.dtype.kind == "u" and label.dtype.itemsize > 1
    return np.ascontiguousarray(label, np.int64 if wide else label.dtype)
