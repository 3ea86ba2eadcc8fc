"""MONAI's networks, with footprints."""

import subprocess
import sys

import monai.networks.nets as nets
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

from medseg import MedsegError, build_network
from medseg.networks.monai_nets import VNet

NARROW = {"width": 2, "in_channels": 2, "out_channels": 3}
EXACT = [
    {"name": "basic_unet", "norm": "batch", **NARROW},
    {"name": "dynunet", "norm": "batch", "depth": 2, **NARROW},
    {"name": "attention_unet", "norm": "batch", "depth": 2, **NARROW},
    {"name": "segresnet", "norm": "batch", **NARROW},
    {"name": "vnet", **NARROW},
]
# Instance norm needs two voxels on the coarsest level, and bfloat16 some more to be close.
INEXACT = [
    ({"name": "basic_unet", **NARROW}, (16, 32, 16)),
    ({"name": "dynunet", "depth": 2, **NARROW}, (8, 12, 4)),
    ({"name": "attention_unet", "depth": 2, **NARROW}, (8, 12, 4)),
    ({"name": "segresnet", **NARROW}, (16, 8, 8)),
    ({"name": "unetr", "image_size": 32, **NARROW, "width": 1}, (32, 32, 32)),
    ({"name": "swin_unetr", **NARROW, "width": 1}, (32, 64, 32)),
]
EXACT_WINDOWS = [(spec, (32, 16, 16) if spec["name"] in ("basic_unet", "vnet") else (16, 8, 8)) for spec in EXACT]
ALL = EXACT_WINDOWS + INEXACT


def name_of(spec):
    return spec["name"] if isinstance(spec, dict) else ""


exact = pytest.mark.parametrize("spec", EXACT, ids=name_of)
every = pytest.mark.parametrize(("spec", "window"), ALL, ids=name_of)


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
    assert counted({"in_channels": 1, "out_channels": 2, "dims": 3, **spec}) == parameters


@exact
def test_probing_finds_the_composed_footprint(spec):
    network = built(spec)
    assert network.footprint.exact
    assert_footprint(network, gain=0.3)


@pytest.mark.parametrize("spec", [spec for spec in EXACT if spec.get("depth") == 2], ids=name_of)
def test_probing_finds_the_composed_footprint_in_3d(spec):
    assert_footprint(built({**spec, "dims": 3}), axis=2, gain=0.3)


@exact
def test_tiled_is_whole(spec):
    assert_tiled_is_whole(built(spec), (25, 6), (16, 16))


@pytest.mark.parametrize("spec", [spec for spec in EXACT if spec.get("depth") == 2], ids=name_of)
def test_tiled_is_whole_in_3d(spec):
    assert_tiled_is_whole(built({**spec, "dims": 3}), (9, 6, 1), (8, 8, 8))


@pytest.mark.parametrize(("spec", "window"), INEXACT, ids=name_of)
def test_what_looks_at_the_window_says_so(spec, window):
    assert not built(spec).footprint.exact


@every
def test_it_trains_in_2d(spec, window, tmp_path):
    network = built(spec)
    assert_sizes(network, window[:2])
    assert_trains(network, window[:2])
    assert_casts(network, window[:2], agree=0.9)
    assert_round_trip(spec, window[:2], tmp_path)


@pytest.mark.parametrize(("spec", "window"), [*EXACT_WINDOWS[:4], *INEXACT[1:4]], ids=name_of)
def test_it_trains_in_3d(spec, window):
    assert_trains(built({**spec, "dims": 3}), [min(n, 16) for n in window])


@pytest.mark.parametrize(("spec", "window"), [*EXACT_WINDOWS, *INEXACT], ids=name_of)
def test_shapes_in_3d_on_the_meta_device(spec, window):
    with torch.device("meta"):
        network = build_network({**spec, "dims": 3})
        assert network(torch.empty(2, 2, *window)).shape == (2, 3, *window)


@pytest.mark.parametrize("name", ["dynunet", "vnet"])
def test_it_overfits(name):
    assert_overfits(built({"name": name, **NARROW, "width": 4}), (64, 32))


def test_vnet_has_monais_weights():
    with torch.device("meta"):
        theirs, ours = nets.VNet(3, 2, 5), VNet(2, 5, 3)
    shapes = [{key: value.shape for key, value in net.state_dict().items()} for net in (theirs, ours.network)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("in_channels", [1, 2, 3])
def test_vnet_repeats_its_input(in_channels):
    network = built({"name": "vnet", **NARROW, "in_channels": in_channels})
    level = network.network.in_tr
    torch.nn.init.zeros_(level.conv_block.adn.N.weight)
    torch.nn.init.zeros_(level.conv_block.adn.N.bias)
    x = noise(network, (4, 4))
    wanted = torch.nn.functional.elu(x.repeat(1, 2, 1, 1)[:, :2])
    assert torch.equal(level(x), wanted)


def test_dynunet_is_monais_with_its_supervision():
    spec = {"name": "dynunet", "depth": 3, "supervised": 2, **NARROW}
    ours = built(spec).train()
    theirs = nets.DynUNet(
        2, 2, 3, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[2, 4, 8, 16], deep_supervision=True, deep_supr_num=2
    )
    theirs.double().load_state_dict(ours.network.state_dict(), strict=False)
    x = noise(ours, (16, 24))
    logits = ours.outputs(x)
    assert torch.equal(torch.stack(logits, 1), theirs(x))
    assert torch.equal(ours(x), logits[0])
    assert len(built({**spec, "supervised": 0}).outputs(x)) == 1


@pytest.mark.parametrize(
    ("spec", "window", "message"),
    [
        ({"name": "dynunet", "depth": 2, **NARROW}, (4, 4), r"\(4, 4\) leaves instance norm one voxel: 8 on one axis"),
        ({"name": "dynunet", "depth": 2, **NARROW}, (7, 8), "tile 7 .* try 4 or 8"),
        ({"name": "unetr", "image_size": 32, **NARROW, "width": 1}, (64, 32), r"\(64, 32\): .* takes \(32, 32\) alone"),
        ({"name": "vnet", **NARROW}, (16,), "1 axes"),
    ],
)
def test_a_window_that_cannot_go_in_is_told(spec, window, message):
    network = built(spec)
    with pytest.raises(MedsegError, match=message):
        network(noise(network, window))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "unetr", "image_size": 100}, "network.image_size is 100: it must be a multiple of 16"),
        ({"name": "dynunet", "supervised": 5}, "network.supervised is 5: depth 5 has 4"),
        ({"name": "dynunet", "depth": 9}, "network.depth is 9"),
        ({"name": "attention_unet", "width": 1}, "network.width is 1: .* 2 or more"),
        ({"name": "segresnet", "norm": "instance"}, "network.norm is 'instance'.* group, batch"),
        ({"name": "swin_unetr", "dims": 1}, "network.dims is 1"),
    ],
)
def test_a_spec_that_is_wrong_is_told(spec, message):
    with pytest.raises(MedsegError, match=message):
        build_network(spec)


def test_monai_is_imported_when_one_is_built():
    script = "import sys, medseg.networks; assert not {'monai', 'mlflow', 'einops'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
