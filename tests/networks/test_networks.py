import inspect

import pytest
import torch

from medseg import NETWORKS, MedsegError, build_network
from medseg.networks import describe
from medseg.networks.network import Network


def test_every_network_has_a_paper_and_plain_arguments():
    for name, network in NETWORKS.items():
        assert issubclass(network, Network)
        assert network.paper
        for parameter in inspect.signature(network).parameters.values():
            assert parameter.default is not inspect.Parameter.empty, f"{name}.{parameter.name} has no default"


@pytest.mark.parametrize("name", list(NETWORKS))
def test_describing_counts_what_building_allocates(name):
    described = describe({"name": name, "width": 2})
    network = build_network({"name": name, "width": 2})
    assert described["parameters"] == sum(p.numel() for p in network.parameters())
    assert tuple(described["halo"]) == network.footprint.halo
    assert described["arguments"]["width"] == 2


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "unett"}, "did you mean 'unet'"),
        ({}, "one of unet"),
        ({"name": "unet", "dpth": 3}, "network.dpth .* did you mean 'depth'"),
        ({"name": "unet", "padding": "full"}, "network.padding is 'full'.*valid, same"),
        ({"name": "unet", "norm": 3}, "network.norm"),
        ({"name": "unet", "up": "bicubic"}, "network.up"),
        ({"name": "unet", "depth": 0}, "network.depth is 0"),
        ({"name": "unet", "depth": True}, "network.depth is True"),
        ({"name": "unet", "depth": 10**9}, "network.depth"),
        ({"name": "unet", "width": "wide"}, "network.width"),
        ({"name": "unet", "dims": 4}, "network.dims is 4"),
        ({"name": "unet", "dropout": 1.0}, "network.dropout"),
        ({"name": "unet", "dropout": "half"}, "network.dropout"),
    ],
)
def test_a_spec_that_is_wrong_is_told(spec, message):
    with pytest.raises(MedsegError, match=message):
        build_network(spec)


def test_a_spec_builds_the_same_weights_for_the_same_seed():
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        weights.append(build_network({"name": "unet", "width": 2}).state_dict())
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
