"""A dense conditional random field (Krähenbühl & Koltun, NIPS 2011), the last step of DeepLab v1 and v2.

Every pixel is joined to every other one of a window by two kernels of positions p and intensities I (eq. 3 there; eq. 3
of Chen et al., ICLR 2015):

    k(i, j) = w1 exp(-|p_i - p_j|² / 2σα² - |I_i - I_j|² / 2σβ²)  +  w2 exp(-|p_i - p_j|² / 2σγ²)
              appearance: alike and near have one label             smoothness: no lone pixels

and ten steps of mean field with Potts compatibility (algorithm 1) turn probabilities Q into ones that follow the image:

    Q_i(l)  ∝  p_i(l) exp(Σ_j k(i, j) Q_j(l))

As in the authors' program, whose parameters DeepLab's are, each kernel is normalised from both sides by the square root
of its sums, and a pixel hears itself. Theirs approximates the sums on a permutohedral lattice that spans the image;
here they are exact sums over a window of ``truncate`` sigmas, of which the appearance kernel takes every ``stride``-th
pixel. So a pixel depends on a bounded part of the image, and tiles can be exact.

Legend: C channels, K labels, r the radius of the larger window, T iterations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from medseg.errors import ConfigError

LEAST_PROBABILITY = 1e-5
"""What a probability of 0 counts as: no network is that sure."""

KEPT_BYTES = 256 << 20
"""Of the appearance kernel's weights; what does not fit is computed anew in each iteration."""


@dataclass(frozen=True)
class DenseCRF:
    """The parameters; by default those that DeepLab v1 was published with (its ``run_densecrf.sh``).

    Attributes:
        appearance_weight: w1.
        sigma_alpha: in pixels.
        sigma_beta: in grey levels of 256.
        smoothness_weight: w2.
        sigma_gamma: in pixels.
        iterations: T.
        truncate: the windows' radius in sigmas.
        stride: the appearance kernel's window is looked at every so many pixels; None takes a seventh of σα. 1 takes
            all of them, at the square of the cost.

    Raises:
        ConfigError: for a weight below 0 or a sigma or count that is not above it.
    """

    appearance_weight: float = 4.0
    sigma_alpha: float = 49.0
    sigma_beta: float = 5.0
    smoothness_weight: float = 3.0
    sigma_gamma: float = 3.0
    iterations: int = 10
    truncate: float = 2.0
    stride: int | None = None

    def __post_init__(self) -> None:
        positive = {name: getattr(self, name) for name in ("sigma_alpha", "sigma_beta", "sigma_gamma", "truncate")}
        wrong = [name for name, value in positive.items() if not value > 0]
        wrong += [name for name in ("appearance_weight", "smoothness_weight") if not getattr(self, name) >= 0]
        wrong += ["iterations"] * (self.iterations < 1) + ["stride"] * (self.step < 1)
        if wrong:
            raise ConfigError(f"dense CRF: {wrong[0]} is {getattr(self, wrong[0])}: give a number above 0")

    @property
    def step(self) -> int:
        """Pixels between those of the appearance window."""
        return max(1, round(self.sigma_alpha / 7)) if self.stride is None else self.stride

    @property
    def radius(self) -> int:
        """r: how far a pixel hears in one iteration."""
        return max(math.ceil(self.truncate * self.sigma_gamma), self._reach * self.step)

    @property
    def exact_halo(self) -> int:
        """(T + 1) r: with so much around it, a tile equals the whole. The one is the kernels' normalisation."""
        return (self.iterations + 1) * self.radius

    @property
    def _reach(self) -> int:
        """Steps from the appearance window's centre to its edge."""
        return math.ceil(self.truncate * self.sigma_alpha / self.step)

    def offsets(self) -> Iterator[tuple[int, int, float]]:
        """Half of the appearance window without its centre, and the squared distance by which each one's weight falls.

        The other half are the same offsets backwards, of the same weights.
        """
        steps = range(-self._reach, self._reach + 1)
        for down in range(self._reach + 1):
            for right in steps if down else range(1, self._reach + 1):
                y, x = down * self.step, right * self.step
                yield y, x, (y * y + x * x) / (2 * self.sigma_alpha**2)

    def refine(self, image: Tensor, probabilities: Tensor) -> Tensor:
        """The mean field after T iterations.

        Args:
            image: (C, H, W) float, 0 to 255.
            probabilities: (K, H, W) float, which sum to 1.

        Returns:
            (K, H, W) float32, which sum to 1.

        Raises:
            ValueError: where the two differ in height or width.
        """
        if image.shape[1:] != probabilities.shape[1:]:
            raise ValueError(f"image {tuple(image.shape)} and probabilities {tuple(probabilities.shape)} differ")
        unary = probabilities.float().clamp(min=LEAST_PROBABILITY).log()
        near = _normalised(self._appearance(image), image)
        smooth = _normalised(self._smoothness(image), image)
        q = unary.softmax(0)
        for _ in range(self.iterations):
            q = (unary + self.appearance_weight * near(q) + self.smoothness_weight * smooth(q)).softmax(0)
        return q

    def _appearance(self, image: Tensor) -> Filter:
        """The kernel's weights are kept for the next iteration, as many as :data:`KEPT_BYTES` hold."""
        scaled = image.float() / (math.sqrt(2) * self.sigma_beta)
        room = KEPT_BYTES // (4 * image[0].numel())
        kept: list[Tensor] = []

        def weight(index: int, here: Part, there: Part, distance: float) -> Tensor:
            if index < len(kept):
                return kept[index]
            found = (scaled[here] - scaled[there]).square_().sum(0).add_(distance).neg_().exp_()
            if index < room:
                kept.append(found)
            return found

        def apply(values: Tensor) -> Tensor:
            heard = values.clone()
            for index, (down, right, distance) in enumerate(self.offsets()):
                here, there = _apart(image.shape[-2:], down, right)
                near = weight(index, here, there, distance)
                heard[here].addcmul_(values[there], near)
                heard[there].addcmul_(values[here], near)
            return heard

        return apply

    def _smoothness(self, image: Tensor) -> Filter:
        reach = math.ceil(self.truncate * self.sigma_gamma)
        steps = torch.arange(-reach, reach + 1, dtype=torch.float32, device=image.device)
        weights = torch.exp(-(steps**2) / (2 * self.sigma_gamma**2))

        def apply(values: Tensor) -> Tensor:
            down, right = weights.view(1, 1, -1, 1), weights.view(1, 1, 1, -1)
            heard = torch.nn.functional.conv2d(values[:, None], down, padding=(reach, 0))
            return torch.nn.functional.conv2d(heard, right, padding=(0, reach))[:, 0]

        return apply


Filter = Callable[[Tensor], Tensor]
"""(K, H, W) → (K, H, W): what each pixel hears."""

Part = tuple[slice, ...]


def _normalised(kernel: Filter, image: Tensor) -> Filter:
    """The kernel between the inverse square roots of its sums: N^-½ k N^-½."""
    scale = kernel(torch.ones((1, *image.shape[1:]), device=image.device)).rsqrt()
    return lambda values: kernel(values * scale) * scale


def _apart(shape: torch.Size, down: int, right: int) -> tuple[Part, Part]:
    """The two parts of an image whose pixels lie so far apart; ``down`` is not negative."""
    height, width = shape
    down, left, far = min(down, height), max(0, -right), max(0, right)
    here = (slice(None), slice(0, height - down), slice(min(left, width), max(width - far, 0)))
    there = (slice(None), slice(down, height), slice(min(far, width), max(width - left, 0)))
    return here, there
