"""SegNet, SegNet-Basic and the teaching variant."""

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
)
from torch import nn

from medseg import MedsegError, build_network
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
    assert counted({"name": "segnet"}) == 29_455_125
    assert counted({"name": "segnet", "out_channels": 12}) / 1e6 == pytest.approx(29.45, abs=0.005)
    assert counted({"name": "segnet_basic", "out_channels": 11}) == 1_416_075  # the paper's table 1: 1.425 million
    assert counted({"name": "segnet_small"}) == 784_673
    assert counted({"name": "segnet_small", "in_channels": 1}) == 784_385


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
    network = built({"name": name, **NARROW})
    assert_footprint(network, across=1)
    assert network.footprint.halo == (halo, halo)
    assert network.footprint.step == (step, step)


@every
def test_probing_finds_the_composed_footprint(spec):
    network = built(spec)
    assert_footprint(network, across=2)
    assert_footprint(network, axis=spec["dims"] - 1, across=2)


@every
def test_tiled_is_whole(spec):
    extents = {2: ((33, 18), (16, 8)), 3: ((9, 5, 4), (6, 6, 6))}
    assert_tiled_is_whole(built(spec), *extents[spec["dims"]], batch=2)


def test_tiled_is_whole_at_full_depth():
    assert_tiled_is_whole(built({"name": "segnet", **NARROW, "width": 1}), (40, 1), (32, 32))


@every
def test_any_window_goes_in(spec):
    assert_sizes(built(spec), *([(9, 14), (1, 3), (32, 17)] if spec["dims"] == 2 else [(9, 14, 5), (1, 2, 3)]))


@every
def test_it_trains(spec):
    network = built(spec)
    window = (9, 8, 5)[: spec["dims"]]
    assert_trains(network, window)
    assert_casts(network, window)


@pytest.mark.parametrize("name", ["segnet", "segnet_basic", "segnet_small"])
def test_it_overfits(name):
    assert_overfits(built({"name": name, **NARROW, "width": 4, "depth": 2}), (16, 16))


@pytest.mark.parametrize("spec", SHALLOW, ids=name_of)
def test_weights_written_and_read(spec, tmp_path):
    assert_round_trip(spec, (9, 14), tmp_path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "segnet", "depth": 6}, "network.depth is 6: VGG16 has 5 stages"),
        ({"name": "segnet", "unpool": "nearest"}, "network.unpool is 'nearest'.* indices, bilinear"),
        ({"name": "segnet", "dims": 4}, "network.dims is 4"),
        ({"name": "segnet_basic", "kernel": 4}, "network.kernel is 4: it must be odd"),
        ({"name": "segnet_small", "width": 0}, "network.width is 0"),
        ({"name": "segnet_small", "depth": 99}, "network.depth is 99"),
    ],
)
def test_a_spec_that_is_wrong_is_told(spec, message):
    with pytest.raises(MedsegError, match=message):
        build_network(spec)


def test_a_window_of_other_axes_is_refused():
    with pytest.raises(MedsegError, match="3 axes"):
        SegNet(width=2)(torch.zeros(1, 3, 8, 8, 8))
