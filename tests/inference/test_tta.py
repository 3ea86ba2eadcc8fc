import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg import MedsegError, Tiling, build_network, open_scan
from medseg.inference.segment import prepare
from medseg.inference.tta import Flips, plane_of
from medseg.networks.network import Network
from medseg.scans.mirror import read_mirrored


def network(dims=2, padding="valid", depth=1):
    torch.manual_seed(0)
    spec = {"name": "unet", "dims": dims, "depth": depth, "width": 2, "padding": padding, "norm": "batch"}
    net = prepare(build_network({**spec, "in_channels": 1, "out_channels": 2}), torch.device("cpu"))
    return net.double()


def turned_views(x, quarters, along):
    """By hand: each view of x with the way back, as NumPy turns and flips."""
    for quarter in quarters:
        for flips in np.ndindex(*(2,) * len(along)):
            axes = tuple(2 + a for a, flip in zip(along, flips, strict=True) if flip)
            yield torch.rot90(x, quarter, (2, 3)).flip(axes), lambda y, q=quarter, a=axes: y.flip(a).rot90(-q, (2, 3))


@settings(max_examples=12)
@given(
    dims=st.sampled_from([2, 3]),
    padding=st.sampled_from(["valid", "same"]),
    turns=st.sampled_from(["flips", "rotations"]),
    some=st.sets(st.integers(0, 1), min_size=1) | st.none(),
    part=st.sampled_from(["forward", "core"]),
    seed=st.integers(0, 99),
)
def test_it_is_the_mean_over_all_views(dims, padding, turns, some, part, seed):
    net = network(dims, padding)
    wrapped = Flips(net, turns, axes=None if some is None else sorted(some))
    along = sorted(some) if some and turns == "flips" else range(dims)
    window = list(net.footprint.input_shape((4,) * dims))
    window[0] += 2 * net.footprint.step[0]
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((2, 1, *window)))
    look = {"forward": lambda n: n, "core": lambda n: n.core}[part]
    with torch.inference_mode():
        # Four quarter turns and all flips count every view of the plane twice.
        views = list(turned_views(x, range(4) if turns == "rotations" else [0], along))
        wanted = sum(back(look(net)(view)) for view, back in views) / len(views)
        assert torch.allclose(look(wrapped)(x), wanted, rtol=0, atol=1e-12)
    assert wrapped.looks == len({tuple(view.reshape(-1).tolist()) for view, _ in views})
    assert wrapped.footprint == net.footprint


@settings(max_examples=10)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    core=st.integers(1, 30),
    padding=st.sampled_from(["valid", "same"]),
    turns=st.sampled_from(["flips", "rotations"]),
)
def test_tiles_are_the_whole(shape, core, padding, turns):
    net = Flips(network(padding=padding, depth=2), turns)
    scan = open_scan(np.random.default_rng(0).standard_normal((1, *shape)))

    def of(tile):
        logits = net.core(torch.from_numpy(read_mirrored(scan, tile.read))[None])[0]
        return logits[(slice(None), *tile.keep.slices)]

    with torch.inference_mode():
        whole = of(Tiling.whole(shape, net.footprint)[0])
        for tile in Tiling(shape, (core, core), net.footprint):
            difference = of(tile) - whole[(slice(None), *tile.write.slices)]
            assert difference.abs().max() < 1e-10 * max(1, whole.abs().max())


class Slanted(Network):
    """Valid convolutions whose kernels differ from axis to axis, and take an odd number of voxels off."""

    def __init__(self, kernel):
        super().__init__(2, 1, 1)
        self.convolution = torch.nn.Conv2d(1, 1, kernel)

    def trace(self, field, axis):
        return field.convolve(self.convolution.kernel_size[axis])

    def forward(self, x):
        return self.convolution(x)


def test_what_cannot_be_turned_is_refused():
    with pytest.raises(MedsegError, match="halo 1 and step 1 along one, halo 2 and step 1 along the other"):
        Flips(Slanted((3, 5)), "rotations")
    Flips(Slanted((3, 5)), "flips")
    with pytest.raises(MedsegError, match="did you mean 'rotations'"):
        Flips(Slanted((3, 3)), "rotation")
    with pytest.raises(MedsegError, match="on one side"):
        Flips(Slanted((2, 2)))(torch.zeros(1, 1, 8, 8))
    with pytest.raises(MedsegError, match="no plane"):
        plane_of("ZY")


def test_the_plane_is_that_of_x_and_y():
    assert plane_of("XYZ") == (0, 1)
    assert plane_of("ZYX") == (2, 1)
