"""SegNet, SegNet-Basic and the teaching variant."""

import laws
import pytest
import torch
from torch import nn

from medseg.geometry import Field
from medseg.networks.network import follow
from medseg.networks.segnet import SegNet, SegNetBasic

NARROW = {"width": 2, "in_channels": 2, "out_channels": 3}
SHALLOW = [
    {"name": "segnet", "depth": 2, **NARROW},
    {"name": "segnet", "depth": 2, "unpool": "bilinear", **NARROW},
    {"name": "segnet_basic", "depth": 2, "kernel": 5, **NARROW},
    {"name": "segnet_basic", "depth": 2, "kernel": 3, "unpool": "bilinear", **NARROW},
    {"name": "segnet_small", "depth": 2, **NARROW},
    {"name": "segnet_small", "depth": 2, "align_corners": False, **NARROW},
]
BOTH_DIMS = [{**spec, "dims": dims, "depth": 4 - dims} for spec in SHALLOW for dims in (2, 3)]


def name_of(spec):
    return "-".join(str(spec[key]) for key in ("name", "dims", "unpool", "align_corners") if key in spec)


every = pytest.mark.parametrize("spec", BOTH_DIMS, ids=name_of)


def test_parameters_are_the_papers():
    assert laws.counted({"name": "segnet"}) == 29_455_125
    assert laws.counted({"name": "segnet", "out_channels": 12}) / 1e6 == pytest.approx(29.45, abs=0.005)
    assert laws.counted({"name": "segnet_basic", "out_channels": 11}) == 1_416_075  # the paper's table 1: 1.425 million
    assert laws.counted({"name": "segnet_small"}) == 784_673
    assert laws.counted({"name": "segnet_small", "in_channels": 1}) == 784_385


def test_thirteen_and_thirteen_convolutions():
    with torch.device("meta"):
        network = SegNet()
    encoder, decoder = (
        [m for m in part.modules() if isinstance(m, nn.Conv2d)] for part in (network.encoder, network.decoder)
    )
    assert len(encoder) == 13
    assert [m.out_channels for m in [*decoder, network.score]] == [
        *[512] * 3, *[512, 512, 256], *[256, 256, 128], *[128, 64], *[64, 21],
    ]  # fmt: skip


def test_what_a_voxel_of_segnet_basics_last_pooling_sees():
    """«106x106 pixels» (section 3.2)."""
    network = SegNetBasic(width=2)
    field = Field()
    for stage in network.encoder:
        field = follow(network.pool, follow(stage, field, 0), 0)
    assert (field.stride, field.last - field.first + 1) == (16, 106)


@pytest.mark.parametrize(
    ("name", "halo", "step"), [("segnet", 211, 32), ("segnet_basic", 105, 16), ("segnet_small", 77, 16)]
)
def test_probing_finds_the_composed_footprint_at_full_depth(name, halo, step):
    network = laws.built({"name": name, **NARROW})
    laws.assert_footprint(network, across=1)
    assert network.footprint.halo == (halo, halo)
    assert network.footprint.step == (step, step)


@every
def test_probing_finds_the_composed_footprint(spec):
    network = laws.built(spec)
    laws.assert_footprint(network, across=2)
    laws.assert_footprint(network, axis=spec["dims"] - 1, across=2)


@every
def test_tiled_is_whole(spec):
    extents = {2: ((33, 18), (16, 8)), 3: ((9, 5, 4), (6, 6, 6))}
    laws.assert_tiled_is_whole(laws.built(spec), *extents[spec["dims"]], batch=2)


def test_tiled_is_whole_at_full_depth():
    laws.assert_tiled_is_whole(laws.built({"name": "segnet", **NARROW, "width": 1}), (40, 1), (32, 32))
