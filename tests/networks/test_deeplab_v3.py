import laws
import pytest
import torch
from torch import nn

from medseg.networks.deeplab_v3 import DeepLabV3

TORCHVISION = {"output_stride": 8, "multi_grid": None, "head": "torchvision"}
NARROW = {
    "backbone": "resnet18",
    "multi_grid": [1, 2],
    "rates": [1, 2],
    "in_channels": 1,
    "out_channels": 2,
    "width": 2,
}
EXACT = {**NARROW, "image_pooling": False}
V3 = {"name": "deeplab_v3"}
PLUS = {"name": "deeplab_v3plus"}
WINDOW = (48, 33)


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({**V3, "backbone": "resnet50", **TORCHVISION, "auxiliary": True}, 42_004_074),
        ({**V3, "backbone": "resnet101", **TORCHVISION, "auxiliary": True}, 60_996_202),
        ({**V3, "backbone": "resnet101", **TORCHVISION}, 58_630_997),
        # The paper's own head has no 3x3 convolution after ASPP.
        (V3, 58_630_997 - 256 * 256 * 9 - 2 * 256),
        ({**PLUS, "backbone": "xception65"}, 41_055_413),
        (PLUS, 45_688_261),
        ({**PLUS, "backbone": "mobilenet_v2"}, 2_719_813),
    ],
)
def test_parameters_at_full_width(arguments, parameters):
    assert laws.counted(arguments) == parameters


def test_torchvision_s_names():
    with torch.device("meta"):
        state = DeepLabV3(backbone="resnet50", auxiliary=True, **TORCHVISION).state_dict()
    assert len(state) == 370
    assert state["backbone.layer4.0.downsample.0.weight"].shape == (2048, 1024, 1, 1)
    assert state["classifier.0.convs.4.1.weight"].shape == (256, 2048, 1, 1)
    assert state["classifier.0.project.0.weight"].shape == (256, 1280, 1, 1)
    assert state["classifier.4.weight"].shape == (21, 256, 1, 1)
    assert state["aux_classifier.4.bias"].shape == (21,)


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
def test_torchvision_s_weights_give_torchvision_s_logits(backbone):
    segmentation = pytest.importorskip("torchvision.models.segmentation")
    peer = getattr(segmentation, f"deeplabv3_{backbone}")(weights=None, weights_backbone=None, aux_loss=True).eval()
    network = DeepLabV3(backbone=backbone, auxiliary=True, **TORCHVISION).eval()
    network.load_state_dict(peer.state_dict())
    x = torch.randn(1, 3, 65, 97, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted, (logits, auxiliary) = peer(x), network.outputs(x)
    torch.testing.assert_close(logits, wanted["out"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(auxiliary, wanted["aux"], rtol=1e-5, atol=1e-5)


def test_multi_grid_and_rates_follow_the_output_stride():
    with torch.device("meta"):
        networks = {stride: DeepLabV3(output_stride=stride) for stride in (8, 16)}
    for stride, factor in ((16, 1), (8, 2)):
        units = [unit.conv2.dilation[0] for unit in networks[stride].backbone.layer4]
        assert units == [2 * factor, 4 * factor, 8 * factor]
        rates = [branch[0].dilation[0] for branch in networks[stride].classifier[0].convs[1:4]]
        assert rates == [6 * factor, 12 * factor, 18 * factor]
    shapes = [{key: value.shape for key, value in n.state_dict().items()} for n in networks.values()]
    assert shapes[0] == shapes[1], "weights trained at 16 are tested at 8"


@pytest.mark.parametrize(
    ("name", "align_corners", "output_stride"),
    [("deeplab_v3", True, 16), ("deeplab_v3", False, 16), ("deeplab_v3plus", True, 8), ("deeplab_v3plus", False, 16)],
)
def test_probing_finds_the_composed_footprint(name, align_corners, output_stride):
    spec = {"name": name, **EXACT, "align_corners": align_corners, "output_stride": output_stride}
    network = laws.built(spec)
    laws.assert_footprint(network)
    assert network.footprint.step == (output_stride,) * 2
    assert network.footprint.offset == (int(align_corners),) * 2


def test_probing_bottlenecks_and_no_multi_grid():
    spec = {**V3, **EXACT, "backbone": "resnet50", "multi_grid": None, "rates": [1], "output_stride": 8, "width": 1}
    laws.assert_footprint(laws.built(spec))


@pytest.mark.parametrize(("backbone", "width"), [("xception65", 1), ("mobilenet_v2", 4)])
def test_probing_other_backbones(backbone, width):
    network = laws.built({**PLUS, **EXACT, "backbone": backbone, "rates": [1], "width": width})
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU6):  # It would cut the change off.
                setattr(module, name, nn.ReLU())
    laws.assert_footprint(network)


@pytest.mark.parametrize(("name", "align_corners"), [("deeplab_v3", True), ("deeplab_v3plus", False)])
def test_tiled_is_whole(name, align_corners):
    spec = {"name": name, **EXACT, "align_corners": align_corners, "output_stride": 8}
    laws.assert_tiled_is_whole(laws.built(spec), (20, 5), (8, 8))


def test_other_windows_are_not_exact():
    """Resizing stretches a window that is not ≡ 0 (mod 16): the same voxels give other logits."""
    network = laws.built({**V3, **EXACT})
    halo = network.footprint.halo[0]
    x = laws.noise(network, (2 * halo + 32, 16))
    middle = slice(halo, halo + 16)
    with torch.inference_mode():
        whole, less = network(x)[:, :, middle], network(x[:, :, : 2 * halo + 16])[:, :, middle]
        stretched = network(x[:, :, : 2 * halo + 20])[:, :, middle]
    scale = whole.abs().max()
    assert (whole - less).abs().max() < 1e-12 * scale
    assert (whole - stretched).abs().max() > 1e-6 * scale


@pytest.mark.parametrize(("backbone", "dims"), [("xception65", 2), ("mobilenet_v2", 2), ("mobilenet_v2", 3)])
def test_other_backbones_train(backbone, dims):
    network = laws.built({**PLUS, **NARROW, "backbone": backbone, "dims": dims, "width": 8 if dims == 2 else 4})
    laws.assert_trains(network, (33, *[32] * (dims - 1)))


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_any_size_goes_in(backbone, align_corners):
    network = laws.built({**PLUS, **NARROW, "backbone": backbone, "align_corners": align_corners})
    laws.assert_sizes(network, (1, 1), (33, 48), (17, 40))


def test_one_window_can_be_trained_on():
    """The image's average then is one value a channel, which has no variance."""
    laws.assert_trains(laws.built({**V3, **NARROW}), (33, 32), batch=1)
