"""MONAI's networks, with footprints."""

import subprocess
import sys

import laws
import monai.networks.nets as nets
import pytest
import torch

from medseg import MedsegError
from medseg.networks.monai_residual import VNet

NARROW = {"width": 2, "in_channels": 2, "out_channels": 3}


def name_of(spec):
    return spec["name"] if isinstance(spec, dict) else ""


@pytest.mark.parametrize(
    ("spec", "parameters"),
    [
        ({"name": "basic_unet"}, 5_749_410),
        ({"name": "dynunet"}, 31_189_410),
        ({"name": "attention_unet"}, 5_909_130),
        ({"name": "segresnet", "in_channels": 4, "out_channels": 3}, 18_798_627),
        ({"name": "vnet", "out_channels": 1}, 45_593_892),
        ({"name": "unetr", "out_channels": 14}, 92_784_046),  # the paper's table: 92.58 million
        ({"name": "swin_unetr", "out_channels": 14}, 62_187_296),  # its authors' repository: 62.19 million
    ],
    ids=name_of,
)
def test_parameters(spec, parameters):
    assert laws.counted({"in_channels": 1, "out_channels": 2, "dims": 3, **spec}) == parameters


def test_vnet_has_monais_weights():
    with torch.device("meta"):
        theirs, ours = nets.VNet(3, 2, 5), VNet(2, 5, 3)
    shapes = [{key: value.shape for key, value in net.state_dict().items()} for net in (theirs, ours.network)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("in_channels", [1, 2, 3])
def test_vnet_repeats_its_input(in_channels):
    network = laws.built({"name": "vnet", **NARROW, "in_channels": in_channels})
    level = network.network.in_tr
    torch.nn.init.zeros_(level.conv_block.adn.N.weight)
    torch.nn.init.zeros_(level.conv_block.adn.N.bias)
    x = laws.noise(network, (4, 4))
    wanted = torch.nn.functional.elu(x.repeat(1, 2, 1, 1)[:, :2])
    assert torch.equal(level(x), wanted)


def test_dynunet_is_monais_with_its_supervision():
    spec = {"name": "dynunet", "depth": 3, "supervised": 2, **NARROW}
    ours = laws.built(spec).train()
    theirs = nets.DynUNet(
        2, 2, 3, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[2, 4, 8, 16], deep_supervision=True, deep_supr_num=2
    )
    theirs.double().load_state_dict(ours.network.state_dict(), strict=False)
    x = laws.noise(ours, (16, 24))
    logits = ours.outputs(x)
    full = [torch.nn.functional.interpolate(level, x.shape[2:]) for level in logits]
    assert torch.equal(torch.stack(full, 1), theirs(x))
    assert torch.equal(ours(x), logits[0])
    assert len(laws.built({**spec, "supervised": 0}).outputs(x)) == 1


ANISOTROPIC = {"kernels": [[1, 3, 3], 3, [3, 3, 1]], "strides": [[1, 2, 2], [2, 2, 1]]}


def test_dynunet_with_kernels_and_strides_of_its_own_is_monais():
    ours = laws.built({"name": "dynunet", "dims": 3, "depth": 2, **NARROW, **ANISOTROPIC})
    kernels, strides = [[1, 3, 3], [3, 3, 3], [3, 3, 1]], [[1, 1, 1], [1, 2, 2], [2, 2, 1]]
    theirs = nets.DynUNet(3, 2, 3, kernels, strides, strides[1:], filters=[2, 4, 8]).double().eval()
    theirs.load_state_dict(ours.network.state_dict(), strict=False)
    x = laws.noise(ours, (4, 8, 6))
    assert torch.equal(ours(x), theirs(x))


def test_dynunets_footprint_follows_kernels_and_strides():
    network = laws.built({"name": "dynunet", "dims": 3, "depth": 2, "norm": "batch", **NARROW, **ANISOTROPIC})
    whole = laws.built({"name": "dynunet", "dims": 3, "depth": 2, "norm": "batch", **NARROW})
    assert network.footprint.step == (2, 4, 2)
    assert all(a <= b for a, b in zip(network.footprint.halo, whole.footprint.halo, strict=True))
    for axis in range(3):
        laws.assert_footprint(network, axis=axis, across=8, gain=0.3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kernels": [3, 3]}, r"network.kernels is \[3, 3\]: it must be a list of 3"),
        ({"kernels": [2, 3, 3]}, "network.kernels is 2: it must be odd"),
        ({"strides": [[2, 2], 2]}, r"network.strides is \[2, 2\] at a level: it must be one number, or 3"),
        ({"strides": [0, 2]}, "network.strides is .* whole numbers of 1 or more"),
    ],
)
def test_dynunets_levels_that_do_not_fit_are_told(wrong, message):
    with pytest.raises(MedsegError, match=message):
        laws.built({"name": "dynunet", "dims": 3, "depth": 2, **NARROW, **wrong})


@pytest.mark.parametrize(
    ("spec", "window", "message"),
    [
        (
            {"name": "dynunet", "depth": 2, **NARROW},
            (4, 4),
            r"\(4, 4\) leaves instance norm one voxel: \(8, 4\) will do",
        ),
        ({"name": "dynunet", "depth": 2, **NARROW}, (7, 8), "tile 7 .* try 4 or 8"),
        ({"name": "unetr", "image_size": 32, **NARROW, "width": 1}, (64, 32), r"\(64, 32\): .* takes \(32, 32\) alone"),
        ({"name": "vnet", **NARROW}, (16,), "1 axes"),
    ],
)
def test_a_window_that_cannot_go_in_is_told(spec, window, message):
    network = laws.built(spec)
    with pytest.raises(MedsegError, match=message):
        network(laws.noise(network, window))


def test_monai_is_imported_when_one_is_built():
    script = "import sys, medseg.networks; assert not {'monai', 'mlflow', 'einops'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
