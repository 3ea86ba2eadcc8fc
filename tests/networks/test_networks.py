import inspect
import math

import pytest
import torch

from medseg import NETWORKS, MedsegError, build_network
from medseg.networks import arguments_of
from medseg.networks.network import Network


def test_every_network_has_a_paper_and_plain_arguments():
    for name, network in NETWORKS.items():
        assert issubclass(network, Network)
        assert network.paper
        for parameter in inspect.signature(network).parameters.values():
            assert parameter.default is not inspect.Parameter.empty, f"{name}.{parameter.name} has no default"


COUNT = (0, -1, 2.0, True, "2", None, [2])
LIST = (3, "123", None, [0], [1, 2.0], [True])
FLAG = (0, 1, "yes", None)
WRONG = {
    "in_channels": COUNT,
    "out_channels": COUNT,
    "dims": (0, 1, 4, 2.0, "2", None, True, [2]),
    "width": COUNT,
    "depth": (*COUNT, 99, 10**9),
    "stem": COUNT,
    "features": COUNT,
    "rate": COUNT,
    "fc_size": COUNT,
    "kernel": (*COUNT, 4),
    "kernels": (3, "333", [3] * 5, [3] * 5 + [2], [[3]] * 6, [3.0] * 6),
    "strides": (2, "22222", [2] * 4, [0] * 5, [[2]] * 5, [True] * 5),
    "image_size": (*COUNT, 100),
    "supervised": (-1, 1.0, True, None, 99),
    "dropout": (1, 1.0, -0.1, math.nan, "half", None, True),
    "padding": ("full", None, 1),
    "norm": ("layer", None, 1),
    "up": ("bicubic", None),
    "unpool": ("nearest", None),
    "head": ("linear", None),
    "backbone": ("resnet99", "alexnet", None, 50, ["resnet50"]),
    "output_stride": (4, 64, 8.0, "8", None),
    "multi_grid": ([1], [1, 0, 1], "124", 3, [1, 2.0, 4]),
    "rates": (*LIST, []),
    "bins": LIST,
    "modules": (*LIST, []),
    "scales": (3, "123", None, [0], [True], [], [0.5, 1], [1, 0], [1, 5]),
    "align_corners": FLAG,
    "auxiliary": FLAG,
    "image_pooling": FLAG,
    "separable": FLAG,
    "at_once": FLAG,
}
"""Values that no network can be built from, argument by argument."""


@pytest.mark.parametrize("name", list(NETWORKS))
def test_values_that_cannot_be_built_from_are_told_in_a_sentence(name):
    for argument in arguments_of(name):
        for value in WRONG[argument]:
            with pytest.raises(MedsegError, match=f"^network.{argument} is ") as told, torch.device("meta"):
                build_network({"name": name, argument: value})
            assert len(str(told.value)) <= 500


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "unett"}, "network.name is 'unett'; did you mean 'unet'"),
        ({"name": "deeplabv3plus"}, "did you mean 'deeplab_v3plus'"),
        ({"name": 3}, "network.name is 3.* one of unet"),
        ({"name": ["unet"]}, "network.name is "),
        ({}, "one of unet"),
        ({"name": "unet", "dpth": 3}, "network.dpth is no argument of unet; did you mean 'depth'"),
        ({"name": "segnet", "dropout": 0.5}, "network.dropout is no argument of segnet.*; it takes in_channels"),
        ({"name": "unet", "padding": "full"}, "network.padding is 'full'.*valid, same"),
        ({"name": "unet", "depth": 10**9}, "whole number from 1 to 10"),
        ({"name": "fcn8s", "fc_size": 4}, "network.fc_size is 4: it must be odd"),
        ({"name": "segnet", "depth": 6}, "network.depth is 6: .* from 1 to 5"),
        ({"name": "fcn8s", "backbone": "vgg19"}, "network.backbone is 'vgg19'.*vgg16, resnet18"),
        ({"name": "dynunet", "supervised": 5}, "network.supervised is 5: .* from 0 to 4"),
        ({"name": "deeplab_v3", "multi_grid": [1, 2]}, r"network.multi_grid is \[1, 2\].*3 whole numbers"),
        ({"name": "unetr", "image_size": 100}, "network.image_size is 100: .* multiple of 16"),
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
