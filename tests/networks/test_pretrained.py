"""torchvision's weights: the outputs are torchvision's, whatever fits is taken, and what does not is named.

torchvision_twins is torchvision written plainly; the last test compares with torchvision itself where it is there.
"""

import pickle

import pytest
import torch
import torchvision_twins as twins
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from medseg import Experiment, MedsegError, build_network
from medseg.networks.kernels import decimated, folded, for_channels, inflated, taps_of
from medseg.networks.pretrained import load_pretrained
from medseg.networks.weight_files import read_tensors

FCN = {"name": "fcn32s", "padding": "same", "width": 2, "out_channels": 3}
RESNET_NETWORKS = ("fcn8s", "fcn_resnet", "deeplab_v2", "deeplab_v3", "deeplab_v3plus", "pspnet", "upernet")
SEGMENTERS = {
    "fcn": {"name": "fcn_resnet", "backbone": "resnet50", "auxiliary": True, "width": 2},
    "deeplab": {
        "name": "deeplab_v3",
        "backbone": "resnet50",
        "auxiliary": True,
        "width": 2,
        "output_stride": 8,
        "multi_grid": None,
        "head": "torchvision",
    },
}


def written(module, folder):
    path = folder / "weights.pth"
    torch.save(module.state_dict(), path)
    return path


def loaded(spec, module, folder, seed=1):
    """The network of a spec with a module's weights, in double like the module, and what was said."""
    path = written(module, folder)
    torch.manual_seed(seed)
    network = build_network(spec)
    account = load_pretrained(network, path)
    module.double()
    return network.double().eval(), str(account)


def image(*shape):
    torch.manual_seed(5)
    return torch.randn(*shape, dtype=torch.float64)


def encoded(network, x):
    """What an unpooling network's encoder hands to its bottom."""
    for stage in network.encoder:
        x, _ = network.pool(stage(x))
    return x


@pytest.mark.parametrize("norm", [False, True], ids=["vgg16", "vgg16_bn"])
@torch.inference_mode()
def test_fcn_s_stages_and_fc_layers_are_vgg_s(norm, tmp_path):
    twin = twins.vgg16(norm=norm)
    network, said = loaded(FCN, twin, tmp_path)
    x = image(1, 3, 224, 224)
    features = nn.Sequential(*network.stages)(x)
    close = {"rtol": 1e-4, "atol": 1e-7} if norm else {"rtol": 1e-9, "atol": 1e-12}  # norms are folded in float32
    torch.testing.assert_close(features, twin.features(x), **close)
    network.fc[0].padding = (0, 0)
    fc7 = twin.classifier[:6](features.flatten(1))
    assert fc7.std() > 0
    torch.testing.assert_close(network.fc(features).flatten(1), fc7, rtol=1e-9, atol=1e-12)
    assert "drawn anew: score; left in the file: classifier.6" in said
    assert ("folded" in said) == norm


@pytest.mark.parametrize("name", ["segnet", "deconvnet"])
@torch.inference_mode()
def test_encoders_with_batch_norm_are_vgg16_bn_s(name, tmp_path):
    twin = twins.vgg16(norm=True)
    network, said = loaded({"name": name, "width": 2, "out_channels": 2}, twin, tmp_path)
    x = image(1, 3, 64, 64)
    torch.testing.assert_close(encoded(network, x), twin.features(x), rtol=1e-9, atol=1e-12)
    assert "decoder" in said.partition("drawn anew: ")[2]


def test_an_encoder_with_batch_norm_takes_the_convolutions_of_vgg16(tmp_path):
    twin = twins.vgg16()
    network, said = loaded({"name": "segnet", "width": 2, "out_channels": 2, "depth": 3}, twin, tmp_path)
    assert torch.equal(network.encoder[2][6].weight, twin.features[14].weight)
    assert torch.equal(network.encoder[2][7].running_var, torch.ones(8).double())
    assert said.startswith("14 tensors of torchvision's vgg16;")
    assert "features.17" in said


@pytest.mark.parametrize(
    ("spec", "branches"),
    [
        ({"name": "deeplab_v1"}, ("head",)),
        ({"name": "deeplab_v2", "backbone": "vgg16"}, ("head.0", "head.1", "head.2", "head.3")),
    ],
    ids=["v1", "v2"],
)
def test_deeplab_s_fc6_and_fc7_are_decimated(spec, branches, tmp_path):
    """Every third voxel of 7x7, every fourth of 4096 channels; all branches of ASPP begin alike."""
    twin = twins.vgg16()
    network, said = loaded({**spec, "width": 2, "out_channels": 2}, twin, tmp_path)
    weights = network.state_dict()
    fc6 = twin.classifier[0].weight.reshape(128, 16, 7, 7)[::4, :, ::3, ::3]
    for branch in branches:
        assert torch.equal(weights[f"{branch}.0.weight"], fc6)
        assert torch.equal(weights[f"{branch}.0.bias"], twin.classifier[0].bias[::4])
        assert torch.equal(weights[f"{branch}.3.weight"][..., 0, 0], twin.classifier[3].weight[::4, ::4])
    assert "decimated from 128 channels and 7 voxels an axis to 32 and 3" in said
    assert said.count("decimated") == 1


@pytest.mark.parametrize("fc_size", [5, 9])
def test_fc_layers_that_do_not_divide_begin_as_they_are_drawn(fc_size, tmp_path):
    twin = twins.vgg16()
    network, said = loaded({**FCN, "fc_size": fc_size}, twin, tmp_path)
    torch.manual_seed(1)
    fresh = build_network({**FCN, "fc_size": fc_size}).double()
    assert all(torch.equal(a, b) for a, b in zip(network.fc.parameters(), fresh.fc.parameters(), strict=True))
    assert "drawn anew: fc, score" in said


@pytest.mark.parametrize("name", twins.UNITS)
@torch.inference_mode()
def test_backbones_are_torchvision_s_resnets(name, tmp_path):
    twin = twins.resnet(name)
    network, said = loaded({"name": "upernet", "backbone": name, "width": 2}, twin, tmp_path)
    x = image(1, 3, 65, 33)
    for ours, its in zip(network.backbone(x), twin.stages(x), strict=True):
        torch.testing.assert_close(ours, its, rtol=1e-9, atol=1e-12)
    assert f"of torchvision's {name};" in said
    assert "left in the file: fc" in said


@pytest.mark.parametrize("name", RESNET_NETWORKS)
def test_every_network_on_a_resnet_takes_it(name, tmp_path):
    twin = twins.resnet("resnet50")
    network, _ = loaded({"name": name, "backbone": "resnet50", "width": 2}, twin, tmp_path)
    own = network.backbone.state_dict()
    assert all(torch.equal(own[key], tensor) for key, tensor in twin.state_dict().items() if not key.startswith("fc."))


@pytest.mark.parametrize("head", SEGMENTERS)
@torch.inference_mode()
def test_segmentation_networks_answer_as_torchvision_s(head, tmp_path):
    twin = twins.segmenter(head)
    network, said = loaded(SEGMENTERS[head], twin, tmp_path)
    x = image(1, 3, 65, 41)
    for ours, its in zip(network.outputs(x), twin(x).values(), strict=True):
        assert its.std() > 0
        torch.testing.assert_close(ours, its, rtol=1e-9, atol=1e-12)
    assert "drawn" not in said
    assert "left" not in said


@pytest.mark.parametrize("head", SEGMENTERS)
def test_a_classifier_of_other_classes_is_drawn_anew_and_said_so(head, tmp_path):
    twin, spec = twins.segmenter(head), {**SEGMENTERS[head], "out_channels": 2}
    network, said = loaded(spec, twin, tmp_path)
    torch.manual_seed(1)
    fresh = build_network(spec).double().state_dict()
    for key, tensor in network.state_dict().items():
        score = key.startswith(("classifier.4.", "aux_classifier.4."))
        assert torch.equal(tensor, fresh[key] if score else twin.state_dict()[key]), key
    assert "its classifier has 21 classes and this network 2; drawn anew: classifier.4, aux_classifier.4" in said


def test_deeplab_s_own_head_takes_what_it_has(tmp_path):
    """torchvision scores one layer later: ASPP is the same, its score is another's."""
    twin = twins.segmenter("deeplab")
    network, said = loaded({**SEGMENTERS["deeplab"], "head": "paper", "auxiliary": False}, twin, tmp_path)
    assert torch.equal(network.classifier[0].project[0].weight, twin.classifier[0].project[0].weight)
    assert "drawn anew: classifier.1" in said
    network, said = loaded({**SEGMENTERS["deeplab"], "image_pooling": False}, twins.segmenter("deeplab"), tmp_path)
    assert "drawn anew: classifier.0.project.0" in said


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
@torch.inference_mode()
def test_one_picture_in_all_channels_answers_as_its_rgb_copy(channels, tmp_path):
    twin = twins.resnet("resnet18")
    spec = {"name": "upernet", "backbone": "resnet18", "width": 2, "in_channels": channels}
    network, said = loaded(spec, twin, tmp_path)
    grey = image(1, 1, 33, 33)
    ours, its = network.backbone(grey.expand(-1, channels, -1, -1))[-1], twin.stages(grey.expand(-1, 3, -1, -1))[-1]
    torch.testing.assert_close(ours, its, rtol=1e-5, atol=1e-6)  # the weights were averaged in float32
    assert f"3 input channels {'averaged' if channels < 3 else 'repeated'} for {channels}" in said


@given(channels=st.integers(1, 9), known=st.integers(1, 5), dims=st.integers(2, 3))
def test_channels_keep_the_sum_over_a_kernel(channels, known, dims):
    weight = torch.randn(2, known, *[3] * dims, dtype=torch.float64)
    changed = for_channels(weight, channels)
    assert changed.shape == (2, channels, *[3] * dims)
    torch.testing.assert_close(changed.sum(1), weight.sum(1))


@given(kernel=st.sampled_from([1, 2, 3, 4]), stride=st.sampled_from([1, 2]), rate=st.integers(1, 2), up=st.booleans())
def test_a_volume_of_equal_planes_answers_as_its_plane(kernel, stride, rate, up):
    """Away from the border: Carreira and Zisserman's inflation, for convolutions and their transposes."""
    if up and kernel % stride:
        return  # planes of a transposed convolution then meet in different numbers
    layers = (nn.ConvTranspose2d, nn.ConvTranspose3d) if up else (nn.Conv2d, nn.Conv3d)
    flat, solid = (layer(2, 3, kernel, stride=stride, dilation=1 if up else rate).double() for layer in layers)
    with torch.no_grad():
        solid.weight.copy_(inflated(flat.weight, kernel, taps_of(solid)))
        solid.bias.copy_(flat.bias)
        plane = torch.randn(1, 2, 9, 9, dtype=torch.float64)
        volume = solid(plane.unsqueeze(2).expand(-1, -1, 12, -1, -1))
        torch.testing.assert_close(volume[:, :, volume.shape[2] // 2], flat(plane))


def test_three_axes_are_inflated(tmp_path):
    twin = twins.resnet("resnet18")
    spec = {"name": "fcn_resnet", "backbone": "resnet18", "dims": 3, "width": 2, "in_channels": 1}
    network, said = loaded(spec, twin, tmp_path)
    for key, tensor in twin.state_dict().items():
        if not key.startswith("fc."):
            own = network.state_dict()[f"backbone.{key}"]
            own = own.sum(2) if own.ndim == 5 else own
            tensor = tensor.sum(1, keepdim=True) if key == "conv1.weight" else tensor
            torch.testing.assert_close(own, tensor, rtol=1e-5, atol=1e-6)
    assert "inflated to three axes" in said


def test_fc6_in_three_axes_is_decimated_and_inflated(tmp_path):
    twin = twins.vgg16()
    network, _ = loaded({**FCN, "dims": 3, "fc_size": 3}, twin, tmp_path)
    flat = twin.classifier[0].weight.reshape(128, 16, 7, 7)[..., ::3, ::3]
    torch.testing.assert_close(network.fc[0].weight.sum(2), flat, rtol=1e-5, atol=1e-7)


def test_decimation_keeps_the_ends_and_refuses_what_does_not_divide():
    line = torch.arange(7.0).reshape(1, 1, 7)
    assert decimated(line, (1, 1, 3)).flatten().tolist() == [0, 3, 6]
    assert decimated(line, (1, 1, 4)).flatten().tolist() == [0, 2, 4, 6]
    assert decimated(line, (1, 1, 1)).flatten().tolist() == [3]
    assert decimated(line, (1, 1, 5)) is None
    assert decimated(line, (1, 1, 9)) is None
    assert decimated(line, (2, 1, 7)) is None


def test_a_folded_convolution_answers_as_with_its_norm():
    layer, norm = nn.Conv2d(2, 3, 3), twins.drawn(nn.BatchNorm2d(3))
    whole = nn.Sequential(layer, norm).double().eval()
    plain = nn.Conv2d(2, 3, 3).double()
    with torch.no_grad():
        weight, bias = folded(layer.weight, layer.bias, [norm.weight, norm.bias, norm.running_mean, norm.running_var])
        plain.load_state_dict({"weight": weight, "bias": bias})
        x = image(1, 2, 8, 8)
        torch.testing.assert_close(plain(x), whole(x))


def test_files_of_every_kind_hold_the_same(tmp_path):
    weights = twins.resnet("resnet18").state_dict()
    torch.save(weights, tmp_path / "zip.pth")
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"model": {f"module.{k}": v for k, v in weights.items()}, "epoch": 3}, tmp_path / "wrapped.pth")
    save_file(weights, tmp_path / "weights.safetensors")
    for path in tmp_path.iterdir():
        read = read_tensors(path)
        assert set(read) == set(weights)
        assert all(torch.equal(read[key], tensor) for key, tensor in weights.items())


def test_old_files_without_counters_load(tmp_path):
    twin = twins.resnet("resnet18")
    path = tmp_path / "old.pth"
    torch.save({k: v for k, v in twin.state_dict().items() if "num_batches_tracked" not in k}, path)
    account = load_pretrained(build_network({"name": "upernet", "backbone": "resnet18", "width": 2}), path)
    norms = sum(isinstance(layer, nn.BatchNorm2d) for layer in twin.modules())
    assert account.taken == len(twin.state_dict()) - norms - len(twin.fc.state_dict())


class Runs:
    """A pickle that would run code."""

    def __reduce__(self):
        return print, ("it ran",)


def refused(spec, path):
    network = build_network({"width": 2, **spec})
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(MedsegError) as error:
        load_pretrained(network, path)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert len(str(error.value)) <= 500
    return str(error.value)


UPERNET = {"name": "upernet", "backbone": "resnet18"}


def test_another_depth_is_refused_with_keys_and_shapes(tmp_path):
    said = refused(UPERNET, written(twins.resnet("resnet34"), tmp_path))
    assert "is resnet34" in said
    assert "layer1.2.conv1.weight is (2, 2, 3, 3) and backbone.layer1.2.conv1.weight none" in said
    assert "it takes resnet18, fcn_resnet18 or deeplabv3_resnet18" in said
    said = refused({**UPERNET, "backbone": "resnet34"}, written(twins.resnet("resnet18"), tmp_path))
    assert "backbone.layer1.2.conv1.weight is (2, 2, 3, 3) and not in the file" in said


def test_another_width_is_refused_with_keys_and_shapes(tmp_path):
    said = refused(UPERNET, written(twins.resnet("resnet18", width=4), tmp_path))
    assert "100 of its tensors do not fit" in said
    assert "bn1.weight is (4,) and backbone.bn1.weight (2,)" in said


@pytest.mark.parametrize(
    ("spec", "takes"),
    [(UPERNET, "takes resnet18"), ({"name": "unet"}, "has no backbone of torchvision's")],
    ids=["upernet", "unet"],
)
def test_a_network_says_what_it_takes(spec, takes, tmp_path):
    said = refused(spec, written(twins.vgg16(), tmp_path))
    assert "is vgg16" in said
    assert takes in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": torch.zeros(2)}, "none of torchvision's.*keys are weight.*training.init_from"),
        ({"fc.weight": torch.zeros(2), "features.0.weight": torch.zeros(1, 3, 3, 3)}, "none of torchvision's"),
        ([1, 2], "holds no state dict"),
        ({}, "holds no state dict"),
        ({"model": Runs()}, "more than tensors and plain values.*not loaded"),
    ],
    ids=["unknown", "other VGG", "list", "empty", "code"],
)
def test_a_file_of_something_else_is_refused(content, message, tmp_path, capsys):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(MedsegError, match=message):
        load_pretrained(build_network({**UPERNET, "width": 2}), tmp_path / "weights.pth")
    assert "it ran" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("damage", ["cut", "text", "empty", "plain pickle", "cut safetensors"])
def test_a_damaged_file_is_one_sentence(damage, tmp_path):
    path = written(twins.resnet("resnet18"), tmp_path)
    save_file({"weight": torch.zeros(9)}, tmp_path / "weights.safetensors")
    content = {
        "cut": path.read_bytes()[:1000],
        "text": b"<html>not found</html>",
        "empty": b"",
        "plain pickle": pickle.dumps({"a": 1}),
        "cut safetensors": (tmp_path / "weights.safetensors").read_bytes()[:-4],
    }
    path.write_bytes(content[damage])
    with pytest.raises(MedsegError, match=r"weights\.pth"):
        load_pretrained(build_network({**UPERNET, "width": 2}), path)


def test_a_missing_file_is_told_with_the_nearest(tmp_path):
    written(twins.resnet("resnet18"), tmp_path)
    with pytest.raises(MedsegError, match=r"weight\.pth does not exist; did you mean 'weights\.pth'"):
        read_tensors(tmp_path / "weight.pth")
    with pytest.raises(MedsegError, match="is a folder"):
        read_tensors(tmp_path)


def experiment(pretrained):
    return Experiment.model_validate({"name": "x", "data": {}, "network": {"name": "unet", "pretrained": pretrained}})


def test_pretrained_is_no_argument_of_the_network():
    digest = "0123456789abcdef" * 4
    for pretrained in ("weights.pth", {"url": "https://host/w.pth", "sha256": digest.upper()}, None):
        network = experiment(pretrained).network
        assert network.arguments == {"name": "unet", "dims": 2}
        assert Experiment.model_validate(experiment(pretrained).model_dump(mode="json")).network == network
    assert experiment({"url": "https://host/w.pth", "sha256": digest.upper()}).network.pretrained.sha256 == digest


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn", "resnet18", "resnet50", "fcn_resnet50", "deeplabv3_resnet50"])
@torch.inference_mode()
def test_torchvision_itself(name, tmp_path):
    """At full width in float32; what it scores, or its last feature, to 1e-5."""
    models = pytest.importorskip("torchvision").models
    segments = name.startswith(("fcn", "deeplab"))
    if segments:
        none = {"weights": None, "weights_backbone": None}
        twin = twins.drawn(models.get_model(name, aux_loss=True, **none))
        spec = SEGMENTERS["fcn" if name.startswith("fcn") else "deeplab"]
    else:
        twin = twins.drawn(models.get_model(name, weights=None))
        spec = {**FCN, "out_channels": 2} if name.startswith("vgg") else {"name": "upernet", "backbone": name}
    network = build_network({**spec, "width": 64}).eval()
    load_pretrained(network, written(twin, tmp_path))
    torch.manual_seed(5)
    x = torch.randn(1, 3, 64, 64)
    if segments:
        ours, its = torch.cat(network.outputs(x)), torch.cat(list(twin(x).values()))
    elif name.startswith("vgg"):
        ours, its = nn.Sequential(*network.stages)(x), twin.features(x)
    else:
        stem = twin.maxpool(twin.relu(twin.bn1(twin.conv1(x))))
        ours, its = network.backbone(x)[-1], twin.layer4(twin.layer3(twin.layer2(twin.layer1(stem))))
    assert its.std() > 0
    assert (ours - its).abs().max() <= 1e-5 * its.abs().max()
