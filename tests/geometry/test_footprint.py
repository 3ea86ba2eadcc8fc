"""Each layer's field against the layer itself: where one voxel of the input arrives."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from medseg.geometry import Field, Footprint
from medseg.networks.network import follow


def arrivals(layer: nn.Module, n: int) -> torch.Tensor:
    """(outputs, inputs): whether output voxel j moves when input voxel i does."""
    with torch.no_grad():
        still = layer(torch.zeros(1, 1, n, 1))[0, 0, :, 0]
        rows = []
        for i in range(n):
            x = torch.zeros(1, 1, n, 1)
            x[0, 0, i] = 1.0
            rows.append((layer(x)[0, 0, :, 0] - still).abs() > 1e-12)
    return torch.stack(rows, 1)


def positive(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.constant_(parameter, 0.5)
    return layer


def check(layer: nn.Module, field: Field, n: int) -> None:
    """The size is as the field says, and inner voxels depend on just what it names, over every phase."""
    reached = arrivals(layer, n)
    outputs = reached.shape[0]
    assert outputs * field.stride == n - field.trim
    # Far from the ends no voxel of the span is cut off.
    first, last = [], []
    for j in range(outputs):
        inputs = reached[j].nonzero().flatten().tolist()
        if inputs and inputs[0] > 0 and inputs[-1] < n - 1:
            first.append(inputs[0] - field.stride * j)
            last.append(inputs[-1] - field.stride * j)
    assert (min(first), max(last)) == (field.first, field.last)


@given(kernel=st.integers(1, 5), padding=st.integers(0, 2), dilation=st.integers(1, 3))
def test_a_convolution(kernel, padding, dilation):
    layer = positive(nn.Conv2d(1, 1, (kernel, 1), padding=(padding, 0), dilation=(dilation, 1)))
    check(layer, follow(layer, Field(), 0), 40)


@given(factor=st.integers(2, 4))
def test_a_strided_convolution_divides_its_window(factor):
    layer = positive(nn.Conv2d(1, 1, (factor, 1), stride=(factor, 1)))
    field = follow(layer, Field(), 0)
    assert (field.step, field.offset) == (factor, 0)
    check(layer, field, 12 * factor)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (4, 2, 1), (3, 3, 0), (3, 2, 1), (4, 4, 0)])
def test_an_up_convolution_brings_back_what_a_pooling_took(kernel, stride, padding):
    down = positive(nn.Conv2d(1, 1, (stride, 1), stride=(stride, 1)))
    up = positive(nn.ConvTranspose2d(1, 1, (kernel, 1), stride=(stride, 1), padding=(padding, 0)))
    both = nn.Sequential(down, up)
    check(both, follow(both, Field(), 0), 24 * stride)


def test_the_ends_of_a_long_up_convolution_count_as_padding():
    assert Field(stride=2).up_convolve(4, 2, 0).padded
    assert not Field(stride=2).up_convolve(4, 2, 2).padded
    assert not Field(stride=2).up_convolve(2, 2, 0).padded


@pytest.mark.parametrize(("factor", "crop"), [(2, 0), (2, 1), (4, 0), (4, 2)])
def test_interpolation(factor, crop):
    class Interpolation(nn.Module):
        def forward(self, x):
            x = nn.functional.interpolate(x, scale_factor=(factor, 1), mode="bilinear", align_corners=False)
            return x[:, :, crop : x.shape[2] - crop]

    down = positive(nn.Conv2d(1, 1, (factor, 1), stride=(factor, 1)))
    field = follow(down, Field(), 0).interpolate(factor, crop)
    assert field.padded == (crop < factor // 2)
    check(nn.Sequential(down, Interpolation()), field, 24 * factor)


def test_the_paper_s_window_by_hand():
    """572 → 388 with halo 92 and windows ≡ 12 (mod 16): figure 1 of Ronneberger et al."""
    field, skips = Field(), []
    for _ in range(4):
        field = field.convolve(3).convolve(3)
        skips.append(field)
        field = field.convolve(2, stride=2)
    field = field.convolve(3).convolve(3)
    for skip in reversed(skips):
        field = field.up_convolve(2, 2).crop_and_concatenate(skip).convolve(3).convolve(3)
    assert (field.trim, field.halo, field.step, field.offset, field.reach) == (184, 92, 16, 12, 107)
    assert Footprint.of([field]) == Footprint((92,), (16,), (12,))


def test_a_skip_must_be_as_coarse_and_no_smaller():
    with pytest.raises(ValueError, match="cannot crop"):
        Field(stride=2).crop_and_concatenate(Field())
    with pytest.raises(ValueError, match="cannot crop"):
        Field().crop_and_concatenate(Field(trim=2))


def test_nothing_is_finer_than_the_input():
    with pytest.raises(ValueError, match="finer than the input"):
        Field().up_convolve(2, 2)


def test_contradicting_strides_have_no_window():
    even, odd = Field().convolve(2, 2), Field(trim=1).convolve(2, 2)
    with pytest.raises(ValueError, match="no window"):
        even.crop_and_concatenate(odd) if even.trim > odd.trim else odd.crop_and_concatenate(even)


def test_an_output_coarser_than_the_input_has_no_footprint():
    with pytest.raises(ValueError, match="one voxel for 2"):
        Footprint.of([Field().convolve(2, 2)])


def test_layers_over_the_window_are_not_exact():
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU())
    assert not follow(layers, Field(), 0).exact
    with pytest.raises(TypeError, match="no rule"):
        follow(nn.Softmax(1), Field(), 0)


def test_a_known_size_is_resized_to():
    """A stride rounds down, the window's own size comes back: exact for n ≡ 0, or n ≡ 1 where corners are aligned."""

    class Resizing(nn.Module):
        def __init__(self, align_corners):
            super().__init__()
            self.down = positive(nn.Conv2d(1, 1, (3, 1), stride=(4, 1), padding=(1, 0)))
            self.align_corners = align_corners

        def forward(self, x):
            size = x.shape[2:]
            return nn.functional.interpolate(self.down(x), size=size, mode="bilinear", align_corners=self.align_corners)

    for align_corners, offset in ((False, 0), (True, 1)):
        layer = Resizing(align_corners)
        field = follow(layer.down, Field(rounds=True), 0).resize(Field(), align_corners)
        assert (field.stride, field.trim, field.step, field.offset, field.exact) == (1, 0, 4, offset, True)
        check(layer, field, 40 + offset)


def test_rounding_ends_where_a_node_becomes_finer():
    """The windows at which tiling is exact are the same, whether others are taken or not."""
    for rounds in (False, True):
        field = Field(rounds=rounds).convolve(3).convolve(2, 2).convolve(2, 2).up_convolve(4, 4)
        assert (field.step, field.offset) == (4, 2)
        field = Field(rounds=rounds).convolve(2, 2).interpolate(2)
        assert (field.step, field.offset) == (2, 0)


@pytest.mark.parametrize(("kernel", "padding", "shift"), [(4, 0, -1), (4, 1, 0), (4, 2, 1), (3, 1, 0)])
def test_voxels_upon_each_other(kernel, padding, shift):
    """Caffe's coordinate map: a pooling's voxel 0 lies half a voxel in, an up-convolution's by kernel and padding."""
    before = Field().convolve(3, padding=1) if kernel == 4 else Field().convolve(3)
    down = before.convolve(2, 2) if kernel == 4 else before.convolve(1, 2)
    up = down.up_convolve(kernel, 2, padding)
    assert before.shift(up) == -up.shift(before) == shift


def test_an_overlay_is_cropped_on_both_sides():
    skip = Field().convolve(3, padding=1)
    up = skip.convolve(2, 2).up_convolve(4, 2)
    both = up.overlay(skip)
    assert both == skip.overlay(up)
    assert (both.trim, both.first, both.last) == (skip.trim, up.first + 1, up.last + 1)
    assert up.crop(Field()).trim == 0
    with pytest.raises(ValueError, match="it is smaller"):
        Field(trim=2, first=1, last=1).crop(Field())


def test_voxels_between_each_other_cannot_meet():
    with pytest.raises(ValueError, match="do not lie upon"):
        Field().shift(Field().convolve(2))
    with pytest.raises(ValueError, match="do not lie upon"):
        Field().overlay(Field().convolve(2, 2))
