"""Laws of the precisions: where oneDNN's gradients are wrong, those of a training are right, to the precision's digits.

The shapes are those for which PyTorch 2.13's plain convolutions give others, garbage, or end the process; hence no test
runs them plainly.
"""

import copy

import pytest
import torch
from torch import nn

from medseg.training.precision import RightGradients

SHAPES = [
    # kernel, stride, padding, size of the map
    ((3, 3, 3), 1, (1, 1, 1), (2, 6, 6)),
    ((3, 3, 3), 1, (1, 1, 1), (2, 2, 2)),
    ((3, 1, 3), 1, (1, 0, 1), (2, 4, 4)),
    ((5, 5, 5), 1, (2, 2, 2), (3, 1, 1)),
    ((5, 5, 5), 1, (2, 2, 2), (8, 1, 3)),
    ((7, 7, 7), 1, (3, 3, 3), (4, 6, 6)),
    ((2, 2, 2), 4, (0, 0, 0), (2, 2, 2)),
    ((5, 5, 5), 2, (2, 2, 2), (4, 4, 4)),
    ((7, 7, 7), 2, (3, 3, 3), (5, 5, 5)),
    ((8, 8, 8), 3, (4, 4, 4), (6, 12, 12)),
    ((3, 3), 2, (1, 1), (1, 1)),
    ((7, 7), 4, (3, 3), (3, 3)),
    ((3, 3), 1, (1, 1), (9, 9)),
    ((3, 3, 3), 1, (0, 0, 0), (5, 4, 3)),
]
TRANSPOSED = [
    ((2, 2, 2), 2, 0, (1, 2, 3)),
    ((3, 3, 3), 2, 1, (1, 1, 1)),
    ((4, 4, 4), 2, 1, (2, 1, 3)),
    ((5, 5, 5), 1, 2, (4, 4, 4)),
    ((5, 5), 4, 2, (1, 1)),
    ((8, 8, 8), 2, 3, (4, 5, 6)),
]


def transposed(kernel, stride, padding):
    kind = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[len(kernel)]
    return kind(16, 16, kernel, stride, padding, output_padding=min(stride - 1, 1))


def layer(kernel, stride, padding, dilation=1, groups=1, bias=True):
    kind = {2: nn.Conv2d, 3: nn.Conv3d}[len(kernel)]
    return kind(16, 16, kernel, stride, padding, dilation, groups, bias)


def gradients(conv, x, low):
    """Output, and gradients of input, weights and bias for one fixed gradient of the output."""
    x = x.clone().requires_grad_()
    conv.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=low), RightGradients():
        y = conv(x)
    y.backward(torch.linspace(-1, 1, y.numel()).view(y.shape).bfloat16().to(y.dtype))
    return [t.detach().double() for t in (y, x.grad, *(p.grad for p in conv.parameters()))]


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), SHAPES)
def test_gradients_of_small_maps_are_those_of_64_bits(kernel, stride, padding, size, channels_last, low):
    assert_right(layer(kernel, stride, padding), size, channels_last, low)


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), TRANSPOSED)
def test_gradients_of_transposed_convolutions_are_those_of_64_bits(kernel, stride, padding, size, low):
    assert_right(transposed(kernel, stride, padding), size, False, low)


def assert_right(conv, size, channels_last, low):
    """Output and gradients are those of 64 bits, where input, weights and the output's gradient are exact in bf16."""
    x = torch.randn(2, 16, *size, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    conv.load_state_dict({key: value.bfloat16() for key, value in conv.state_dict().items()})
    layout = {2: torch.channels_last, 3: torch.channels_last_3d}[len(size)]
    inputs = x.to(memory_format=layout) if channels_last else x
    found = gradients(conv, inputs, low)
    twin = copy.deepcopy(conv).double()
    true = gradients(twin, x.double(), False)
    for one, other in zip(found, true, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=(0.02 if low else 1e-5) * float(other.abs().max()))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("size", "dilation"), [((2, 2, 2), 1), ((2, 3, 4), 2), ((40, 5, 6), 1), ((9, 9), 3)])
def test_outputs_are_the_plain_layers(size, dilation, groups, bias):
    conv = layer((3,) * len(size), 1, (dilation,) * len(size), dilation, groups, bias)
    x = torch.randn(2, 16, *size)
    for low in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            plain = conv(x)
            with RightGradients():
                found = conv(x)
        assert found.dtype == plain.dtype
        torch.testing.assert_close(found, plain, atol=0.01 if low else 1e-5, rtol=0.02 if low else 1e-5)


def test_padding_by_name_and_by_arguments():
    x, conv = torch.randn(1, 16, 2, 2), layer((3, 3), 1, "same")
    with RightGradients():
        assert torch.equal(conv(x), torch.conv2d(x, conv.weight, conv.bias, padding="same"))
        assert torch.equal(conv(x), torch.conv2d(input=x, weight=conv.weight, bias=conv.bias, padding=(1, 1)))
