import laws
import pytest

from medseg import MedsegError, build_network

SPEC = {"name": "upernet", "backbone": "resnet18", "in_channels": 1, "out_channels": 2, "width": 1}
SWIN = {**SPEC, "backbone": "swin_tiny", "width": 2}
WINDOW = (48, 33)


def test_parameters_at_full_width():
    """The backbone, pyramid pooling of 512 a bin, laterals, three smoothing convolutions, fusion, the score."""
    backbone = 44_549_160 - 2_049_000
    pyramid = 4 * (2048 * 512 + 2 * 512) + (2048 + 4 * 512) * 512 * 9 + 2 * 512
    laterals = (256 + 512 + 1024) * 512 + 3 * 2 * 512
    smooth, fuse = 3 * (512 * 512 * 9 + 2 * 512), 4 * 512 * 512 * 9 + 2 * 512
    score = 512 * 21 + 21
    assert laws.counted({"name": "upernet"}) == backbone + pyramid + laterals + smooth + fuse + score


@pytest.mark.parametrize("align_corners", [False, True])
def test_probing_without_bins_finds_the_composed_footprint(align_corners):
    network = laws.built({**SPEC, "bins": [], "align_corners": align_corners})
    laws.assert_footprint(network)
    assert network.footprint.exact
    assert network.footprint.step == (32, 32)
    assert not laws.built(SPEC).footprint.exact


def test_tiled_is_whole_without_bins():
    laws.assert_tiled_is_whole(laws.built({**SPEC, "bins": []}), (40, 5), (32, 32))


def test_any_size_goes_in():
    laws.assert_sizes(laws.built(SPEC), (1, 1), (33, 48), (17, 40))
    laws.assert_sizes(laws.built({**SPEC, "dims": 3}), (9, 16, 17))


@pytest.mark.parametrize("dims", [2, 3])
def test_trains_and_overfits(dims):
    network = laws.built({**SPEC, "dims": dims})
    window = (33, *[32] * (dims - 1))
    laws.assert_trains(network, window)
    laws.assert_overfits(network, window)


def test_round_trip_and_casts(tmp_path):
    laws.assert_round_trip(SPEC, WINDOW, tmp_path)
    laws.assert_casts(laws.built(SPEC), WINDOW)


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
    laws.assert_round_trip(SWIN, WINDOW, tmp_path)


def test_swin_s_stages_come_before_their_merges():
    pytest.importorskip("einops")
    network = laws.built(SWIN)
    features = network.backbone(laws.noise(network, (64, 96)))
    assert [tuple(f.shape[1:]) for f in features] == [(3, 16, 24), (6, 8, 12), (12, 4, 6), (24, 2, 3)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"bins": [0]}, r"network.bins is \[0\]"), ({"backbone": "swin"}, "network.backbone is 'swin'.*swin_tiny")],
)
def test_wrong_arguments_are_told(arguments, message):
    with pytest.raises(MedsegError, match=message):
        build_network({**SPEC, **arguments})
