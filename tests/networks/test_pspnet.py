import laws
import torch

from medseg.networks.pspnet import PSPNet

SPEC = {"name": "pspnet", "backbone": "resnet18", "in_channels": 1, "out_channels": 2, "width": 2}


def test_parameters_at_full_width():
    """The backbone, four contexts of a fourth of its channels, the joining convolution, the scores."""
    backbone = 44_549_160 - 2_049_000
    contexts = 4 * (2048 * 512 + 2 * 512)
    joining = 4096 * 512 * 9 + 2 * 512
    main = backbone + contexts + joining + 512 * 21 + 21
    second = 1024 * 256 * 9 + 2 * 256 + 256 * 21 + 21
    assert laws.counted({"name": "pspnet", "auxiliary": False}) == main == 65_584_725
    assert laws.counted({"name": "pspnet"}) == main + second


def test_probing_aligned_corners_finds_the_composed_footprint():
    network = laws.built({**SPEC, "bins": [], "align_corners": True})
    laws.assert_footprint(network)


def test_bins_average_their_parts_of_the_window():
    with torch.device("meta"):
        pyramid = PSPNet(backbone="resnet50").classifier[0]
    assert [context[0].output_size for context in pyramid.contexts] == [1, 2, 3, 6]
    assert [context[1].out_channels for context in pyramid.contexts] == [512] * 4
