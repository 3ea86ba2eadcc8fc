"""DeconvNet."""

import pytest
import torch
from laws import (
    assert_casts,
    assert_footprint,
    assert_overfits,
    assert_round_trip,
    assert_sizes,
    assert_tiled_is_whole,
    assert_trains,
    built,
    counted,
    noise,
)
from torch import nn

from medseg import MedsegError, build_network
from medseg.networks.deconvnet import DeconvNet

NARROW = {"name": "deconvnet", "width": 2, "in_channels": 2, "out_channels": 3}
SHALLOW = [
    {**NARROW, "depth": 2, "fc_size": 7},
    {**NARROW, "depth": 2, "fc_size": 3, "dims": 3},
    {**NARROW, "depth": 1, "fc_size": 2, "dims": 3},
]


def test_parameters_are_the_papers():
    assert counted({"name": "deconvnet"}) == 251_805_653  # 252 million
    assert counted({"name": "deconvnet", "depth": 5, "fc_size": 3, "dims": 3}) < 1.2 * 548e6


@pytest.mark.parametrize(("window", "fc7"), [(224, 1), (512, 10), (225, 2)])
def test_what_the_fully_connected_layers_give(window, fc7):
    with torch.device("meta"):
        network = DeconvNet().eval()
        x = torch.empty(1, 3, window, window)
        for stage in network.encoder:
            x, _ = network.pool(stage(x))
        assert network.bottom[:2](x).shape == (1, 4096, fc7, fc7)
        assert network(torch.empty(1, 3, window, window)).shape == (1, 21, window, window)


def test_the_decoder_mirrors_the_encoder():
    with torch.device("meta"):
        network = DeconvNet()
    deconvolutions = [m for m in network.decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [m.out_channels for m in deconvolutions] == [
        *[512] * 3, *[512, 512, 256], *[256, 256, 128], *[128, 64], *[64, 64],
    ]  # fmt: skip


def test_probing_finds_the_composed_footprint_at_full_depth():
    network = built({**NARROW, "fc_size": 2})
    assert_footprint(network, across=network.least)
    with torch.device("meta"):
        assert DeconvNet(width=2).footprint.halo == (403, 403)


@pytest.mark.parametrize("spec", SHALLOW)
def test_laws(spec, tmp_path):
    network = built(spec)
    dims, least = network.dims, network.least
    assert_footprint(network, axis=dims - 1, across=least)
    assert_tiled_is_whole(network, (17, 9, 6)[:dims], (8, 8, 8)[:dims], batch=2)
    assert_sizes(network, [least] * dims, [least + 1] * dims, [least + 6] * dims)
    assert_trains(network, [least + 2] * dims)
    assert_casts(network, [least + 2] * dims)
    assert_round_trip(spec, [least + 2] * dims, tmp_path)


def test_it_overfits():
    assert_overfits(built({**NARROW, "depth": 2, "fc_size": 2}), (16, 16))


def test_one_window_of_the_least_size_can_be_trained_on():
    """fc6 then gives one value a channel, which has no variance."""
    assert_trains(built({**NARROW, "depth": 1, "fc_size": 2}), (4, 4), batch=1)


def test_whole_channels_are_dropped():
    network = DeconvNet(width=2, depth=1, fc_size=1)
    assert [m.p for fc in network.bottom for m in fc if isinstance(m, nn.Dropout2d)] == [0.5, 0.5]


def test_a_window_too_small_is_told_the_least():
    network = DeconvNet(width=2).double()
    with pytest.raises(MedsegError, match=r"\(224, 192\) voxels is too small: 193 an axis"):
        network(noise(network.double(), (224, 192))[:, :3])
    with pytest.raises(MedsegError, match="3 axes"):
        network(torch.zeros(1, 3, 224, 224, 224))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"fc_size": 0}, "network.fc_size is 0"),
        ({"dropout": 1}, "network.dropout is 1"),
        ({"depth": 6}, "network.depth is 6"),
        ({"depth": True}, "network.depth is True"),
    ],
)
def test_a_spec_that_is_wrong_is_told(argument, message):
    with pytest.raises(MedsegError, match=message):
        build_network({"name": "deconvnet", **argument})
