"""How much more a network must see than it can answer for, composed from its layers.

One axis is followed from the input through the layers (:class:`Field`), each of which moves it by its own
kernel, stride and padding; the axes' results are published together as a :class:`Footprint`.

    a valid network (U-Net, depth 4: n = 572)             a padded one (the same U-Net: n = 608)

    window  |<------------- n ------------->|             |<------------- n ------------->|
    output        |<--- n - 184 --->|                     |<------------- n ------------->|
    core          |<--- n - 184 --->|                          |<--- n - 214 --->|
            |halo |                 |halo |               |halo|                 |halo|
              92                      92                   107                    107

Legend: n window, S voxels of the input for one voxel here, t trim, j a voxel of the node, all along one axis.
A node of the network has (n - t) / S voxels, and its voxel j depends on the input's voxels
S*j + first ... S*j + last, taken over every phase that up-convolutions give to j.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from medseg.errors import TileError


@dataclass(frozen=True)
class Field:
    """One axis at one node of a network, seen from the network's input.

    Attributes:
        stride: voxels of the input for one voxel here (S).
        trim: a node's size is ``(n - trim) / stride`` for an admissible window n.
        first: voxel j depends on no input voxel before ``stride * j + first`` ...
        last: ... and on none after ``stride * j + last``.
        step: admissible windows are ``n ≡ offset (mod step)``.
        offset: see ``step``.
        padded: whether values from outside the window (zeros, clamped edges) have entered.
        exact: whether a voxel depends on nothing but the input voxels named here.
        rounds: whether a stride takes any size and rounds, as in networks that take windows of any size. Step and
            offset then come from the layers that make a node finer again: the windows at which tiling is exact.
    """

    stride: int = 1
    trim: int = 0
    first: int = 0
    last: int = 0
    step: int = 1
    offset: int = 0
    padded: bool = False
    exact: bool = True
    rounds: bool = False

    def convolve(self, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Field:
        """Through a convolution or a pooling of this kernel (in voxels of this node)."""
        reach = dilation * (kernel - 1)
        here = replace(
            self,
            stride=self.stride * stride,
            trim=self.trim - self.stride * (2 * padding - reach - 1 + stride),
            first=self.first - self.stride * padding,
            last=self.last + self.stride * (reach - padding),
            padded=self.padded or padding > 0,
        )
        return here._divided() if stride > 1 and not self.rounds else here

    def up_convolve(self, kernel: int, stride: int, padding: int = 0) -> Field:
        """Through a transposed convolution: voxel j takes the inputs ⌈(j+p-k+1)/s⌉ ... ⌊(j+p)/s⌋.

        Raises:
            ValueError: where a voxel would become finer than the input's.
        """
        fine, here = self._finer(stride), self._divided()
        low = min(stride * -(-(j + padding - kernel + 1) // stride) - j for j in range(stride))
        high = max(stride * ((j + padding) // stride) - j for j in range(stride))
        # A kernel that just fills its stride makes every output from real inputs; a longer one, unless
        # its ends are cut off by the padding, sums fewer of them at the border than inside.
        whole = kernel <= stride or padding >= kernel - stride
        return replace(
            here,
            stride=fine,
            trim=self.trim - fine * (kernel - stride - 2 * padding),
            first=self.first + fine * low,
            last=self.last + fine * high,
            padded=self.padded or not whole,
        )

    def interpolate(self, factor: int, crop: int = 0) -> Field:
        """Through linear interpolation by ``factor`` (pixel centres, not corners), then ``crop`` voxels off each side.

        Without the crop the outermost voxels lean on a clamped neighbour, which counts as padding; cropping
        ``factor // 2`` of them leaves only those between two real neighbours.
        """
        fine = self._finer(factor)

        def lower(q: int) -> int:  # the lower neighbour of fine voxel q: floor((q + 1/2) / factor - 1/2)
            return (2 * q + 1 - factor) // (2 * factor)

        phases = range(crop, crop + factor)
        return replace(
            self._divided(),
            stride=fine,
            trim=self.trim + 2 * crop * fine,
            first=self.first + fine * min(factor * lower(q) - (q - crop) for q in phases),
            last=self.last + fine * max(factor * (lower(q) + 1) - (q - crop) for q in phases),
            padded=self.padded or crop < factor // 2,
        )

    def unpool(self, before: Field) -> Field:
        """Through unpooling by the indices of the pooling that ``before`` went into.

        A voxel is one of this node's or zero, by where the maximum of its pooling window was: which voxel that is,
        all voxels of the pooling window decide, on both sides of it.

        Raises:
            ValueError: where the two do not end in the same voxels.
        """
        factor = self.stride // before.stride
        up = self.up_convolve(factor, factor)
        if (up.stride, up.trim) != (before.stride, before.trim):
            raise ValueError(f"cannot unpool {self} into {before}")
        window = before.stride * (factor - 1)
        return replace(
            up,
            first=min(up.first, before.first - window),
            last=max(up.last, before.last + window),
            padded=up.padded or before.padded,
            exact=up.exact and before.exact,
        )

    def resize(self, to: Field, align_corners: bool) -> Field:
        """Through linear interpolation to the size of another node of the network, such as its input.

        Voxels keep their distance where both nodes' ends meet: their outer edges for n ≡ 0 (mod S), their outer
        voxels' centres (``align_corners``) for n ≡ 1. Other windows are stretched, and tiles of them would not agree.

        Raises:
            ValueError: where the other node's voxels are the larger ones.
        """
        if self.stride % to.stride:
            raise ValueError(f"cannot resize {self} to {to}: it is finer, or no multiple")
        factor = self.stride // to.stride
        offset = 1 if align_corners else 0
        n = offset + self.stride * (abs(self.trim) + abs(to.trim) + 1)
        here, there = (n - self.trim) // self.stride, (n - to.trim) // to.stride
        fits = factor * (here - offset) == there - offset
        step, offset = _both(*_both(self.step, self.offset, to.step, to.offset), self.stride, offset)
        # Voxel q lies between the voxels below and above position (q / factor), or (q + 1/2) / factor - 1/2.
        double = [2 * q if align_corners else 2 * q + 1 - factor for q in range(factor)]
        below = [position // (2 * factor) for position in double]
        above = [-(-position // (2 * factor)) for position in double]
        return replace(
            self,
            stride=to.stride,
            trim=to.trim,
            first=self.first + to.stride * min(factor * j - q for q, j in enumerate(below)),
            last=self.last + to.stride * max(factor * j - q for q, j in enumerate(above)),
            step=step,
            offset=offset,
            padded=self.padded or (factor > 1 and not align_corners),
            exact=self.exact and fits,
        )

    def shift(self, to: Field) -> int:
        """The voxel of this node that lies where the other node's voxel 0 does, by the middles of what they see.

        Raises:
            ValueError: where the two nodes' voxels do not lie upon each other.
        """
        twice = to.first + to.last - self.first - self.last
        if self.stride != to.stride or twice % (2 * self.stride):
            raise ValueError(f"the voxels of {self} and {to} do not lie upon each other")
        return twice // (2 * self.stride)

    def overlay(self, skip: Field) -> Field:
        """This field added to another one, voxel upon voxel (:meth:`shift`), where both have one."""
        shift = self.shift(skip)
        here, there = self._from(max(shift, 0)), skip._from(max(-shift, 0))
        step, offset = _both(here.step, here.offset, there.step, there.offset)
        return replace(
            here,
            trim=max(here.trim, there.trim),
            first=min(here.first, there.first),
            last=max(here.last, there.last),
            step=step,
            offset=offset,
            padded=here.padded or there.padded,
            exact=here.exact and there.exact,
        )

    def crop(self, to: Field) -> Field:
        """This field cropped to the voxels that lie upon those of another node (:meth:`shift`), such as the input.

        Raises:
            ValueError: where it does not reach as far.
        """
        shift = self.shift(to)
        here = self._from(shift)
        if shift < 0 or here.trim > to.trim:
            raise ValueError(f"cannot crop {self} to {to}: it is smaller")
        return replace(here, trim=to.trim)

    def crop_and_concatenate(self, skip: Field) -> Field:
        """This (decoder) field joined with a skip that is cropped around its centre to the same size.

        Raises:
            ValueError: where the two differ in stride, or the skip is the smaller one.
        """
        if skip.stride != self.stride or skip.trim > self.trim:
            raise ValueError(f"cannot crop {skip} to {self}")
        crop = (self.trim - skip.trim) // (2 * self.stride)
        step, offset = _both(self.step, self.offset, skip.step, skip.offset)
        return replace(
            self,
            first=min(self.first, skip.first + self.stride * crop),
            last=max(self.last, skip.last + self.stride * crop),
            step=step,
            offset=offset,
            padded=self.padded or skip.padded,
            exact=self.exact and skip.exact,
        )

    def over_window(self) -> Field:
        """Through a layer that looks at the whole window: global pooling, instance norm, attention."""
        return replace(self, exact=False)

    @property
    def before(self) -> int:
        """Where output voxel 0 lies in the window: the voxels that the network itself takes off at the start."""
        return self.trim // 2

    @property
    def reach(self) -> int:
        """The largest distance between an output voxel and an input voxel that it depends on."""
        return max(self.before - self.first, self.last - self.before, 0)

    @property
    def halo(self) -> int:
        """What must be read on each side of the core: all that padding could touch, or just what is taken off."""
        return self.reach if self.padded else self.trim - self.before

    def _from(self, voxel: int) -> Field:
        by = self.stride * voxel
        return replace(self, trim=self.trim + by, first=self.first + by, last=self.last + by)

    def _divided(self) -> Field:
        step, offset = _both(self.step, self.offset, self.stride, self.trim % self.stride)
        return replace(self, step=step, offset=offset)

    def _finer(self, factor: int) -> int:
        if self.stride % factor:
            raise ValueError(f"up-sampling by {factor} at stride {self.stride} is finer than the input")
        return self.stride // factor


def _both(step_a: int, offset_a: int, step_b: int, offset_b: int) -> tuple[int, int]:
    """The windows that satisfy both congruences (Chinese remainders)."""
    step = math.lcm(step_a, step_b)
    for n in range(offset_a, step + offset_a, step_a):
        if n % step_b == offset_b % step_b:
            return step, n % step
    raise ValueError(f"no window is both ≡ {offset_a} (mod {step_a}) and ≡ {offset_b} (mod {step_b})")


@dataclass(frozen=True)
class Footprint:
    """What a network needs around its core, per axis.

    Attributes:
        halo: voxels read on each side of the core (the larger side's, where the two differ).
        step: admissible windows are ``n ≡ offset (mod step)``; tile origins are multiples of it.
        offset: see ``step``.
        exact: whether a voxel of the core is the same wherever the window lies.
    """

    halo: tuple[int, ...]
    step: tuple[int, ...]
    offset: tuple[int, ...]
    exact: bool = True

    def __post_init__(self) -> None:
        for name in ("halo", "step", "offset"):
            object.__setattr__(self, name, tuple(map(int, getattr(self, name))))
        if not len(self.halo) == len(self.step) == len(self.offset):
            raise ValueError(f"halo, step and offset have different axes: {self}")

    @classmethod
    def of(cls, fields: Sequence[Field]) -> Footprint:
        """The footprint of a network whose output, axis by axis, is ``fields``."""
        for field in fields:
            if field.stride != 1:
                raise ValueError(f"the output has one voxel for {field.stride} of the input")
        return cls(
            tuple(f.halo for f in fields),
            tuple(f.step for f in fields),
            tuple(f.offset for f in fields),
            all(f.exact for f in fields),
        )

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.halo)

    def input_shape(self, core: Sequence[int]) -> tuple[int, ...]:
        """The least admissible window whose core is at least ``core`` voxels.

        >>> Footprint((92, 92), (16, 16), (12, 12)).input_shape((388, 384))
        (572, 572)
        """
        self._check_axes(core)
        return tuple(
            least_congruent(max(c, 1) + 2 * h, s, o)
            for c, h, s, o in zip(core, self.halo, self.step, self.offset, strict=True)
        )

    def core_shape(self, window: Sequence[int]) -> tuple[int, ...]:
        """The core of an admissible window: ``n - 2 * halo``.

        Raises:
            TileError: where the network cannot take the window; it names the nearest two that it can.
        """
        self._check_axes(window)
        for axis, n in enumerate(window):
            least = self.input_shape((1,) * self.ndim)[axis]
            step, offset = self.step[axis], self.offset[axis]
            if n < least or n % step != offset:
                raise TileError(inadmissible(n, least, step, offset))
        return tuple(n - 2 * h for n, h in zip(window, self.halo, strict=True))

    def _check_axes(self, shape: Sequence[int]) -> None:
        if len(shape) != self.ndim:
            raise TileError(
                f"{tuple(shape)} has {len(shape)} axes and the network has {self.ndim}: give one size an axis"
            )


def least_congruent(minimum: int, step: int, offset: int) -> int:
    """The least n >= minimum with n ≡ offset (mod step)."""
    return minimum + (offset - minimum) % step


def inadmissible(n: int, least: int, step: int, offset: int) -> str:
    """What is wrong with a window of n voxels, and the nearest two that would do."""
    above = max(least_congruent(n, step, offset), least)
    below = above - step
    nearest_two = f"try {below} or {above}" if below >= least else f"try {above} or {above + step}"
    return f"tile {n} is not admissible: n ≡ {offset} (mod {step}), {least} or more; {nearest_two}"
