import laws
import pytest
import torch

from medseg import build_network

SPEC = {"name": "upernet", "backbone": "resnet18", "in_channels": 1, "out_channels": 2, "width": 1}
SWIN = {**SPEC, "backbone": "swin_tiny", "width": 2}


def test_parameters_at_full_width():
    """The backbone, pyramid pooling of 512 a bin, laterals, three smoothing convolutions, fusion, the score."""
    backbone = 44_549_160 - 2_049_000
    pyramid = 4 * (2048 * 512 + 2 * 512) + (2048 + 4 * 512) * 512 * 9 + 2 * 512
    laterals = (256 + 512 + 1024) * 512 + 3 * 2 * 512
    smooth, fuse = 3 * (512 * 512 * 9 + 2 * 512), 4 * 512 * 512 * 9 + 2 * 512
    score = 512 * 21 + 21
    assert laws.counted({"name": "upernet"}) == backbone + pyramid + laterals + smooth + fuse + score


def test_probing_aligned_corners_finds_the_composed_footprint():
    network = laws.built({**SPEC, "bins": [], "align_corners": True})
    laws.assert_footprint(network)
    assert network.footprint.offset == (1, 1)


@pytest.mark.parametrize("dims", [2, 3])
def test_swin(dims):
    pytest.importorskip("einops")
    network = laws.built({**SWIN, "dims": dims})
    window = (33, *[32] * (dims - 1))
    assert not network.footprint.exact
    laws.assert_sizes(network, window)
    laws.assert_trains(network, window)


def test_swin_s_round_trip(tmp_path):
    pytest.importorskip("einops")
    laws.assert_round_trip(SWIN, (48, 33), tmp_path)


def test_swin_s_stages_come_before_their_merges():
    pytest.importorskip("einops")
    network = laws.built(SWIN)
    features = network.backbone(laws.noise(network, (64, 96)))
    assert [tuple(f.shape[1:]) for f in features] == [(3, 16, 24), (6, 8, 12), (12, 4, 6), (24, 2, 3)]


def test_the_second_head_is_on_the_third_stage():
    with torch.device("meta"):
        network = build_network({"name": "upernet", "auxiliary": True})
    assert network.aux_classifier[0].in_channels == 1024
