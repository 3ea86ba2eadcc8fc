import laws
import pytest
import torch

from medseg import MedsegError, build_network
from medseg.networks.pspnet import PSPNet

SPEC = {"name": "pspnet", "backbone": "resnet18", "in_channels": 1, "out_channels": 2, "width": 2}
WINDOW = (48, 33)


def test_parameters_at_full_width():
    """The backbone, four contexts of a fourth of its channels, the joining convolution, the score."""
    backbone = 44_549_160 - 2_049_000
    contexts = 4 * (2048 * 512 + 2 * 512)
    joining = 4096 * 512 * 9 + 2 * 512
    assert laws.counted({"name": "pspnet"}) == backbone + contexts + joining + 512 * 21 + 21 == 65_584_725


@pytest.mark.parametrize("align_corners", [False, True])
def test_probing_without_bins_finds_the_composed_footprint(align_corners):
    network = laws.built({**SPEC, "bins": [], "align_corners": align_corners})
    laws.assert_footprint(network)
    assert network.footprint.exact
    assert not laws.built(SPEC).footprint.exact


def test_tiled_is_whole_without_bins():
    laws.assert_tiled_is_whole(laws.built({**SPEC, "bins": []}), (20, 5), (8, 8))


def test_bins_average_their_parts_of_the_window():
    with torch.device("meta"):
        pyramid = PSPNet(backbone="resnet50").pyramid
    assert [context[0].output_size for context in pyramid.contexts] == [1, 2, 3, 6]
    assert [context[1].out_channels for context in pyramid.contexts] == [512] * 4


def test_any_size_goes_in():
    laws.assert_sizes(laws.built(SPEC), (1, 1), (33, 48), (17, 40))
    laws.assert_sizes(laws.built({**SPEC, "dims": 3}), (9, 16, 17))


@pytest.mark.parametrize("dims", [2, 3])
def test_trains_and_overfits(dims):
    network = laws.built({**SPEC, "dims": dims})
    window = (33, *[32] * (dims - 1))
    laws.assert_trains(network, window)
    laws.assert_overfits(network, window)


def test_the_auxiliary_head_is_for_losses_alone():
    network = build_network({**SPEC, "auxiliary": True})
    logits, auxiliary = network.outputs(torch.zeros(2, 1, *WINDOW))
    assert logits.shape == auxiliary.shape == (2, 2, *WINDOW)
    (logits + 0.4 * auxiliary).square().mean().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_round_trip_and_casts(tmp_path):
    laws.assert_round_trip(SPEC, WINDOW, tmp_path)
    laws.assert_casts(laws.built(SPEC), WINDOW)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bins": [0]}, r"network.bins is \[0\]"),
        ({"bins": "1236"}, "network.bins"),
        ({"backbone": "vgg16"}, "network.backbone is 'vgg16'"),
        ({"output_stride": 32}, "network.output_stride is 32"),
    ],
)
def test_wrong_arguments_are_told(arguments, message):
    with pytest.raises(MedsegError, match=message):
        build_network({**SPEC, **arguments})
