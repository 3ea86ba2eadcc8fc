"""The backbones: ResNet, Xception-65, MobileNetV2."""

import pytest
import torch
from torch import nn

from medseg import MedsegError
from medseg.geometry import Field
from medseg.networks.mobilenet import MobileNetV2
from medseg.networks.resnet import RESNETS, ResNet
from medseg.networks.xception import Xception65

BACKBONES = {
    **{name: lambda name=name, **arguments: ResNet(name, **arguments) for name in RESNETS},
    "xception65": Xception65,
    "mobilenet_v2": MobileNetV2,
}


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "whole", "classifier"),
    [
        ("resnet18", 11_689_512, 513_000),
        ("resnet34", 21_797_672, 513_000),
        ("resnet50", 25_557_032, 2_049_000),
        ("resnet101", 44_549_160, 2_049_000),
        ("resnet152", 60_192_808, 2_049_000),
        # Without the last 1x1 convolution to 1280 channels, which DeepLab leaves out.
        ("mobilenet_v2", 3_504_872, 1_281_000 + 320 * 1280 + 2 * 1280),
    ],
)
def test_as_many_parameters_as_torchvision_s_without_the_classifier(name, whole, classifier):
    with torch.device("meta"):
        assert parameters(BACKBONES[name](dims=2, in_channels=3)) == whole - classifier


@pytest.mark.parametrize(
    ("name", "output_stride"),
    [("resnet18", 32), ("resnet18", 8), ("resnet50", 16), ("xception65", 16), ("mobilenet_v2", 8)],
)
def test_sizes_are_the_trace_s(name, output_stride):
    with torch.device("meta"):
        backbone = BACKBONES[name](dims=2, in_channels=1, width=2, output_stride=output_stride)
        fields = backbone.trace(Field(rounds=True), 0)
        assert (fields[0].stride, fields[-1].stride) == (4, output_stride)
        for n in (1, 32, 33):
            features = backbone(torch.empty(2, 1, n, 1))
            assert [f.shape[1] for f in features] == list(backbone.channels)
            assert [f.shape[2] for f in features] == [(n - field.trim) // field.stride for field in fields]


def drawn(module, seed=0):
    torch.manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(layer.running_mean, -0.1, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return module.double().eval()


@pytest.mark.parametrize(
    ("name", "output_stride"),
    [("resnet18", 8), ("resnet50", 16), ("resnet50", 8), ("xception65", 8), ("mobilenet_v2", 16), ("mobilenet_v2", 8)],
)
def test_dilation_for_stride_computes_the_same_in_between(name, output_stride):
    """Every voxel of the strided network is a voxel of the dilated one, with the same weights (holes: «à trous»)."""
    strided = drawn(BACKBONES[name](dims=2, in_channels=1, width=4, output_stride=32))
    dense = BACKBONES[name](dims=2, in_channels=1, width=4, output_stride=output_stride).double().eval()
    dense.load_state_dict(strided.state_dict())
    x = torch.randn(1, 1, 70, 33, dtype=torch.float64)
    every = 32 // output_stride
    with torch.inference_mode():
        coarse, fine = strided(x)[-1], dense(x)[-1][:, :, ::every, ::every]
    assert coarse.std() > 0
    torch.testing.assert_close(fine, coarse, rtol=1e-9, atol=1e-12)


def test_a_flat_volume_is_a_picture():
    """3D is the same network: with kernels that are zero but in their middle plane, a plane is a picture."""
    flat = drawn(ResNet("resnet18", 2, 1, width=2))
    solid = ResNet("resnet18", 3, 1, width=2).double().eval()
    weights = {}
    for key, value in flat.state_dict().items():
        if value.ndim == 4:
            full = torch.zeros(*value.shape[:2], value.shape[-1], *value.shape[2:], dtype=value.dtype)
            full[:, :, value.shape[-1] // 2] = value
            value = full
        weights[key] = value
    solid.load_state_dict(weights)
    x = torch.randn(1, 1, 33, 20, dtype=torch.float64)
    with torch.inference_mode():
        pictures, planes = flat(x), solid(x[:, :, None])
    for picture, plane in zip(pictures, planes, strict=True):
        torch.testing.assert_close(plane[:, :, 0], picture, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet51"}, "network.backbone is 'resnet51'.*resnet50"),
        ({"output_stride": 4}, "network.output_stride is 4.*8, 16 or 32"),
        ({"multi_grid": (1, 2, 4)}, "network.multi_grid.*2 whole numbers"),
        ({"multi_grid": (1, 0)}, "network.multi_grid"),
    ],
)
def test_wrong_arguments_are_told(arguments, message):
    with pytest.raises(MedsegError, match=message):
        ResNet(**{"name": "resnet18", "dims": 2, "in_channels": 1, "width": 2, **arguments})
