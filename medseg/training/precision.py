"""The precision that a training computes in, and convolutions whose gradients are right in it.

On a processor PyTorch leaves convolutions to oneDNN, whose gradients of the weights are wrong for maps no larger than
the kernel: in bf16 already for a padded 3x3x3 convolution of maps two voxels deep, in 32 bits for a padded, strided one
of 6x6x6 and more. They are other numbers, or what lay in memory before, or the process dies of them (PyTorch 2.13;
``tests/training/test_precision.py`` goes through the shapes). Maps of that size stand at the bottom of many a U-Net,
so that a network would train on, worse, with nobody the wiser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from medseg.training.settings import TrainingSettings

RIGHT_IN_32_BITS = 5
"""The largest kernel whose strided convolutions have right gradients in 32 bits, however small the maps."""


def precision_of(settings: TrainingSettings, device: torch.device) -> Any:
    """Lightning's name for the precision: mixed bf16 or fp16 where the device has it."""
    if settings.precision == "auto":
        if device.type != "cuda":
            return "32-true"
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[settings.precision]


class RightGradients(TorchFunctionMode):
    """Convolutions on a processor that oneDNN would give wrong gradients are computed in 32 bits, padded by hand.

    Their outputs are those of the plain convolution, in its precision. They are of small maps, which cost little.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        computed: Callable[..., Any] = COMPUTED.get(func, func)
        return computed(*args, **(kwargs or {}))


def _forward(
    plain: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    if isinstance(padding, str):
        return plain(input, weight, bias, stride, padding, dilation, groups)
    axes = _Axes(weight, stride, padding, dilation)
    if not axes.wrong(input, input.shape[-axes.dims :]):
        return plain(input, weight, bias, stride, padding, dilation, groups)
    around = [side for pad in reversed(axes.padding) for side in (pad, pad)]
    with torch.autocast("cpu", enabled=False):
        padded = functional.pad(input.float(), around)
        result = plain(padded, weight.float(), _float(bias), stride, 0, dilation, groups)
    return result.to(_precision(input))


def _transposed(
    plain: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    axes = _Axes(weight, stride, padding, dilation)
    sizes = axes.transposed(input.shape[-axes.dims :], output_padding)
    if not axes.wrong(input, sizes):
        return plain(input, weight, bias, stride, padding, output_padding, groups, dilation)
    with torch.autocast("cpu", enabled=False):
        result = plain(input.float(), weight.float(), _float(bias), stride, 0, output_padding, groups, dilation)
    for axis, (pad, size) in enumerate(zip(axes.padding, sizes, strict=True), start=2):
        result = result.narrow(axis, pad, size)
    return result.to(_precision(input))


COMPUTED: Mapping[Any, Callable[..., Tensor]] = {
    torch.conv2d: partial(_forward, torch.conv2d),
    torch.conv3d: partial(_forward, torch.conv3d),
    torch.conv_transpose2d: partial(_transposed, torch.conv_transpose2d),
    torch.conv_transpose3d: partial(_transposed, torch.conv_transpose3d),
}
"""How each convolution of PyTorch is computed here."""


class _Axes:
    """A convolution's kernel, stride, padding and dilation by axis."""

    def __init__(
        self,
        weight: Tensor,
        stride: int | Sequence[int],
        padding: int | Sequence[int],
        dilation: int | Sequence[int],
    ) -> None:
        self.kernel = weight.shape[2:]
        self.dims = len(self.kernel)
        self.stride, self.padding, self.dilation = map(self._each, (stride, padding, dilation))

    def _each(self, value: int | Sequence[int]) -> Sequence[int]:
        return (value,) * self.dims if isinstance(value, int) else tuple(value) * (self.dims // len(value))

    def transposed(self, sizes: Sequence[int], more: int | Sequence[int]) -> list[int]:
        """The transposed convolution's output sizes for input ``sizes``."""
        spans = [gap * (kernel - 1) + 1 for gap, kernel in zip(self.dilation, self.kernel, strict=True)]
        axes = zip(sizes, spans, self.stride, self.padding, self._each(more), strict=True)
        return [(size - 1) * step - 2 * pad + span + end for size, span, step, pad, end in axes]

    def wrong(self, input: Tensor, sizes: Sequence[int]) -> bool:
        """Whether oneDNN's gradient of the weights may be wrong for the larger map's ``sizes``."""
        rule = WRONG.get(_precision(input))
        if input.device.type != "cpu" or rule is None:
            return False
        axes = zip(sizes, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return any(gap == 1 and rule(size, kernel, step, pad) for size, kernel, step, pad, gap in axes)


def _wrong_in_16_bits(size: int, kernel: int, stride: int, padding: int) -> bool:
    return size <= max(kernel, stride) and (padding > 0 or stride > 1)


def _wrong_in_32_bits(size: int, kernel: int, stride: int, padding: int) -> bool:
    return size <= kernel + stride and padding > 0 and stride > 1 and kernel > RIGHT_IN_32_BITS


WRONG = {torch.bfloat16: _wrong_in_16_bits, torch.float16: _wrong_in_16_bits, torch.float32: _wrong_in_32_bits}


def _precision(input: Tensor) -> torch.dtype:
    """That of a convolution's output."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype


def _float(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.float()
