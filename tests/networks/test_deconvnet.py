"""DeconvNet."""

import laws
import pytest
import torch
from torch import nn

from medseg import MedsegError
from medseg.networks.deconvnet import DeconvNet

NARROW = {"name": "deconvnet", "width": 2, "in_channels": 2, "out_channels": 3}


def test_parameters_are_the_papers():
    assert laws.counted({"name": "deconvnet"}) == 251_805_653  # 252 million
    assert laws.counted({"name": "deconvnet", "depth": 5, "fc_size": 3, "dims": 3}) < 1.2 * 548e6


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
    network = laws.built({**NARROW, "fc_size": 2})
    laws.assert_footprint(network, across=network.least)
    with torch.device("meta"):
        assert DeconvNet(width=2).footprint.halo == (403, 403)


def test_one_window_of_the_least_size_can_be_trained_on():
    """fc6 then gives one value a channel, which has no variance."""
    laws.assert_trains(laws.built({**NARROW, "depth": 1, "fc_size": 2}), (4, 4), batch=1)


def test_whole_channels_are_dropped():
    network = DeconvNet(width=2, depth=1, fc_size=1)
    assert [m.p for fc in network.bottom for m in fc if isinstance(m, nn.Dropout2d)] == [0.5, 0.5]


def test_a_window_too_small_is_told_the_least():
    network = DeconvNet(width=2).double()
    with pytest.raises(MedsegError, match=r"\(224, 192\) voxels is too small: 193 an axis"):
        network(laws.noise(network.double(), (224, 192))[:, :3])
    with pytest.raises(MedsegError, match="3 axes"):
        network(torch.zeros(1, 3, 224, 224, 224))
