import laws
import pytest
import torch
from torch.nn import functional

from medseg import build_network
from medseg.networks.fcn import FixedUpsampling

NAMES = ("fcn32s", "fcn16s", "fcn8s")


def narrow(name, padding="same", **more):
    return {"name": name, "in_channels": 1, "out_channels": 2, "width": 2, "padding": padding, **more}


@pytest.mark.parametrize(
    ("name", "parameters"), [("fcn32s", 134_346_581), ("fcn16s", 134_364_410), ("fcn8s", 134_376_863)]
)
def test_134_million_parameters_as_table_1_counts(name, parameters):
    assert laws.counted({"name": name}) == parameters


@pytest.mark.parametrize(("name", "crops"), [("fcn32s", [19]), ("fcn16s", [-5, 27]), ("fcn8s", [-5, -9, 31])])
def test_crops_are_the_release_s(name, crops):
    """What the authors' prototxts have as offsets; a negative one crops the skip, the last one the scores."""
    assert build_network(narrow(name, "published")).shifts == crops
    assert not any(build_network(narrow(name, "same")).shifts)


@pytest.mark.parametrize("name", NAMES)
def test_500_becomes_16_becomes_500(name):
    with torch.device("meta"):
        network = build_network({"name": name})
        x = torch.empty(1, 3, 500, 500)
        assert network(x).shape == (1, 21, 500, 500)
        for stage in network.stages:
            x = stage(x)
        assert network.fc(x).shape == (1, 4096, 16, 16)


@pytest.mark.parametrize("name", NAMES)
def test_probing_finds_the_composed_footprint(name):
    network = laws.built(narrow(name))
    laws.assert_footprint(network, across=1)
    published = build_network(narrow(name, "published"))
    assert (published.fields[0].first, published.fields[0].last) == (network.fields[0].first, network.fields[0].last)


@pytest.mark.parametrize(("name", "halo"), [("fcn32s", 233), ("fcn16s", 241), ("fcn8s", 245)])
def test_footprints(name, halo):
    for padding, offset in (("published", 26), ("same", 0)):
        footprint = build_network(narrow(name, padding)).footprint
        assert (footprint.halo[0], footprint.step[0], footprint.offset[0]) == (halo, 32, offset)
        assert footprint.exact


@pytest.mark.parametrize("padding", ["published", "same"])
@pytest.mark.parametrize("name", NAMES)
def test_tiled_is_whole(name, padding):
    laws.assert_tiled_is_whole(laws.built(narrow(name, padding)), (45, 20), (32, 32))


def test_training_as_published():
    laws.assert_trains(laws.built(narrow("fcn8s", "published", at_once=True)), (30, 20))


@pytest.mark.parametrize("name", NAMES)
def test_scores_begin_at_zero(name):
    torch.manual_seed(0)
    network = build_network(narrow(name)).eval()
    assert not network(torch.randn(1, 1, 32, 32)).any()


def take_over(network, coarser):
    """What ``training.init_from`` takes: tensors of the same name and shape."""
    given, own = coarser.state_dict(), network.state_dict()
    network.load_state_dict(own | {k: v for k, v in given.items() if k in own and own[k].shape == v.shape})


@pytest.mark.parametrize(("coarse", "fine"), [("fcn32s", "fcn16s"), ("fcn16s", "fcn8s"), ("fcn32s", "fcn8s")])
@pytest.mark.parametrize("padding", ["published", "same"])
def test_stages_begin_where_the_coarser_one_ended(coarse, fine, padding):
    """Bilinear up-sampling in two steps is that in one where scores rise evenly: a score of the bias alone does."""
    trained = laws.built(narrow(coarse, padding))
    torch.manual_seed(7)
    network = build_network(narrow(fine, padding)).double().eval()
    take_over(network, trained)
    shared = network.state_dict()
    for key, value in trained.state_dict().items():
        assert key == "to_window.weight" or torch.equal(shared[key], value)
    new = [score for i, score in enumerate(network.skip_scores) if i >= len(trained.skip_scores)]
    assert new and not any(score.weight.any() or score.bias.any() for score in new)
    for net in (trained, network):
        for score in (net.score, *net.skip_scores):
            torch.nn.init.zeros_(score.weight)
        for up in net.up:
            up.load_state_dict({"weight": build_network(narrow("fcn16s")).up[0].weight})
    x = torch.zeros(1, 1, 96, 96, dtype=torch.float64)
    inner = (..., slice(40, 56), slice(40, 56))
    assert torch.allclose(network(x)[inner], trained(x)[inner])


def test_skips_are_scaled_at_once():
    at_once, plain = laws.built(narrow("fcn8s", at_once=True)), laws.built(narrow("fcn8s"))
    weights = at_once.state_dict()
    for i, scale in enumerate((1e-2, 1e-4)):
        weights[f"skip_scores.{i}.weight"] = weights[f"skip_scores.{i}.weight"] * scale
    plain.load_state_dict(weights)
    x = laws.noise(plain, (32, 40))
    assert torch.allclose(plain(x), at_once(x))


@pytest.mark.parametrize(("backbone", "parameters"), [("resnet50", 35_322_218), ("resnet101", 54_314_346)])
def test_on_a_resnet_as_torchvision_counts(backbone, parameters):
    assert laws.counted({"name": "fcn_resnet", "backbone": backbone, "auxiliary": True}) == parameters


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("factor", [8, 16])
def test_fixed_up_sampling_interpolates_linearly(factor, dims):
    x = torch.randn(2, 3, *[3] * dims, dtype=torch.float64)
    mode = {2: "bilinear", 3: "trilinear"}[dims]
    up = FixedUpsampling(dims, factor, 2 * factor, factor // 2).double()(x)
    inner = (..., *[slice(factor // 2, -factor // 2)] * dims)
    expected = functional.interpolate(x, scale_factor=factor, mode=mode, align_corners=False)
    assert torch.allclose(up[inner], expected[inner])
    up = FixedUpsampling(dims, factor, 2 * factor - 1, factor - 1).double()(x)
    assert torch.allclose(up, functional.interpolate(x, size=[2 * factor + 1] * dims, mode=mode, align_corners=True))


ON_RESNET = {"backbone": "resnet18", "padding": "published"}


@pytest.mark.parametrize("name", NAMES)
def test_with_skips_on_a_resnet(name):
    spec = narrow(name, **ON_RESNET)
    network = laws.built(spec)
    laws.assert_footprint(network, across=1)
    laws.assert_tiled_is_whole(network, (35, 6), (32, 32))
    laws.assert_sizes(network, (1, 1), (33, 47), (64, 26))
    laws.assert_trains(network, (40, 33))


def test_a_resnet_s_scores_lie_upon_each_other():
    network = build_network(narrow("fcn8s", **ON_RESNET))
    assert network.shifts == [1, 1, 7]
    with torch.device("meta"):
        full = build_network({"name": "fcn8s", "backbone": "resnet101"})
        assert full(torch.empty(1, 3, 500, 375)).shape == (1, 21, 500, 375)
    assert [score.in_channels for score in (full.score, *full.skip_scores)] == [2048, 1024, 512]


def test_stages_on_a_resnet_take_over_the_coarser_one():
    trained, network = (build_network(narrow(name, **ON_RESNET)) for name in ("fcn32s", "fcn8s"))
    take_over(network, trained)
    assert torch.equal(network.backbone.conv1.weight, trained.backbone.conv1.weight)
