"""The transforms that change the image's values and leave the label alone.

Each is a transform of MONAI's, drawn by :class:`Drawnd` for all channels together or for each by itself. Intensities
are those that the network sees, so their unit is the normalised scan's: its SD where it is z-scored.

Legend: C channels, n voxels of the window.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import monai.transforms as mt
import torch
from monai.transforms import MapTransform, RandomizableTransform
from numpy.random import RandomState
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn import functional

from medseg.training.transform import Axis, ExactSpec, Probability, Range
from medseg.training.warp import centre_crop

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
GAUSSIAN_END = 4.0
"""Standard deviations at which MONAI cuts its Gaussians."""
MOST_SEEDS = 2**32 - 1


class IntensitySpec(ExactSpec):
    """One that changes values.

    ``channel_probability``: each channel is drawn by itself, with this chance once the sample was drawn, as modalities
    want it; null takes one draw for all channels, as colours want it.
    """

    channel_probability: Probability | None = None

    def transforms(self, dims: int) -> list[Any]:
        """One :class:`Drawnd`."""
        alone = self.channel_probability is not None
        chance = 1.0 if self.channel_probability is None else self.channel_probability
        return [Drawnd(self.values(dims, chance), self.probability, alone)]

    def values(self, dims: int, chance: float) -> RandomizableTransform:
        """The MONAI transform of an array (C, \\*n), applied with a probability of ``chance``."""
        raise NotImplementedError


class Gamma(IntensitySpec):
    """Values between the least and largest raised to a power within ``range``.

    ``invert`` turns the values over before and after, so that the bright ones are spread. ``retain_stats`` restores
    mean and SD.
    """

    name: Literal["gamma"] = "gamma"
    probability: Probability = 0.3
    range: Range = (0.7, 1.5)
    invert: bool = False
    retain_stats: bool = False

    def values(self, dims: int, chance: float) -> RandomizableTransform:
        """RandAdjustContrast."""
        return mt.RandAdjustContrast(chance, self.range, self.invert, self.retain_stats)


class Brightness(IntensitySpec):
    """Adds one value within ± ``amount`` to every voxel."""

    name: Literal["brightness"] = "brightness"
    probability: Probability = 0.3
    amount: PositiveFloat = 0.3

    def values(self, dims: int, chance: float) -> RandomizableTransform:
        """RandShiftIntensity."""
        return mt.RandShiftIntensity(self.amount, prob=chance)


class Multiply(IntensitySpec):
    """Multiplies every voxel by one factor within ``range``: nnU-Net's brightness."""

    name: Literal["multiply"] = "multiply"
    probability: Probability = 0.15
    range: Range = (0.75, 1.25)

    def values(self, dims: int, chance: float) -> RandomizableTransform:
        """RandScaleIntensity."""
        return mt.RandScaleIntensity(_changes(self.range), chance)


class Contrast(IntensitySpec):
    """Stretches values about their mean by a factor within ``range``; ``preserve_range`` clips to what there was."""

    name: Literal["contrast"] = "contrast"
    probability: Probability = 0.3
    range: Range = (0.75, 1.25)
    preserve_range: bool = False

    def values(self, dims: int, chance: float) -> RandomizableTransform:
        """RandScaleIntensityFixedMean."""
        return mt.RandScaleIntensityFixedMean(chance, _changes(self.range), preserve_range=self.preserve_range)


class GaussianNoise(IntensitySpec):
    """Adds white noise whose SD is drawn between 0 and ``std``."""

    name: Literal["gaussian_noise"] = "gaussian_noise"
    probability: Probability = 0.2
    std: PositiveFloat = 0.1

    def values(self, dims: int, chance: float) -> RandomizableTransform:
        """RandGaussianNoise."""
        return mt.RandGaussianNoise(chance, std=self.std)


class GaussianBlur(IntensitySpec):
    """Blurs by a Gaussian whose SD is drawn within ``range``, in voxels, for each axis."""

    name: Literal["gaussian_blur"] = "gaussian_blur"
    probability: Probability = 0.2
    range: Range = (0.5, 1.0)

    def values(self, dims: int, chance: float) -> RandomizableTransform:
        """RandGaussianSmooth."""
        return _RandGaussianSmooth(self.range, self.range, self.range, chance)


class GaussianSharpen(IntensitySpec):
    """Adds what a Gaussian blur took away, by a factor within ``range``."""

    name: Literal["gaussian_sharpen"] = "gaussian_sharpen"
    probability: Probability = 0.2
    range: Range = (1.0, 3.0)

    def values(self, dims: int, chance: float) -> RandomizableTransform:
        """RandGaussianSharpen."""
        return _RandGaussianSharpen(alpha=self.range, prob=chance)


class LowResolution(IntensitySpec):
    """Down-samples ``axes`` (default: all) by a factor within ``range`` and back, as a coarser scanner would see it."""

    name: Literal["low_resolution"] = "low_resolution"
    probability: Probability = 0.2
    range: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (0.5, 1.0)
    axes: list[Axis] | None = Field(None, min_length=1)

    def values(self, dims: int, chance: float) -> RandomizableTransform:
        """RandSimulateLowResolution."""
        return _RandLowResolutionOfAxes(range(dims) if self.axes is None else self.axes, self.range, chance)

    @property
    def named_axes(self) -> list[int]:
        """Those of ``axes``."""
        return self.axes or []


class Drawnd(RandomizableTransform, MapTransform):
    """A MONAI dictionary transform: a transform of arrays, on the ``image`` alone.

    Args:
        transform: of an array (C, \\*n), with the probability of its own that a channel has.
        probability: of a sample.
        alone: whether each channel is drawn by itself.
    """

    def __init__(self, transform: RandomizableTransform, probability: float, alone: bool) -> None:
        MapTransform.__init__(self, ("image",))
        RandomizableTransform.__init__(self, probability)
        self.transform = transform
        self.alone = alone

    def set_random_state(self, seed: int | None = None, state: RandomState | None = None) -> Self:
        """Sets both generators; with one seed for both a channel's chance would follow its sample's."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(int(self.R.randint(MOST_SEEDS, dtype="uint32")))
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """See the class."""
        done = dict(data)
        self.randomize(None)
        if self._do_transform:
            parts = done["image"].split(1) if self.alone else [done["image"]]
            done["image"] = torch.cat([self.transform(part) for part in parts])
        return done


class _RandGaussianSmooth(mt.RandGaussianSmooth):
    """RandGaussianSmooth that repeats the image's edge, where MONAI's sees zeros beyond it."""

    def __call__(self, img: Tensor, randomize: bool = True) -> Tensor:
        reach = _reach(self.sigma_x[1])
        return _cropped(super().__call__(_edge_repeated(img, reach), randomize), reach)


class _RandGaussianSharpen(mt.RandGaussianSharpen):
    """RandGaussianSharpen that repeats the image's edge, where MONAI's sees zeros beyond it."""

    def __call__(self, img: Tensor, randomize: bool = True) -> Tensor:
        reach = 2 * _reach(self.sigma1_x[1])  # it blurs twice, the second time by no more than the first
        return _cropped(super().__call__(_edge_repeated(img, reach), randomize), reach)


class _RandLowResolutionOfAxes(mt.RandSimulateLowResolution):
    """RandSimulateLowResolution along some axes; the others go through as if they were channels.

    Voxels are picked by their centres (``nearest-exact``): MONAI's default picks by their edges and shifts the image.
    """

    def __init__(self, axes: Sequence[int], factors: tuple[float, float], chance: float) -> None:
        super().__init__(chance, "nearest-exact", LINEAR[len(axes)], factors)
        self.axes = [axis + 1 for axis in axes]

    def __call__(self, img: Tensor, randomize: bool = True) -> Tensor:
        last = list(range(img.ndim - len(self.axes), img.ndim))
        moved = img.movedim(self.axes, last)
        coarse: Tensor = super().__call__(moved.flatten(0, last[0] - 1), randomize)
        return coarse.reshape(moved.shape).movedim(last, self.axes)


def _changes(factors: tuple[float, float]) -> tuple[float, float]:
    """MONAI's factors: v · (1 + factor)."""
    return factors[0] - 1, factors[1] - 1


def _reach(sigma: float) -> int:
    """Voxels on each side that a Gaussian sees."""
    return int(GAUSSIAN_END * sigma + 0.5)


def _edge_repeated(img: Tensor, reach: int) -> Tensor:
    """(C, \\*n) → (C, \\*(n + 2 · reach))."""
    return functional.pad(img[None], (reach, reach) * (img.ndim - 1), mode="replicate")[0]


def _cropped(img: Tensor, reach: int) -> Tensor:
    return centre_crop(img, [n - 2 * reach for n in img.shape[1:]])
