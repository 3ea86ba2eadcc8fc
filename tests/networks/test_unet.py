import math

import laws
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medseg import MedsegError, build_network
from medseg.networks.unet import UNet, UNet3D


def small(dims=2, depth=2, padding="valid", up="transposed", norm="batch", name="unet", width=2, seed=0):
    torch.manual_seed(seed)
    spec = {"name": name, "dims": dims, "depth": depth, "width": width, "padding": padding, "up": up, "norm": norm}
    network = build_network({**spec, "in_channels": 1, "out_channels": 2, "dropout": 0.0})
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(layer.running_mean, -0.1, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return network.double().eval()


def probed_reach(network):
    """The largest distance at which a poisoned voxel arrives, over every phase of the step along the first axis."""
    footprint = network.footprint
    step, around = footprint.step[0], network.fields[0].reach
    core = [2 * around + 4 * step, *[1] * (network.dims - 1)]
    window = footprint.input_shape(core)
    before = network.fields[0].before
    # A padded network gives every voxel of its window; what its ends' zeros do does not poison anything.
    middle = window[0] // 2
    farthest = 0
    for phase in range(step):
        x = torch.zeros(1, 1, *window, dtype=torch.float64)
        x[0, 0, middle + phase] = math.nan
        with torch.inference_mode():
            out = network(x)[0, 0]
        hit = out.isnan().flatten(1).any(1).nonzero().flatten()
        assert int(hit[0]) > 0 and int(hit[-1]) < out.shape[0] - 1, "the window cut the poison off"
        farthest = max(farthest, *(abs(int(j) + before - middle - phase) for j in (hit[0], hit[-1])))
    return farthest


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_probing_finds_the_composed_footprint(depth, padding):
    network = small(depth=depth, padding=padding, width=2)
    step = 2**depth
    reach = probed_reach(network)
    assert reach == network.fields[0].reach == 7 * step - 5
    halo = reach - (step - 1) if padding == "valid" else reach
    assert network.footprint.halo == (halo, halo)
    if padding == "valid":
        assert halo == 6 * step - 4


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("name", "dims"), [("unet", 2), ("unet3d", 3)])
def test_probing_interpolated_and_three_dimensional(padding, name, dims):
    network = small(dims=dims, depth=1, padding=padding, up="interpolated", name=name)
    assert probed_reach(network) == network.fields[0].reach


@pytest.mark.parametrize("up", ["transposed", "interpolated"])
@pytest.mark.parametrize("dims", [2, 3])
def test_shapes_on_the_meta_device_are_the_footprint_s(dims, up):
    for depth in (1, 2, 3, 4):
        with torch.device("meta"):
            network = UNet(dims=dims, depth=depth, width=2, up=up)
            window = network.footprint.input_shape((1,) * dims)
            for more in (0, 1):
                n = [w + more * s for w, s in zip(window, network.footprint.step, strict=True)]
                out = network(torch.empty(1, 1, *n))
                assert tuple(out.shape[2:]) == network.footprint.core_shape(n)


# Random extents: shorter than the halo, of length 1, not multiples of anything.
@settings(max_examples=12)
@given(
    extent=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    core=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    depth=st.integers(1, 3),
    padding=st.sampled_from(["valid", "same"]),
    up=st.sampled_from(["transposed", "interpolated"]),
    batch=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_tiled_is_whole_in_2d(extent, core, depth, padding, up, batch, seed):
    network = small(depth=depth, padding=padding, up=up, seed=seed)
    tiled, whole = laws.tiled_and_whole(network, extent, core, batch)
    assert np.abs(tiled - whole).max() <= 1e-10 * np.abs(whole).max()
    tiled, whole = laws.tiled_and_whole(network.float(), extent, core, batch)
    assert np.abs(tiled - whole).max() <= 1e-5 * np.abs(whole).max()


@settings(max_examples=4)
@given(
    extent=st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20)),
    core=st.tuples(st.integers(6, 12), st.integers(6, 12), st.integers(6, 12)),
    name=st.sampled_from(["unet", "unet3d"]),
    padding=st.sampled_from(["valid", "same"]),
)
def test_tiled_is_whole_in_3d(extent, core, name, padding):
    network = small(dims=3, depth=1, padding=padding, name=name)
    tiled, whole = laws.tiled_and_whole(network, extent, core, 2)
    assert np.abs(tiled - whole).max() <= 1e-10 * np.abs(whole).max()


@pytest.mark.parametrize("offset", [1, 8])
def test_origins_off_the_step_are_not_exact(offset):
    """Why cores are multiples of the step: one voxel off, pooling sees other neighbours."""
    network = small(depth=4)
    x = torch.randn(1, 1, 204 + 16, 188, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = network(x)
        moved = network(x[:, :, offset : offset + 204])
        aligned = network(x[:, :, 16 : 16 + 204])
    assert (aligned - whole[:, :, 16 : 16 + 20]).abs().max() < 1e-10
    assert (moved - whole[:, :, offset : offset + 20]).abs().max() > 1e-6


def test_at_the_valid_halo_a_padded_network_is_not_exact():
    network = small(depth=4, padding="same")
    x = torch.randn(1, 1, 224, 224, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    around = torch.nn.functional.pad(x, (160,) * 4, mode="constant", value=1.0)
    with torch.inference_mode():
        wrong = (network(x) - network(around)[:, :, 160:384, 160:384]).abs()[0, 0]
    assert wrong[107:-107, 107:-107].max() < 1e-10
    assert wrong[92:-92, 92:-92].max() > 1e-12


def test_the_2015_network_by_its_own_numbers():
    with torch.device("meta"):
        network = UNet(in_channels=1, out_channels=2)
        assert network(torch.empty(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(layers) == 23
    assert sum(p.numel() for p in network.parameters()) == 31_030_658


def test_the_2016_network_by_its_own_numbers():
    with torch.device("meta"):
        network = UNet3D()
        assert network.eval()(torch.empty(1, 3, 132, 132, 116)).shape == (1, 3, 44, 44, 28)
    counted = [m for m in network.modules() if isinstance(m, nn.Conv3d | nn.ConvTranspose3d)]
    assert sum(p.numel() for m in counted for p in m.parameters()) == 19_069_955
    assert all(m.bias is None for m in counted if isinstance(m, nn.ConvTranspose3d))


def test_he_initialisation():
    torch.manual_seed(0)
    network = UNet(width=32)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 5000:
            expected = math.sqrt(2 / layer.weight[0].numel())
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.1)
            assert not layer.bias.any()


def test_dropout_stands_at_the_end_of_the_contracting_path():
    network = UNet(depth=4, width=2, dropout=0.5)
    where = [level for level, block in enumerate(network.contracting) if any(isinstance(m, nn.Dropout) for m in block)]
    assert where == [3, 4]
    assert not any(isinstance(m, nn.Dropout) for m in network.expanding.modules())


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_norms_over_the_window_are_told(norm):
    assert not UNet(width=2, norm=norm).footprint.exact
    assert UNet(width=2, norm="batch").footprint.exact


def test_a_window_that_does_not_divide_is_refused():
    with pytest.raises(MedsegError, match=r"tile 570 .* try 556 or 572"):
        UNet(width=2)(torch.zeros(1, 1, 570, 572))
    with pytest.raises(MedsegError, match=r"tile 60 .* try 48 or 64"):
        UNet(width=2, padding="same")(torch.zeros(1, 1, 64, 60))
    with pytest.raises(MedsegError, match="3 axes"):
        UNet(width=2)(torch.zeros(1, 1, 4, 4, 4))


def test_core_trims_a_padded_network():
    network = UNet(width=2, padding="same", out_channels=3)
    assert network.core(torch.zeros(2, 1, 224, 240)).shape == (2, 3, 10, 26)
